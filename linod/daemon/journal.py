"""Structured records for systemd's journal, always with the same fields: what a record holds. sender.py sends it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from logging import WARNING

from ..instants import to_micros
from ..words import count, printable
from .reporter import Record, journal_reads, syslog_priority
from .sender import LAST_WORDS, Sender

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "linod"

# One for each kind of event, for ever: `journalctl MESSAGE_ID=…` finds them in every version.
MESSAGE_IDS = {
    "loaded": "bbfd0b305cb64731a912a22278c3ebc5",
    "nothing": "4788a7f7ac5147daa9df80c017f4fa4e",
    "changed": "6084163f45504590987f01e0e8e59b68",
    "not_started": "aa1efb52b4234889a846728b7cc65f0d",
    "not_loaded": "45b16c4620ce4a80af6944f49018d3ac",
    "reloading": "0529394d77a6474d8f4b86152fae05ad",
    "reloaded": "70003812fac44eafbc28ad0de2c0fd83",
    "reload_failed": "aa3373e7d11e48928dfb26c973b88ab0",
    "override": "bcd97f9b18f94f70a54acd306e60b0d8",
    "site_gone": "9a83396150aa4e129f2c16ab2b045c49",
    "site_back": "06ebdec054a44f6b99a1e3937f21ef72",
    "threads": "18fba059220e400fa4903db4df6368b3",
    "not_forked": "5e43861ea5f640a6b59e927f504b070b",
    "started": "660f28ca64984433a4ba46c7df2c00b9",
    "succeeded": "cfddd46e28bc43bc815e5f97afe87aa6",
    "failed": "459d51b18759496d80618e9888deba78",
    "timed_out": "46ff3044b1df4e4db88594e0602a56d5",
    "cancelled": "ba023fb08cc944bfa63dce4657de812c",
    "crashed": "25978eb777074c8bb2f6e213efa9f49f",
    "lost": "74326e13f678476993e5ba0d80dac8a4",
    "skipped": "37d217e3e39a41078b743f545c7b92cf",
    "ending": "f86c866f183f454aafb3bc13ee37539a",
    "catch_up": "65275d0c0ed647ab99d689967615aa77",
    "retry": "89c9de84996e4c4086201f0b4d6f7693",
    "asked": "b4f9a8d4953c4c1387800f9c7247341a",
    "paused": "abae2e118ca44263bf37627227f8a921",
    "resumed": "c0a2ad2373bc4f1890a29170d558ac82",
    "refused": "ad87a53d33c14c3fbfaa090b2df79c06",
    "late": "2f57ccf860664704a82dccf90f9ce41f",
    "stuck": "2a8ba5786bc44b3390369462084a028b",
    "alerted": "4b4123dd1f504110b76e37da6eeee618",
    "not_alerted": "bb25e4d051784bb791dcd556530ac4f7",
    "ping": "1812dfd0f5984d60b504dd51e9b47285",
    "clock": "a0ba6c248af24db29acef553b90496df",
    "future": "0b75126ed1884525af9e102b0f6af619",
    "history": "6563b2ffca104caea893967ee6762207",
    "history_renewed": "02489a16889040a59202c233caed3dd9",
    "draining": "e23ca48165b4451f8e771b7478f833c5",
    "killing": "8d8b92dd4ec74747816fe8fd60f134d1",
    "stopped": "7593ebb9e5d74e34875292765c135572",
    "notify": "8e4a145c57f64f348e4a441a2e3ce8e8",
    "gap": "81ce61e02e69487e9b31dda706cd8306",
    "bug": "6831f4968ba147a481aa0c94345d8d66",
}

PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")

COLOUR = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")
# What journalctl would hide, and what turns the order of a text round.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
BREAK = re.compile(r"\s*\n\s*")


class JournalSink:
    """Writes records of a site to the journal, and never waits for it longer than a moment."""

    def __init__(self, site: str, path: str = SOCKET) -> None:
        self._site = site
        self._sender = Sender(path)
        self._least = least_priority()

    def write(self, record: Record) -> None:
        self._sender.send(b"".join(encode_field(name, str(value)) for name, value in self.fields(record)))

    def flush(self) -> None:
        """Called once a turn: send what the journal did not take before, and tell of what was let go meanwhile."""
        if self._sender.flush() and self._sender.let_go:
            missing, self._sender.let_go = self._sender.let_go, 0
            text = f"{count(missing, 'record')} missing here: the journal took none for too long. History has the runs."
            self.write(Record(event="gap", text=text, level=WARNING))

    def next_flush(self) -> float | None:
        """In how many seconds `flush` should be called again; None: nothing waits."""
        return self._sender.next_flush()

    def close(self) -> None:
        """Give the journal a last chance, and let it see who we are.

        It looks up the unit of a sender by its pid; a record of a process that has ended meanwhile has none, and
        `journalctl -u` would not show why the daemon could not be started.
        """
        self.flush()
        self._sender.close(LAST_WORDS)

    def fields(self, record: Record) -> Iterator[tuple[str, object]]:
        """The fields of a record: docs/journal.md promises them."""
        yield "MESSAGE", message(record)
        yield "PRIORITY", self._priority(record)
        yield "SYSLOG_IDENTIFIER", IDENTIFIER
        yield "LINOD_SITE", self._site
        yield "LINOD_EVENT", record.event
        if message_id := MESSAGE_IDS.get(record.event):
            yield "MESSAGE_ID", message_id
        yield from of_task(record)
        yield from of_run(record)
        yield from of_line(record)

    def _priority(self, record: Record) -> int:
        """What a run has to tell is never less than the journal keeps of this unit."""
        priority = syslog_priority(record.level)
        return priority if record.run is None else min(priority, self._least)


def least_priority() -> int:
    """The unit of a single pass keeps systemd's own lines out with LogLevelMax=, and says here up to where."""
    word = os.environ.get("LINOD_LEAST_PRIORITY", "")
    return PRIORITIES.index(word) if word in PRIORITIES else len(PRIORITIES)


def message(record: Record) -> str:
    """What the record says: a sentence on one line, or what a task wrote. A traceback follows on lines of its own."""
    if record.line is None:
        text = BREAK.sub(" ", readable(record.text.strip()))
    else:
        text = readable(record.text if record.task is None else f"{printable(record.task.label)}: {record.text}")
    return f"{text}\n{readable(record.detail.rstrip())}" if record.detail else text


def readable(text: str) -> str:
    """A text that journalctl will show, for with a control character it says "blob data" and nothing else."""
    if CONTROL.search(text) is None:
        return text
    return CONTROL.sub(picture, COLOUR.sub("", text.replace("\r\n", "\n")))


def picture(found: re.Match[str]) -> str:
    """The visible sign of a control character."""
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


def of_task(record: Record) -> Iterator[tuple[str, object]]:
    if record.task is not None:
        # journalctl -x shows them as they are.
        yield "LINOD_TASK", printable(record.task.label)
        yield "LINOD_TASK_ID", printable(record.task.id)
    elif record.run is not None:  # of a task that the site no longer has
        yield "LINOD_TASK_ID", printable(record.run.task)


def of_run(record: Record) -> Iterator[tuple[str, object]]:
    run = record.run
    if run is None:
        return
    yield "LINOD_RUN", run.id
    if record.line is None:
        yield "LINOD_DUE", run.due.isoformat()
        yield "LINOD_DUE_USEC", to_micros(run.due)
        yield "LINOD_TRIGGER", run.trigger
        if run.outcome is not None:
            yield "LINOD_OUTCOME", run.outcome
        if run.duration is not None:
            yield "LINOD_DURATION_USEC", round(run.duration * 1e6)


def of_line(record: Record) -> Iterator[tuple[str, object]]:
    line = record.line
    if line is not None and line.logger:
        yield "LINOD_LOGGER", printable(line.logger)
        yield "CODE_FILE", printable(line.file)
        yield "CODE_LINE", line.line
        yield "CODE_FUNC", printable(line.function)


def reads_our_output() -> bool:
    """Whether standard output is connected to the journal: then records are better sent to it with their fields."""
    return journal_reads(1)


def encode_field(name: str, text: str) -> bytes:
    """A field as the protocol wants it: with its length in front where it has several lines."""
    head, value = name.encode(), text.encode(errors="replace")
    if b"\n" not in value:
        return head + b"=" + value + b"\n"
    return head + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
