"""Records for the journal: their fields, the journal's own protocol, and what happens when it does not listen."""

from __future__ import annotations

import array
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from linod.daemon.journal import MESSAGE_IDS, JournalSink, reads_our_output
from linod.daemon.output import Line
from linod.daemon.reporter import Record, Reporter
from linod.daemon.sender import LAST_WORDS, MOST_WAITING, TRY_AGAIN
from linod.runs import Outcome, Run
from linod.schedules import Interval
from linod.task import Task

ROOT = Path(__file__).parents[2]
TASK = Task(id="blog.tasks.tidy", label="tidy", text="", schedule=Interval(3600, 0.0))
EVIL = "w\x1b]0;owned\x07\x9b2J\u202e\nforged"
OBEYED = set("\x1b\x07\x9b\u202e")  # by a terminal
DUE = datetime(2026, 11, 24, 20, tzinfo=UTC)


def run(**fields: object) -> Run:
    return Run(id=7, task=TASK.id, due=DUE, **fields)  # type: ignore[arg-type]


class Journal:
    """A socket where the journal's would be. As long as nobody calls `next`, it is a journal that is stopped."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.start()

    def start(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(5)

    def stop(self) -> None:
        self.socket.close()
        os.unlink(self.path)

    def next(self) -> dict[str, str]:
        """The fields of the next record."""
        packet, ancillary, _flags, _address = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _level, _kind, data in ancillary:
            (fd,) = array.array("i", data)
            packet = os.pread(fd, 1 << 26, 0)
            os.close(fd)
        return decode(packet)

    def read_until(self, text: str, sink: JournalSink) -> list[str]:
        """All messages up to one, while the loop of a daemon goes on."""
        self.socket.settimeout(0.01)
        messages: list[str] = []
        deadline = time.monotonic() + 20
        while not messages or messages[-1] != text:
            assert time.monotonic() < deadline, messages[-3:]
            sink.flush()
            with suppress(TimeoutError):
                messages.append(self.next()["MESSAGE"])
        return messages


def decode(packet: bytes) -> dict[str, str]:
    """The journal's protocol, read as its documentation describes it."""
    fields = {}
    while packet:
        head, _newline, packet = packet.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(packet[:8], "little")
            value, packet = packet[8 : 8 + size], packet[8 + size + 1 :]
        fields[name.decode()] = value.decode()
    return fields


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "socket")
    yield journal
    journal.socket.close()


@pytest.fixture
def reporter(journal: Journal) -> Reporter:
    return Reporter(JournalSink("myprj", journal.path))


def test_the_end_of_a_run_says_all_that_one_may_filter_by(journal: Journal, reporter: Reporter) -> None:
    ended = run(outcome=Outcome.FAILED, duration=1.5, reason="ValueError: no", traceback="Traceback\n  File x\n")
    reporter.run_ended(TASK, ended, news=False, failures=1)
    fields = journal.next()
    assert fields.pop("MESSAGE") == "tidy failed after 1.5 s: ValueError: no\nTraceback\n  File x"
    assert fields == {
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "linod",
        "LINOD_SITE": "myprj",
        "LINOD_EVENT": "failed",
        "MESSAGE_ID": MESSAGE_IDS["failed"],
        "LINOD_TASK": "tidy",
        "LINOD_TASK_ID": "blog.tasks.tidy",
        "LINOD_RUN": "7",
        "LINOD_DUE": "2026-11-24T20:00:00+00:00",
        "LINOD_DUE_USEC": "1795550400000000",
        "LINOD_TRIGGER": "schedule",
        "LINOD_OUTCOME": "failed",
        "LINOD_DURATION_USEC": "1500000",
    }


def test_a_log_record_of_a_task_keeps_its_place_in_the_code(journal: Journal, reporter: Reporter) -> None:
    line = Line(message="careful", level=logging.WARNING, logger="blog", file="/b.py", line=3, function="tidy")
    reporter.run_wrote(TASK, run(), [line])
    fields = journal.next()
    assert fields["MESSAGE"] == "tidy: careful"
    assert (fields["PRIORITY"], fields["LINOD_LOGGER"]) == ("4", "blog")
    assert (fields["CODE_FILE"], fields["CODE_LINE"], fields["CODE_FUNC"]) == ("/b.py", "3", "tidy")


@pytest.mark.claim("S12")
def test_a_text_cannot_forge_a_field(journal: Journal) -> None:
    sink = JournalSink("myprj", journal.path)
    text = "harmless\nPRIORITY=0\nLINOD_TASK=other"
    sink.write(Record(event="output", text=text, line=Line(message=text)))
    fields = journal.next()
    assert fields["MESSAGE"] == text
    assert fields["PRIORITY"] == "6"
    assert "LINOD_TASK" not in fields


@pytest.mark.claim("S12")
def test_a_name_or_a_reason_cannot_forge_a_line_or_be_obeyed(journal: Journal, reporter: Reporter) -> None:
    """journalctl shows a message as it is, and `journalctl -x` the fields that the catalog names."""
    task = replace(TASK, id=f"app.{EVIL}", label=EVIL)
    ended = replace(run(outcome=Outcome.FAILED, duration=1.0, reason=EVIL, traceback=EVIL), task=task.id)
    line = Line(message="x", logger=EVIL, file=EVIL, function=EVIL, traceback=EVIL)
    reporter.run_ended(task, ended, news=True, failures=1)
    reporter.run_lost(None, ended)
    reporter.run_wrote(task, ended, [line])
    for _ in range(3):
        fields = journal.next()
        message, *traceback = fields.pop("MESSAGE").split("\n")
        assert "forged" in message or "forged" in traceback
        assert not {character for text in (message, *traceback, *fields.values()) for character in text} & OBEYED
        assert not any("\n" in value for value in fields.values())


def test_a_record_of_any_size_arrives(journal: Journal) -> None:
    sink = JournalSink("myprj", journal.path)
    sink.write(Record(event="output", text="x" * 3_000_000))
    assert len(journal.next()["MESSAGE"]) == 3_000_000


@pytest.mark.claim("S12")
def test_what_journalctl_would_hide_is_made_readable(journal: Journal) -> None:
    sink = JournalSink("myprj", journal.path)
    for written, read in (
        ("\x1b[31mred\x1b[0m", "red"),
        ("one\r\ntwo\tcolumns", "one\ntwo\tcolumns"),
        ("10%\r20%\0\x7f", "10%␍20%␀␡"),
        ("\x9b1m", "\N{REPLACEMENT CHARACTER}1m"),
        ("\u202egnp.exe", "\N{REPLACEMENT CHARACTER}gnp.exe"),
        ("Grüße \N{GRINNING FACE}", "Grüße \N{GRINNING FACE}"),
    ):
        sink.write(Record(event="output", text=written, line=Line(message=written)))
        assert journal.next()["MESSAGE"] == read


def test_a_lost_run_of_a_task_that_is_gone_can_be_filtered_by_its_id(journal: Journal, reporter: Reporter) -> None:
    reporter.run_lost(None, run(outcome=Outcome.LOST, reason="the host died"))
    assert journal.next()["LINOD_TASK_ID"] == "blog.tasks.tidy"


def test_what_a_run_tells_is_kept_by_the_unit_of_a_single_pass(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has LogLevelMax=notice, else systemd would write two lines a minute."""
    monkeypatch.setenv("LINOD_LEAST_PRIORITY", "notice")
    reporter = Reporter(JournalSink("myprj", journal.path))
    reporter.run_ended(TASK, run(outcome=Outcome.SUCCEEDED), news=True, failures=0)
    reporter.run_ended(TASK, run(outcome=Outcome.FAILED), news=True, failures=1)
    reporter.stopped()
    assert [journal.next()["PRIORITY"] for _ in range(3)] == ["5", "3", "6"]


def test_a_journal_that_is_gone_stops_nobody_and_hears_it_later(journal: Journal) -> None:
    sink = JournalSink("myprj", journal.path)
    journal.stop()
    sink.write(Record(event="output", text="one"))
    sink.flush()
    journal.start()
    sink.write(Record(event="output", text="two"))
    assert journal.read_until("two", sink) == ["one", "two"]


def test_a_journal_whose_socket_was_made_anew_is_found_again(journal: Journal) -> None:
    sink = JournalSink("myprj", journal.path)
    sink.write(Record(event="output", text="one"))
    assert journal.next()["MESSAGE"] == "one"
    journal.stop()
    journal.start()
    sink.write(Record(event="output", text="two"))
    assert journal.read_until("two", sink) == ["two"]


def test_a_journal_that_is_stopped_delays_nobody_and_misses_nothing(journal: Journal) -> None:
    sink = JournalSink("myprj", journal.path)
    begun = time.thread_time(), time.monotonic()
    for turn in range(20):
        for number in range(25):
            sink.write(Record(event="output", text=str(25 * turn + number)))
        sink.flush()
    waited = time.monotonic() - begun[1] - (time.thread_time() - begun[0])
    assert sink.next_flush() == TRY_AGAIN
    assert journal.read_until("499", sink) == list(map(str, range(500)))
    assert sink.next_flush() is None
    assert (
        waited < 2.0
    )  # python3-systemd would wait for as long as the journal is stopped; a busy machine takes a while


def test_a_journal_that_takes_nothing_for_long_is_told_how_much_is_missing(journal: Journal) -> None:
    sink = JournalSink("myprj", journal.path)
    text = "x" * 10_000
    written = 2 * MOST_WAITING // len(text)
    for _ in range(written):
        sink.write(Record(event="output", text=text))
    sink.write(Record(event="output", text="this comes too late"))
    arrived = 0
    journal.socket.settimeout(0.01)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        sink.flush()
        with suppress(TimeoutError):
            fields = journal.next()
            if fields["LINOD_EVENT"] == "gap":
                break
            arrived += 1
    assert fields["MESSAGE"] == (
        f"{written + 1 - arrived} records missing here: the journal took none for too long. History has the runs."
    )
    assert (fields["PRIORITY"], fields["MESSAGE_ID"]) == ("4", MESSAGE_IDS["gap"])


def test_the_last_words_have_been_read_when_the_daemon_ends(journal: Journal) -> None:
    """The journal must still find the process, to know its unit."""
    sink = JournalSink("myprj", journal.path)
    for number in range(100):
        sink.write(Record(event="output", text=str(number)))
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend(journal.next()["MESSAGE"] for _ in range(100)), daemon=True)
    reader.start()
    sink.close()
    reader.join(5)
    assert len(read) == 100


def test_the_end_waits_no_longer_than_a_moment_for_a_journal_that_is_stopped(journal: Journal) -> None:
    sink = JournalSink("myprj", journal.path)
    sink.write(Record(event="output", text="nobody reads this"))
    begun = time.monotonic()
    sink.close()
    assert LAST_WORDS <= time.monotonic() - begun < LAST_WORDS + 3


def test_each_event_has_an_id_of_its_own_and_each_id_an_event() -> None:
    source = (ROOT / "linod" / "daemon" / "reporter.py").read_text()
    said = set(re.findall(r'_say\(\s*"(\w+)"', source)) | set(Outcome) | {"gap"}
    assert said - {"output", "site_output", "message"} == set(MESSAGE_IDS)
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)


def test_the_catalog_explains_each_kind_of_event_and_no_other() -> None:
    entries = read_catalog()
    assert entries.keys() == set(MESSAGE_IDS.values())
    for headers, text in entries.values():
        assert headers["Subject"] and headers["Defined-By"] == "linod"
        assert len(text.split()) > 10


def test_the_catalog_names_only_fields_that_linod_sends() -> None:
    catalog = (ROOT / "packaging" / "systemd" / "linod.catalog").read_text()
    source = (ROOT / "linod" / "daemon" / "journal.py").read_text()
    assert set(re.findall(r"@(\w+)@", catalog)) <= set(re.findall(r'yield "(\w+)"', source))


def test_the_documentation_lists_each_kind_of_event_and_each_field() -> None:
    page = (ROOT / "docs" / "journal.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| `([0-9a-f]{32})` \|", page, re.MULTILINE))
    assert rows == MESSAGE_IDS
    source = (ROOT / "linod" / "daemon" / "journal.py").read_text()
    for field in re.findall(r'yield "(\w+)"', source):
        assert f"`{field}`" in page, field


def read_catalog() -> dict[str, tuple[dict[str, str], str]]:
    """Headers and text of each entry, by its id."""
    entries = {}
    blocks = re.split(
        r"^-- ([0-9a-f]{32})\n", (ROOT / "packaging" / "systemd" / "linod.catalog").read_text(), flags=re.M
    )
    for id, block in zip(blocks[1::2], blocks[2::2], strict=True):
        head, _blank, text = block.partition("\n\n")
        assert id not in entries
        entries[id] = dict(line.split(": ", 1) for line in head.splitlines()), text
    return entries


def test_the_journal_is_recognized_by_its_stream_not_by_the_variable_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(1)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert reads_our_output()
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
    assert not reads_our_output()
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not reads_our_output()
