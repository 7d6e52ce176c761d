"""What is shown: safe to read on any terminal, no wider than it, and in colour only there.

Names, reasons and output come from sites, and a site may be broken or worse. Everything goes through `visible`, so that
no escape sequence of a task reaches the terminal of a maintainer who is root.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import LinodError
from ..words import JOINERS, written_out

RED, GREEN, YELLOW, DIM = "31", "32", "33", "2"
GAP = "  "
NARROWEST = 6  # columns that a cell keeps when its table is too wide
# Cc: control characters. Cf: invisible ones that can turn the order of the text round. The others are no text at all.
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str, *, lines: bool = False) -> str:
    """A text with all that a terminal would obey written out, like \\x1b. `lines`: line breaks and tabs may stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if is_harmless(c) or (lines and c in "\n\t") else written_out(c) for c in text)


def is_harmless(character: str) -> bool:
    return unicodedata.category(character) not in INVISIBLE or character in JOINERS


def width_of(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) or c in JOINERS else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text
    )


def cut(text: str, width: int) -> str:
    """A text that takes no more columns than these; what is left out is an ellipsis."""
    taken, kept = 0, 0
    for number, character in enumerate(text, start=1):
        taken += width_of(character)
        if taken > width:
            return f"{text[:kept]}…"
        if taken < width:
            kept = number
    return text


@dataclass(frozen=True)
class Styled:
    """A text with its colour."""

    text: str
    style: str = ""


Cell = str | Styled


@dataclass
class Screen:
    """Writes to standard output."""

    colour: bool = False

    @classmethod
    def standard(cls, *, no_color: bool) -> Screen:
        """As the environment wants it."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of another encoding is no reason to fail
        return cls(colour=sys.stdout.isatty() and not no_color and not os.environ.get("NO_COLOR"))

    def line(self, *cells: Cell) -> None:
        """One line, made of pieces."""
        sys.stdout.write("".join(map(self._painted, cells)) + "\n")

    def block(self, text: str, indent: str = "  ") -> None:
        """A text of several lines."""
        for line in visible(text, lines=True).split("\n"):
            sys.stdout.write(f"{indent}{line}".rstrip() + "\n")

    def facts(self, facts: Iterable[tuple[str, Cell]]) -> None:
        """Names with their values, below each other; those without a value are left out."""
        given = [(name, value) for name, value in facts if text_of(value)]
        widest = max((len(name) for name, _value in given), default=0)
        for name, value in given:
            self.line(Styled(f"{name + ':':{widest + 1}} ", DIM), value)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """A table that fits the terminal; piped into a program it is as wide as it needs to be."""
        texts = [[visible(text_of(cell)) for cell in row] for row in (head, *rows)]
        widths = fit([max(map(width_of, column)) for column in zip(*texts, strict=True)], available())
        self._row([Styled(title, DIM) for title in head], widths)
        for row in rows:
            self._row(row, widths)

    def json(self, value: Any) -> None:
        """For programs. Everything but ASCII is escaped, so this is safe as it is."""
        sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")

    def _row(self, row: Sequence[Cell], widths: Sequence[int]) -> None:
        pieces = []
        for cell, width in zip(row, widths, strict=True):
            text = cut(visible(text_of(cell)), width)
            pieces.append(self._in_style(text, style_of(cell)) + " " * (width - width_of(text)))
        sys.stdout.write(GAP.join(pieces).rstrip() + "\n")

    def _painted(self, cell: Cell) -> str:
        return self._in_style(visible(text_of(cell)), style_of(cell))

    def _in_style(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self.colour and style and text else text


def text_of(cell: Cell) -> str:
    return cell.text if isinstance(cell, Styled) else cell


def style_of(cell: Cell) -> str:
    return cell.style if isinstance(cell, Styled) else ""


def available() -> int | None:
    """The columns that there are; None where nobody looks at it and nobody said."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return None


def fit(widths: list[int], most: int | None) -> list[int]:
    """Make the widest columns narrower until all of them fit."""
    if most is None:
        return widths
    widths = [min(width, most) for width in widths]
    too_much = sum(widths) + len(GAP) * (len(widths) - 1) - most
    while too_much > 0:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
        too_much -= 1
    return widths


def say_error(error: LinodError) -> None:
    """One sentence for what is wrong, one for what to do."""
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    print(f"linodctl: {visible(str(error), lines=True)}", file=sys.stderr)


def warn(text: str) -> None:
    """Tell the person something that is not the result."""
    print(f"linodctl: {visible(text)}", file=sys.stderr, flush=True)
