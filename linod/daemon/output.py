"""What one run writes and logs: lines to show now, and the last part to keep."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from typing import Any

MARK = b"\x1e"  # begins a line that is a log record as JSON; see site/output.py
LONGEST_LINE = 8192  # bytes; a longer one is shown in pieces
LONGEST_RECORD = 1 << 18  # bytes; the site's end keeps its records well below
# The prefixes of sd-daemon(3): <3>text is an error.
PRIORITY = re.compile(r"<([0-7])>")
LEVELS = (logging.CRITICAL, logging.CRITICAL, logging.CRITICAL, logging.ERROR, logging.WARNING, 25, 20, 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line that a task wrote, or one record that it logged."""

    message: str
    level: int = logging.INFO
    logger: str = ""
    traceback: str = ""
    file: str = ""
    line: int = 0
    function: str = ""

    def __str__(self) -> str:
        """As history shows it: a log record begins with its level and logger."""
        head = f"{logging.getLevelName(self.level)} {self.logger}: " if self.logger else ""
        return head + self.message + (f"\n{self.traceback.rstrip()}" if self.traceback else "")


class Output:
    """Everything one run writes, however much: bounded in memory and in the lines that are shown."""

    def __init__(self, *, keep: int, lines: int) -> None:
        self.size = 0  # bytes, also of what was let go
        self.hidden = 0  # bytes that came after as many lines as are shown
        self._keep, self._lines_left = keep, lines
        self._tail = bytearray()
        self._partial = b""

    def feed(self, data: bytes) -> list[Line]:
        """Take what was read; the lines that are complete now and should be shown."""
        self.size += len(data)
        self._tail += data
        if len(self._tail) > 2 * self._keep:
            del self._tail[: len(self._tail) - self._keep]
        complete, self._partial = cut_lines(self._partial + data, self._lines_left)
        self._lines_left -= len(complete)
        if not self._lines_left:
            self.hidden += len(self._partial)
            self._partial = b""
        return list(map(read_line, complete))

    def finish(self) -> list[Line]:
        """A last line that has no end."""
        rest, self._partial = self._partial, b""
        return [read_line(rest)] if rest else []

    def text(self) -> str:
        """The last part of all, for history."""
        if not self.size:
            return ""
        tail = bytes(self._tail[max(0, len(self._tail) - self._keep) :])
        lines = tail.splitlines()
        if self.size > len(tail):
            lines = lines[1:] or lines[:1]  # the first one is cut
            lines.insert(0, f"[{self.size - len(tail):,} bytes before this are not kept]".encode())
        return "\n".join(str(read_line(line)) for line in lines)


def cut_lines(data: bytes, most: int) -> tuple[list[bytes], bytes]:
    """The complete lines at the beginning of data, not more than `most`, and the rest.

    Where it is cut does not depend on where the pipe happened to cut it.
    """
    lines: list[bytes] = []
    start = 0
    while len(lines) < most:
        longest = LONGEST_RECORD if data.startswith(MARK, start) else LONGEST_LINE
        end = data.find(b"\n", start, start + longest + 1)
        if end >= 0:
            lines.append(data[start:end])
            start = end + 1
        elif len(data) - start > longest:
            lines.append(data[start : start + longest])
            start += longest
        else:
            break
    return lines, data[start:]


def read_line(raw: bytes) -> Line:
    """A line as it came through the pipe."""
    if raw.startswith(MARK):
        try:
            return line_from_record(json.loads(raw[1:]))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            pass  # two threads wrote at the same time, or the task likes that character
    text = raw.decode("utf-8", "replace").rstrip("\r").replace("\0", "\N{SYMBOL FOR NULL}")
    if prefix := PRIORITY.match(text):
        return Line(message=text[3:], level=LEVELS[int(prefix[1])])
    return Line(message=text)


def line_from_record(fields: dict[str, Any]) -> Line:
    return Line(
        message=str(fields["message"]),
        level=int(fields["level"]),
        logger=str(fields["logger"]),
        traceback=str(fields.get("traceback", "")),
        file=str(fields["file"]),
        line=int(fields["line"]),
        function=str(fields["function"]),
    )
