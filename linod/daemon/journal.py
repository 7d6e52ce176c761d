"""Structured records for systemd's journal, always with the same fields.

The journal's own protocol is a few lines (https://systemd.io/JOURNAL_NATIVE_PROTOCOL). It is spoken here rather than by
python3-systemd, whose send waits for as long as the journal is stopped or busy: its queue takes eleven records.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import select
import socket
import termios
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from logging import WARNING

from ..instants import to_micros
from ..words import count
from .clock import monotonic
from .reporter import Record, syslog_priority

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "linod"

# One for each kind of event, for ever: `journalctl MESSAGE_ID=…` finds them in every version.
MESSAGE_IDS = {
    "loaded": "bbfd0b305cb64731a912a22278c3ebc5",
    "nothing": "4788a7f7ac5147daa9df80c017f4fa4e",
    "changed": "6084163f45504590987f01e0e8e59b68",
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
    "clock": "a0ba6c248af24db29acef553b90496df",
    "future": "0b75126ed1884525af9e102b0f6af619",
    "history": "6563b2ffca104caea893967ee6762207",
    "draining": "e23ca48165b4451f8e771b7478f833c5",
    "killing": "8d8b92dd4ec74747816fe8fd60f134d1",
    "stopped": "7593ebb9e5d74e34875292765c135572",
    "notify": "8e4a145c57f64f348e4a441a2e3ce8e8",
    "gap": "81ce61e02e69487e9b31dda706cd8306",
    "bug": "6831f4968ba147a481aa0c94345d8d66",
}

MOST_WAITING = 1 << 20  # bytes of records that wait until the journal takes them
PATIENCE = 0.002  # seconds that one turn of the loop may wait for the journal; a busy one takes 0.05 ms a record
TRY_AGAIN = 0.25  # seconds, where the journal took nothing
LAST_WORDS = 1.0  # seconds that the journal gets at the end
# What passes: the journal is busy, is being started, or the kernel is short of something.
PASSING = (
    *(errno.EAGAIN, errno.ENOENT, errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE),
    *(errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EINTR),
)
PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")

COLOUR = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


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
        text = record.text if not record.line or not record.task else f"{record.task.label}: {record.text}"
        yield "MESSAGE", readable(f"{text}\n{record.detail.rstrip()}" if record.detail else text)
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


def readable(text: str) -> str:
    """A text that journalctl will show: where it finds a control character, it says "blob data" and nothing else."""
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
        yield "LINOD_TASK", record.task.label
        yield "LINOD_TASK_ID", record.task.id
    elif record.run is not None:  # of a task that the site no longer has
        yield "LINOD_TASK_ID", record.run.task


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
        yield "LINOD_LOGGER", line.logger
        yield "CODE_FILE", line.file
        yield "CODE_LINE", line.line
        yield "CODE_FUNC", line.function


def reads_our_output() -> bool:
    """Whether standard output is connected to the journal: then records are better sent to it with their fields."""
    device, _colon, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(1)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class Sender:
    """Sends records to the journal in their order, keeps a bounded number while it takes none, and never blocks."""

    def __init__(self, path: str) -> None:
        self.let_go = 0  # records that were too many
        self._path = path
        self._socket: socket.socket | None = None
        self._waiting: deque[bytes] = deque()
        self._size = 0  # bytes of those
        self._patience = PATIENCE  # what is left of it in this turn
        self._taken = 0  # records in this turn

    def send(self, packet: bytes) -> None:
        """Send one record, after those that wait."""
        if self._size + len(packet) > MOST_WAITING and self._waiting:
            self.let_go += 1
            return
        self._waiting.append(packet)
        self._size += len(packet)
        if len(self._waiting) == 1 or self._patience > 0:
            self._work()

    def flush(self) -> bool:
        """Begin another turn. True where nothing waits any more."""
        # A journal that took nothing in the last turn is stopped or gone, and not worth waiting for.
        self._patience = PATIENCE if self._taken or not self._waiting else 0.0
        self._taken = 0
        self._work()
        return not self._waiting

    def next_flush(self) -> float | None:
        if not self._waiting:
            return None
        return 0.0 if self._taken else TRY_AGAIN

    def close(self, patience: float) -> None:
        """Wait until the journal has read all that was sent, for so many seconds at most."""
        deadline = monotonic() + patience
        while (self._waiting or self._unread()) and (rest := deadline - monotonic()) > 0:
            self._patience = rest
            self._work()
            select.select((), (), (), min(rest, 0.001))
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _work(self) -> None:
        """Send what waits, as far as the journal takes it."""
        while self._waiting:
            if not self._sent(self._waiting[0]):
                return
            self._size -= len(self._waiting.popleft())
            self._taken += 1

    def _sent(self, packet: bytes) -> bool:
        """Whether a record is dealt with: taken, or hopeless."""
        while True:
            try:
                self._send_now(packet)
            except OSError as error:
                if error.errno not in PASSING:
                    self.let_go += 1
                    return True
                if error.errno == errno.EAGAIN:
                    if self._has_room():
                        continue
                elif self._reconnected(error.errno):
                    continue
                return False
            return True

    def _send_now(self, packet: bytes) -> None:
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        try:
            self._socket.send(packet)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            send_as_file(self._socket, packet)

    def _connect(self) -> None:
        """Connected, because only then the kernel can tell when the journal has room again."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        end.setblocking(False)
        try:
            end.connect(self._path)
        except OSError:
            end.close()
            raise
        self._socket = end

    def _reconnected(self, number: int) -> bool:
        """The journal's socket was made anew, as when systemd-journald.socket was restarted: leave the old one."""
        if self._socket is None or number not in (errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE):
            return False
        self._socket.close()
        self._socket = None
        return True

    def _has_room(self) -> bool:
        """Whether the journal takes more within this turn's patience."""
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        begun = monotonic()
        room = bool(poll.poll(max(0.0, self._patience) * 1000))
        self._patience -= monotonic() - begun
        return room

    def _unread(self) -> bool:
        """Whether the journal has still to read something."""
        if self._socket is None:
            return False
        size = array.array("i", [0])
        with suppress(OSError):
            fcntl.ioctl(self._socket, termios.TIOCOUTQ, size)
        return size[0] > 0


def send_as_file(end: socket.socket, packet: bytes) -> None:
    """A record that is too large for a packet comes in a sealed file in memory."""
    fd = os.memfd_create("linod-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(packet)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        end.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    finally:
        os.close(fd)


def encode_field(name: str, text: str) -> bytes:
    """A field as the protocol wants it: with its length in front where it has several lines."""
    head, value = name.encode(), text.encode(errors="replace")
    if b"\n" not in value:
        return head + b"=" + value + b"\n"
    return head + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
