"""Any record for the journal: a reader of its protocol finds exactly the fields that were meant, and no other."""

from __future__ import annotations

import array
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linod.daemon.journal import JournalSink, encode_field
from linod.daemon.output import Line
from linod.daemon.reporter import Record
from linod.runs import Outcome, Run
from linod.schedules import Interval
from linod.task import Task
from tests.support.texts import texts

NAME = re.compile(rb"[A-Z][A-Z0-9_]{0,63}")  # of a field that journald accepts from clients
DUE = datetime(2026, 11, 24, 20, tzinfo=UTC)


class Reader:
    """Reads records as journald does: an empty line divides them, one with = is a field, after others comes a size."""

    def __init__(self, packet: bytes) -> None:
        self.records: list[list[tuple[bytes, bytes]]] = [[]]
        while packet:
            line, _newline, rest = packet.partition(b"\n")
            if not line:
                self.records.append([])
                packet = rest
            elif line[:1] in b".#":
                packet = rest
            elif b"=" in line:
                name, _equals, value = line.partition(b"=")
                self._take(name, value)
                packet = rest
            else:
                size = int.from_bytes(rest[:8], "little")
                assert len(rest) > 8 + size, "the value ends too soon"
                assert rest[8 + size : 9 + size] == b"\n", "no line ends the value"
                self._take(line, rest[8 : 8 + size])
                packet = rest[9 + size :]

    def _take(self, name: bytes, value: bytes) -> None:
        assert NAME.fullmatch(name), name
        self.records[-1].append((name, value))


injections = st.sampled_from(
    [
        "a\nPRIORITY=0",
        "\nMESSAGE_ID=1\n",
        "\n\nMESSAGE=another\n",
        "=",
        "a=b\n.x\n#y",
        "\n" + "\0" * 8,
        "x\n\x01" + "\0" * 7,
    ]
)
words = texts | injections | st.lists(texts | injections, max_size=3).map("".join)


@given(words, st.sampled_from(["MESSAGE", "LINOD_TASK"]), st.lists(words, max_size=3))
@example("a\nb", "MESSAGE", [])
def test_a_field_is_read_as_it_was_written(text: str, name: str, others: list[str]) -> None:
    packet = b"".join(encode_field(name, each) for each in [text, *others])
    expected = [(name.encode(), each.encode(errors="replace")) for each in [text, *others]]
    assert Reader(packet).records == [expected]


tasks = st.builds(Task, id=words, label=words, text=words, schedule=st.just(Interval(3600, 0.0)))
runs = st.builds(
    Run,
    id=st.integers(0, 2**63),
    task=words,
    due=st.just(DUE),
    outcome=st.none() | st.sampled_from(Outcome),
    reason=words,
    duration=st.none() | st.floats(0, 1e9),
)
lines = st.builds(
    Line,
    message=words,
    level=st.integers(),
    logger=words,
    traceback=words,
    file=words,
    line=st.integers(),
    function=words,
)
records = st.builds(
    Record,
    event=st.sampled_from(["started", "failed", "line", "bug"]),
    text=words,
    level=st.integers(),
    task=st.none() | tasks,
    run=st.none() | runs,
    line=st.none() | lines,
    detail=words,
)


class Listening:
    """A sink with the socket of a journal at its other end."""

    def __init__(self, directory: str) -> None:
        path = str(Path(directory, "journal"))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(10)
        self.sink = JournalSink("my.site", path)

    def next(self) -> bytes:
        packet, ancillary, _flags, _address = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _level, _kind, data in ancillary:
            (fd,) = array.array("i", data)
            packet = os.pread(fd, 1 << 26, 0)
            os.close(fd)
        return packet


@pytest.fixture
def journal() -> Iterator[Listening]:
    with tempfile.TemporaryDirectory() as directory:
        listening = Listening(directory)
        yield listening
        listening.sink.close()
        listening.socket.close()


@given(records)
@example(Record(event="bug", text="x" * 300_000, level=40))
def test_a_record_arrives_with_its_fields_and_no_others(journal: Listening, record: Record) -> None:
    journal.sink.flush()
    journal.sink.write(record)
    [found] = Reader(journal.next()).records
    meant = [(name.encode(), str(value).encode(errors="replace")) for name, value in journal.sink.fields(record)]
    assert found == meant
    names = [name for name, _value in found]
    assert len(set(names)) == len(names)
    assert dict(found)[b"PRIORITY"] in {b"%d" % priority for priority in range(8)}
    assert dict(found)[b"LINOD_SITE"] == b"my.site"


@given(st.lists(records, max_size=30))
def test_all_records_arrive_in_their_order(journal: Listening, some: list[Record]) -> None:
    for record in some:
        journal.sink.write(record)
        journal.sink.flush()
        [found] = Reader(journal.next()).records
        meant = dict(journal.sink.fields(record))
        assert dict(found)[b"MESSAGE"] == str(meant["MESSAGE"]).encode(errors="replace")
