"""Any output of a task: the same lines however it is cut, bounded in memory, and nothing that a terminal would obey."""

from __future__ import annotations

import io
import re
import sys
import tracemalloc
from contextlib import redirect_stdout
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linod.archive import storable
from linod.bar import line_of
from linod.ctl.screen import Screen, Styled, visible, width_of
from linod.daemon.journal import readable
from linod.daemon.output import LONGEST_LINE, LONGEST_RECORD, Line, Output
from linod.daemon.pauses import one_line
from linod.overrides.document import shortened
from linod.words import duration, size
from tests.support.texts import changed_bytes, numbers, texts, values

RECORD = (
    b'{"level": 40, "logger": "app", "message": "no", "file": "/a.py", "line": 7, "function": "f", "traceback": "T"}'
)
LARGE = {
    "line": b"x" * (LONGEST_LINE - 1),
    "longest": b"y" * LONGEST_LINE,
    "record": b"\x1e" + b"z" * LONGEST_LINE,
    "largest": b"\x1e" + b"1" * LONGEST_RECORD,
    "digits": b'\x1e{"level": ' + b"9" * 5000 + b"}\n",
}
pieces = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"\n", b"\r\n", b"\r", b"<3>", b"<9>", b"\x1e", b"\xc3", b"\xa9", b"\xff", b"\0", b"\x1b[31m"]),
    st.sampled_from(sorted(LARGE)).map(lambda name: LARGE[name]),
    st.just(b"\x1e" + RECORD + b"\n"),
    changed_bytes(st.just(b"\x1e" + RECORD + b"\n")),
    texts.map(lambda text: text.encode(errors="surrogatepass")),
)
data = st.lists(pieces, max_size=10).map(b"".join)
cuts = st.lists(st.integers(0, 1 << 19) | st.integers(0, 100), max_size=8)


def fed(written: bytes, places: list[int], keep: int, lines: int) -> tuple[list[Line], Output]:
    output = Output(keep=keep, lines=lines)
    inside = sorted({0, len(written), *(place for place in places if place < len(written))})
    shown = [line for start, end in pairwise(inside) for line in output.feed(written[start:end])]
    return shown + output.finish(), output


@given(data, cuts, st.integers(0, 3000), st.integers(0, 6))
@example(b"\x1e" + b"9" * 5000 + b"\n", [], 100, 1)
@example(b'\x1e{"level": 1e400}\n', [], 100, 1)
def test_cuts_make_no_difference(written: bytes, places: list[int], keep: int, lines: int) -> None:
    (whole, at_once), (cut, piecemeal) = (fed(written, some, keep, lines) for some in ([], places))
    assert cut == whole
    assert piecemeal.text() == at_once.text()
    assert (piecemeal.size, piecemeal.hidden) == (at_once.size, at_once.hidden) == (len(written), at_once.hidden)
    assert len(whole) <= lines + 1
    for line in [*whole, at_once.text()]:
        assert storable(str(line)) == str(line)


@given(st.lists(pieces, min_size=1, max_size=4).map(b"".join).filter(bool), st.integers(0, 3000), st.integers(0, 6))
def test_it_is_bounded_in_memory(written: bytes, keep: int, lines: int) -> None:
    output = Output(keep=keep, lines=lines)
    chunk = (written * (65536 // len(written) + 1))[:65536]
    output.feed(chunk)
    tracemalloc.start()
    try:
        for _ in range(10):
            output.feed(chunk)
        now, _most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now < 2 * keep + LONGEST_RECORD + 3 * 65536
    assert output.size == 11 * len(chunk)


# What is shown


def obeyed(text: str, *, colour: bool = False) -> set[str]:
    """The characters of a text that a terminal would obey, but for line breaks and our own colours."""
    if colour:
        text = re.sub(r"\x1b\[(?:3[123]|2|0)m", "", text)
    return {c for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202a\u202e\u2066\u2028")}


@given(texts)
def test_what_is_visible_is_not_obeyed(text: str) -> None:
    assert not obeyed(visible(text)) and "\n" not in visible(text)
    assert not obeyed(visible(text, lines=True).replace("\t", ""))
    for said in (one_line(text), shortened(text), line_of(1.0, 3.0, text)):
        assert said.isprintable()
    assert not obeyed(readable(text).replace("\t", "").replace("\u202e", "").replace("\u2028", ""))


rows = st.integers(1, 4).flatmap(
    lambda columns: st.lists(st.lists(texts, min_size=columns, max_size=columns), min_size=1, max_size=4)
)


@given(rows, st.none() | st.integers(1, 200), st.booleans(), values)
def test_a_screen_is_safe_and_no_wider_than_it_is(
    rows: list[list[str]], columns: int | None, colour: bool, value: object
) -> None:
    out = io.StringIO()
    with redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        if columns is not None:
            patch.setenv("COLUMNS", str(columns))
        screen = Screen(colour=colour)
        screen.table(rows[0], [[Styled(cell, "31") for cell in row] for row in rows])
    lines = out.getvalue().split("\n")
    assert len(lines) == len(rows) + 2 and lines[-1] == ""
    assert not obeyed(out.getvalue(), colour=colour)
    if columns is not None:
        shown = (re.sub(r"\x1b\[\d+m", "", line) for line in lines)
        # No column becomes narrower than it can be read.
        assert all(width_of(line) <= max(columns, 8 * len(rows[0])) for line in shown)
    with redirect_stdout(out):
        for cell in rows[0]:
            screen.line(cell, Styled(cell, "32"))
            screen.block(cell)
            screen.facts([(visible(cell)[:20], cell)])
        screen.json({"value": value, "rows": rows})
    assert not obeyed(out.getvalue().replace("\t", ""), colour=colour)
    out.getvalue().encode(sys.getdefaultencoding(), errors="backslashreplace")


@given(numbers.filter(lambda number: abs(number) < 10**15), texts, st.none() | st.floats())
def test_numbers_are_told_in_words(number: float, text: str, total: float | None) -> None:
    for said in (duration(max(0.0, float(number))), size(float(number)), line_of(float(number), total, text)):
        assert said.isprintable() and len(said) < 100 + len(text)
