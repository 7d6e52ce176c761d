"""When a row is due: Lino's RecurrenceSet as a schedule of linod, and in words.

Lino itself counts from the end of the last run, so that each run comes later than the one before. Here everything is
counted from the first day. A row without a start time is due at midnight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from ...errors import DeclarationError
from ...instants import EPOCH
from ...schedules import Calendar, Interval, Never, OnDays, Schedule, Since, Until
from ...schedules.calendar import POSITIONS
from ...schedules.zones import first_instant, zone_named

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
SPANS = {"secondly": ("second", 1), "minutely": ("minute", 60), "hourly": ("hour", 3600)}
UNITS = {"daily": "days", "per_weekday": "days", "weekly": "weeks", "monthly": "months", "yearly": "years"}
LONG_AGO = date(1, 1, 1)  # a Monday
SOME_DAY = date(2020, 1, 1)  # in winter; long ago, many a zone had another offset
LAST_MOMENT = time(23, 59, 59)


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """What a row says about when it is due."""

    unit: str  # the name of one of Lino's Recurrences
    every: int
    weekdays: tuple[int, ...]
    positions: tuple[int, ...]
    start_date: date | None
    start_time: time | None
    end_date: date | None
    end_time: time | None

    @classmethod
    def of(cls, row: Any) -> Recurrence:
        return cls(
            unit=row.every_unit.name if row.every_unit else "never",
            every=row.every,
            weekdays=tuple(number for number, name in enumerate(WEEKDAYS) if getattr(row, name)),
            positions=tuple(positions_in(row.positions)),
            start_date=row.start_date,
            start_time=row.start_time,
            end_date=row.end_date,
            end_time=row.end_time,
        )

    @property
    def says_when(self) -> bool:
        """Whether a time of day or a day of the week is said."""
        return self.start_time is not None or bool(self.weekdays)

    def start(self) -> datetime:
        """Not due before this local time."""
        return datetime.combine(self.start_date or LONG_AGO, self.start_time or time())

    def schedule(self, zone: str) -> Schedule:
        """Raises DeclarationError for what makes no sense."""
        if self.unit in SPANS:
            schedule = self._interval(zone)
        elif self.unit in UNITS:
            schedule = self._calendar()
        elif self.unit == "once":
            schedule = Until(Calendar("years", self.start().date(), self.start().time()), self.start())
        elif self.unit == "never":
            schedule = Never()
        else:
            raise DeclarationError(f"linod doesn't know the recurrence {self.unit!r}.")
        if self.end_date is None or self.unit in ("once", "never"):
            return schedule
        return Until(schedule, datetime.combine(self.end_date, self.end_time or LAST_MOMENT))

    def _interval(self, zone: str) -> Schedule:
        """Elapsed time; where a start time is said, counted from there."""
        seconds = self.every * SPANS[self.unit][1]
        schedule: Schedule = Interval(seconds)
        if self.start_date is not None or self.start_time is not None:
            day = self.start_date or SOME_DAY
            start = first_instant(datetime.combine(day, self.start().time()), zone_named(zone))
            if self.start_time is not None:
                schedule = Interval(seconds, (start - EPOCH).total_seconds() % seconds)
            schedule = Since(schedule, start)
        return OnDays(schedule, self.weekdays) if self.weekdays else schedule

    def _calendar(self) -> Calendar:
        return Calendar(
            UNITS[self.unit],
            self.start().date(),
            self.start().time(),
            self.every,
            self.weekdays,
            self.positions if self.unit == "monthly" else (),
        )

    def words(self) -> str:
        """As `--list` shows it: `Every 1 week on saturday at 04:00:00`."""
        if self.unit in ("once", "never"):
            return f"Once at {self.start()}" if self.unit == "once" else "Never"
        unit = SPANS[self.unit][0] if self.unit in SPANS else UNITS.get(self.unit, self.unit).removesuffix("s")
        words = f"Every {self.every} {unit if self.every == 1 else unit + 's'}"
        if self.positions and self.unit == "monthly":
            words += f" ({', '.join(map(str, self.positions))})"
        if self.weekdays:
            words += f" on {', '.join(WEEKDAYS[number] for number in self.weekdays)}"
        return words if self.unit in SPANS else f"{words} at {self.start().time()}"


def positions_in(text: str) -> Iterator[int]:
    """The positions in a month that a row says, those that Lino knows."""
    for word in text.split():
        if word.lstrip("-").isdecimal() and int(word) in POSITIONS:
            yield int(word)
