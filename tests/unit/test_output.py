"""What one run writes: lines to show, and the last part to keep."""

import json
import logging
import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linod.daemon.output import LONGEST_LINE, LONGEST_RECORD, Line, Output, read_line

RECORD = {"level": 40, "logger": "app", "message": "no", "file": "/app/tasks.py", "line": 7, "function": "work"}


def record(**fields: object) -> bytes:
    return b"\x1e" + json.dumps(RECORD | fields).encode() + b"\n"


def feed(*chunks: bytes, keep: int = 1 << 16, lines: int = 1000) -> tuple[list[Line], Output]:
    output = Output(keep=keep, lines=lines)
    shown = [line for chunk in chunks for line in output.feed(chunk)]
    return shown + output.finish(), output


def messages(*chunks: bytes, **limits: int) -> list[str]:
    return [line.message for line in feed(*chunks, **limits)[0]]


# Lines


def test_lines_are_shown_when_they_are_complete() -> None:
    output = Output(keep=1000, lines=10)
    assert output.feed(b"one\ntw") == [Line(message="one")]
    assert output.feed(b"o") == []
    assert output.feed(b"\n") == [Line(message="two")]
    assert output.feed(b"thr") == []
    assert output.finish() == [Line(message="thr")]
    assert output.finish() == []


def test_empty_lines_are_lines() -> None:
    assert messages(b"\n\na\r\n") == ["", "", "a"]


PIECES = st.sampled_from(
    [
        b"a",
        b"\n",
        b"\r\n",
        "é€😀".encode(),
        b"\xff\xfe",
        b"\0",
        b"<3>",
        b"\x1e",
        record(),
        b"x" * (LONGEST_LINE - 1),
        b"y" * LONGEST_LINE,
        b"\x1e" + b"z" * LONGEST_LINE,
    ]
)


@given(st.lists(PIECES, max_size=12).map(b"".join), st.lists(st.integers(0, 60_000), max_size=8), st.integers(0, 6))
def test_where_the_pipe_is_cut_makes_no_difference(data: bytes, cuts: list[int], lines: int) -> None:
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[start:end] for start, end in pairwise(places)]
    whole, output = feed(data, keep=20_000, lines=lines)
    parts, in_parts = feed(*chunks, keep=20_000, lines=lines)
    assert parts == whole
    assert in_parts.text() == output.text()
    assert (in_parts.size, in_parts.hidden) == (output.size, output.hidden)
    assert len(whole) <= lines or lines == 0
    assert all(len(line.message) <= LONGEST_LINE or "\x1e" in line.message for line in whole)


def test_a_line_without_end_is_shown_in_pieces() -> None:
    assert list(map(len, messages(b"x" * (3 * LONGEST_LINE + 5) + b"\n"))) == [*[LONGEST_LINE] * 3, 5]
    assert list(map(len, messages(b"x" * LONGEST_LINE + b"\nyes"))) == [LONGEST_LINE, 3]


# Records


def test_a_log_record_keeps_its_level_logger_and_place() -> None:
    [line], _ = feed(record(traceback="Traceback\n  …\n"))
    assert line == Line(
        message="no",
        level=logging.ERROR,
        logger="app",
        traceback="Traceback\n  …\n",
        file="/app/tasks.py",
        line=7,
        function="work",
    )
    assert str(line) == "ERROR app: no\nTraceback\n  …"


def test_a_record_longer_than_a_line_is_whole() -> None:
    [line], _ = feed(record(message="m" * 100_000))
    assert len(line.message) == 100_000


@pytest.mark.parametrize(
    "raw",
    [
        b"\x1e",
        b"\x1ehello",
        b"\x1e{}",
        b"\x1e[1]",
        b"\x1enull",
        b"\x1e5",
        b"\x1e" + b"[" * 100_000,
        b"\x1e\xff",
        record(level="high").strip(),
        record(level=None).strip(),
        record(level=float("inf")).strip(),
        record(line="x").strip(),
    ],
    ids=lambda raw: repr(raw[:40]),
)
def test_what_only_looks_like_a_record_is_a_line(raw: bytes) -> None:
    line = read_line(raw)
    assert line.message.startswith("\x1e")
    assert line.level == logging.INFO


@given(st.binary())
def test_any_bytes_are_a_line(raw: bytes) -> None:
    line = read_line(raw)
    assert "\0" not in line.message
    line.message.encode()
    assert str(line)[: len(line.message)] == line.message


@pytest.mark.parametrize(
    ("prefix", "level"),
    [
        ("<0>", logging.CRITICAL),
        ("<2>", logging.CRITICAL),
        ("<3>", logging.ERROR),
        ("<4>", logging.WARNING),
        ("<5>", 25),
        ("<6>", logging.INFO),
        ("<7>", logging.DEBUG),
    ],
)
def test_a_prefix_of_the_journal_is_a_level(prefix: str, level: int) -> None:
    assert read_line(f"{prefix}text".encode()) == Line(message="text", level=level)


def test_other_angle_brackets_are_text() -> None:
    assert messages(b"<8>a\n<b>\n<33>c\na <3>\n") == ["<8>a", "<b>", "<33>c", "a <3>"]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert messages(b"caf\xe9\nN\0L\n") == ["caf\N{REPLACEMENT CHARACTER}", "N\N{SYMBOL FOR NULL}L"]


# Limits


@pytest.mark.claim("S15")
def test_only_so_many_lines_are_shown_and_the_rest_is_counted() -> None:
    shown, output = feed(b"1\n2\n3\n4\n", b"5\n", lines=2)
    assert [line.message for line in shown] == ["1", "2"]
    assert output.hidden == 6
    assert output.text() == "1\n2\n3\n4\n5"


def test_no_lines_at_all_may_be_wanted() -> None:
    shown, output = feed(b"1\n2\n", lines=0)
    assert (shown, output.hidden, output.text()) == ([], 4, "1\n2")


def test_the_last_part_is_kept_from_the_beginning_of_a_line() -> None:
    _, output = feed(b"".join(b"line %05d\n" % number for number in range(1000)), keep=100)
    first, *lines = output.text().splitlines()
    assert first == "[10,900 bytes before this are not kept]"
    assert lines == [f"line {number:05}" for number in range(991, 1000)]


@pytest.mark.claim("S15")
def test_of_one_endless_line_the_last_part_is_kept() -> None:
    _, output = feed(b"x" * 100_000 + b"end", keep=1000)
    first, line = output.text().splitlines()
    assert "not kept" in first
    assert line == "x" * 997 + "end"


def test_records_in_the_kept_part_are_readable() -> None:
    _, output = feed(b"before\n" + record() + b"<4>careful\n")
    assert output.text() == "before\nERROR app: no\ncareful"


def test_nothing_may_be_kept() -> None:
    output = Output(keep=0, lines=0)
    for _ in range(100):
        output.feed(b"x" * 65536)
    assert len(output._tail) == 0
    assert "6,553,600 bytes" in output.text()


def test_a_run_that_writes_nothing_has_no_text() -> None:
    assert feed()[1].text() == ""


@pytest.mark.claim("S15")
@pytest.mark.parametrize(
    "chunk",
    [b"line\n" * 13107, b"x" * 65536, b"\x1e" + b"x" * 65535],
    ids=["lines", "one line", "one record"],
)
def test_a_hundred_megabytes_stay_bounded_and_are_quickly_read(chunk: bytes) -> None:
    output = Output(keep=1 << 16, lines=1000)
    number = 100_000_000 // len(chunk)
    tracemalloc.start()
    began = time.process_time()
    for _ in range(number):
        output.feed(chunk)
    output.finish()
    text = output.text()
    seconds = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert output.size == number * len(chunk)
    assert peak < 4 * LONGEST_RECORD + 4_000_000
    assert len(text) < 200_000
    assert seconds < 20  # it was hours where each chunk copied all that came before
