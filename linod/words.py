"""Counts, durations, instants, sizes and names as people read them, the same wherever linod speaks."""

from __future__ import annotations

from datetime import datetime

UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
# They are no text of their own, but some scripts need them.
JOINERS = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")


def printable(text: str) -> str:
    """A text that a site has chosen, with all that a terminal would obey, and line breaks, written out: \\x1b, \\n."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in JOINERS else written_out(c) for c in text)


def written_out(character: str) -> str:
    return character.encode("unicode_escape").decode()


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """A duration in the two largest units that say something."""
    if seconds < 10:
        return f"{seconds:.3g} s" if seconds >= 0.001 else "0 s"
    rest, parts = round(seconds), []
    for name, size in UNITS:
        amount, rest = divmod(rest, size)
        if amount:
            parts.append(f"{amount} {name}")
    return " ".join(parts[:2])


def clock(instant: datetime) -> str:
    """An instant in the host's zone."""
    return f"{instant.astimezone():%Y-%m-%d %H:%M:%S}"


def brief_clock(instant: datetime, now: datetime) -> str:
    """The same for a narrow column: without the day where that is today."""
    local = instant.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d %H:%M}"


def size(kib: float) -> str:
    """An amount of memory, given in KiB."""
    return f"{kib / 1024:.1f} MiB" if kib < 1024**2 else f"{kib / 1024**2:.1f} GiB"
