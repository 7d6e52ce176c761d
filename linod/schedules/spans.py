"""The small words of a declaration: a span like "15min", a time of day like "20:00"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import time, timedelta
from typing import NamedTuple

from ..errors import DeclarationError

UNITS = {"weeks": 604800, "days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}  # in seconds, longest first

SPELLINGS = {
    **dict.fromkeys(("w", "week", "weeks"), "weeks"),
    **dict.fromkeys(("d", "day", "days"), "days"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "hours"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "minutes"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "seconds"),
}
PART = r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*"
TIME_OF_DAY = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")


class Span(NamedTuple):
    """A length of time in the unit in which it was written."""

    amount: float
    unit: str  # a key of UNITS

    @property
    def seconds(self) -> float:
        return self.amount * UNITS[self.unit]


def span_of(value: float | timedelta | str, keyword: str) -> Span:
    """The span that an author wrote as seconds, a timedelta or "1h30min". Raises DeclarationError for anything else."""
    if isinstance(value, timedelta):
        return _in_largest_unit(value)
    if isinstance(value, str):
        return _read_span(value, keyword)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _no_span(value, keyword)
    return Span(_whole(value), "seconds")


def _in_largest_unit(value: timedelta) -> Span:
    unit = next((unit for unit in UNITS if value and value % timedelta(**{unit: 1}) == timedelta()), "seconds")
    return Span(_whole(value / timedelta(**{unit: 1})), unit)


def _read_span(text: str, keyword: str) -> Span:
    """In the smallest unit that occurs, so that "1h30min" is 90 minutes and "24h" remains 24 hours."""
    words = text.strip().lower()
    parts = re.findall(PART, words)
    if not re.fullmatch(f"(?:{PART})+", words) or not all(unit in SPELLINGS for _, unit in parts):
        raise _no_span(text, keyword)
    spans = [Span(float(count), SPELLINGS[unit]) for count, unit in parts]
    smallest = min((span.unit for span in spans), key=UNITS.__getitem__)
    return Span(_whole(sum(span.seconds for span in spans) / UNITS[smallest]), smallest)


def _whole(count: float) -> float:
    """An int where it is one: a task runs every 10 seconds, not every 10.0."""
    return int(count) if isinstance(count, float) and count.is_integer() else count


def _no_span(value: object, keyword: str) -> DeclarationError:
    return DeclarationError(
        f"{keyword}={value!r} is not a length of time.",
        f'Write seconds, as in {keyword}=10, or a text with units: "10s", "15min", "1h30min", "3 days".',
    )


def times_of(at: str | time | Iterable[str | time]) -> tuple[time, ...]:
    """The times of day that an author wrote: one, or a list of them. Raises DeclarationError for anything else."""
    if isinstance(at, str | time):
        return (_time_of(at),)
    times = tuple(_time_of(each) for each in at) if isinstance(at, Iterable) else ()
    if not times:
        raise _no_time(at)
    return times


def _time_of(value: object) -> time:
    if isinstance(value, time) and value.tzinfo is None and not value.microsecond:
        return value
    match = TIME_OF_DAY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise _no_time(value)
    hour, minute, second = (int(part or 0) for part in match.groups())
    return time(hour, minute, second)


def _no_time(value: object) -> DeclarationError:
    return DeclarationError(
        f"at={value!r} is not a time of day.",
        'Write hours and minutes from 00:00 to 23:59, as in at="20:00" or at="20:00:30"; the zone goes into tz=.',
    )
