"""Structured records for systemd's journal, always with the same fields. The only importer of systemd.

Where python3-systemd is not installed, the journal's own protocol is spoken: it is a few lines, and the fields are the
same (https://systemd.io/JOURNAL_NATIVE_PROTOCOL).
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

from ..instants import to_micros
from .reporter import Record, syslog_priority

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "linod"

# One for each kind of event, for ever: `journalctl MESSAGE_ID=…` finds them in every version.
MESSAGE_IDS = {
    "loaded": "bbfd0b305cb64731a912a22278c3ebc5",
    "nothing": "4788a7f7ac5147daa9df80c017f4fa4e",
    "changed": "6084163f45504590987f01e0e8e59b68",
    "not_loaded": "45b16c4620ce4a80af6944f49018d3ac",
    "site_gone": "9a83396150aa4e129f2c16ab2b045c49",
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
    "refused": "ad87a53d33c14c3fbfaa090b2df79c06",
    "clock": "a0ba6c248af24db29acef553b90496df",
    "future": "0b75126ed1884525af9e102b0f6af619",
    "history": "6563b2ffca104caea893967ee6762207",
    "draining": "e23ca48165b4451f8e771b7478f833c5",
    "killing": "8d8b92dd4ec74747816fe8fd60f134d1",
    "stopped": "7593ebb9e5d74e34875292765c135572",
    "notify": "8e4a145c57f64f348e4a441a2e3ce8e8",
    "bug": "6831f4968ba147a481aa0c94345d8d66",
}

Send = Callable[..., object]


class JournalSink:
    """Writes records of a site to the journal."""

    def __init__(self, site: str, send: Send | None = None) -> None:
        self._site = site
        self._send = send or best_sender()

    def write(self, record: Record) -> None:
        # A journal that is being restarted must not stop us; it reads its socket again soon.
        with suppress(OSError):
            self._send(*(f"{name}={value}" for name, value in self.fields(record)))

    def flush(self) -> None:
        """Every record was sent when it was written."""

    def fields(self, record: Record) -> Iterator[tuple[str, object]]:
        """The fields of a record: README.md promises them."""
        text = record.text if not record.line or not record.task else f"{record.task.label}: {record.text}"
        yield "MESSAGE", f"{text}\n{record.detail.rstrip()}" if record.detail else text
        yield "PRIORITY", syslog_priority(record.level)
        yield "SYSLOG_IDENTIFIER", IDENTIFIER
        yield "LINOD_SITE", self._site
        yield "LINOD_EVENT", record.event
        if message_id := MESSAGE_IDS.get(record.event):
            yield "MESSAGE_ID", message_id
        yield from of_task(record)
        yield from of_run(record)
        yield from of_line(record)


def of_task(record: Record) -> Iterator[tuple[str, object]]:
    if record.task is not None:
        yield "LINOD_TASK", record.task.label
        yield "LINOD_TASK_ID", record.task.id


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


def best_sender() -> Send:
    """The journal's own library where it is installed, else our form of its protocol."""
    try:
        from systemd.journal import sendv
    except ImportError:
        return NativeSender(SOCKET)
    return sendv  # type: ignore[no-any-return]


class NativeSender:
    """Sends records to the journal's socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __call__(self, *fields: str) -> None:
        packet = b"".join(map(encode_field, fields))
        try:
            self._socket.sendto(packet, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_as_file(packet)

    def _send_as_file(self, packet: bytes) -> None:
        """A record that is too large for a packet comes in a sealed file in memory."""
        fd = os.memfd_create("linod-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(fd, packet)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            # Not send_fds: before Python 3.12 it forgets the address.
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
            self._socket.sendmsg([b""], [rights], 0, self._path)
        finally:
            os.close(fd)


def encode_field(field: str) -> bytes:
    """A field as the protocol wants it: with its length in front where it has several lines."""
    name, _equals, value = field.encode(errors="replace").partition(b"=")
    if b"\n" not in value:
        return name + b"=" + value + b"\n"
    return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
