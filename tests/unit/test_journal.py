"""Records for the journal: their fields, and the journal's own protocol."""

from __future__ import annotations

import array
import logging
import os
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from linod.daemon.journal import MESSAGE_IDS, JournalSink, NativeSender, reads_our_output
from linod.daemon.output import Line
from linod.daemon.reporter import Record, Reporter
from linod.runs import Outcome, Run
from linod.schedules import Interval
from linod.task import Task

TASK = Task(id="blog.tasks.tidy", label="tidy", text="", schedule=Interval(3600, 0.0))
DUE = datetime(2026, 11, 24, 20, tzinfo=UTC)


def run(**fields: object) -> Run:
    return Run(id=7, task=TASK.id, due=DUE, **fields)  # type: ignore[arg-type]


class Journal:
    """A socket where the journal's would be."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(5)

    def next(self) -> dict[str, str]:
        """The fields of the next record."""
        packet, ancillary, _flags, _address = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _level, _kind, data in ancillary:
            (fd,) = array.array("i", data)
            packet = os.pread(fd, 1 << 26, 0)
            os.close(fd)
        return decode(packet)


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
    return Reporter(JournalSink("myprj", NativeSender(journal.path)))


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


def test_a_text_cannot_forge_a_field(journal: Journal) -> None:
    sink = JournalSink("myprj", NativeSender(journal.path))
    sink.write(Record(event="output", text="harmless\nPRIORITY=0\nLINOD_TASK=other"))
    fields = journal.next()
    assert fields["MESSAGE"] == "harmless\nPRIORITY=0\nLINOD_TASK=other"
    assert fields["PRIORITY"] == "6"
    assert "LINOD_TASK" not in fields


def test_a_record_of_any_size_arrives(journal: Journal) -> None:
    sink = JournalSink("myprj", NativeSender(journal.path))
    sink.write(Record(event="output", text="x" * 3_000_000))
    assert len(journal.next()["MESSAGE"]) == 3_000_000


def test_a_journal_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    JournalSink("myprj", NativeSender(str(tmp_path / "none"))).write(Record(event="output", text="lost"))


def test_each_event_of_the_reporter_has_an_id_of_its_own() -> None:
    source = (Path(__file__).parents[2] / "linod" / "daemon" / "reporter.py").read_text()
    said = set(re.findall(r'_say\(\s*"(\w+)"', source)) | set(Outcome)
    assert said - {"output", "site_output", "message"} <= set(MESSAGE_IDS)
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)


def test_the_journal_is_recognized_by_its_stream_not_by_the_variable_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(1)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert reads_our_output()
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
    assert not reads_our_output()
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not reads_our_output()
