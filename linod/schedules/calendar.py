"""Schedules that count days, weeks, months or years from a first day on, as a table of tasks does; and none at all."""

from __future__ import annotations

from bisect import bisect_right
from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

from ..errors import DeclarationError
from .adjusted import MIDNIGHT
from .base import Schedule
from .local import LocalSchedule

CALENDAR_UNITS = ("days", "weeks", "months", "years")
WEEK = 7
POSITIONS = (1, 2, 3, 4, -4, -3, -2, -1)  # each day of the week comes at least four times a month


@dataclass(frozen=True)
class Calendar(LocalSchedule, kind="calendar"):
    """At a time of day, every nth day, week, month or year, counted from the first day on.

    `weekdays` (Monday is 0) are all days on which it is due, where it counts weeks. With other units they move each
    due day to the first one of them that follows; `positions` are then the first, the last, … of them in a month. A
    month that lacks the day has its last one instead.
    """

    unit: str
    first: date
    at: time = MIDNIGHT
    every: int = 1
    weekdays: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit not in CALENDAR_UNITS:
            raise DeclarationError(f"{self.unit!r} is no unit.", f"Write one of {', '.join(CALENDAR_UNITS)}.")
        if not 1 <= self.every <= 36_525:
            raise DeclarationError(f"Every {self.every} {self.unit} can't be meant.", "Write a number from 1 on.")
        if not set(self.weekdays) <= set(range(WEEK)):
            raise DeclarationError(f"{self.weekdays} are not days of the week.", "Write 0 for Monday to 6 for Sunday.")
        if self.positions and (self.unit != "months" or not set(self.positions) <= set(POSITIONS)):
            raise DeclarationError(
                f"{self.positions} are not positions in a month.", "Count from 1 to 4, or from -1 to -4 backward."
            )

    @cached_property
    def period(self) -> float:
        days = self._days(range(1, 15))
        return min(later - day for day, later in pairwise(days)).total_seconds()

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {
            "first": self.first.isoformat(),
            "at": self.at.isoformat(),
            "weekdays": list(self.weekdays),
            "positions": list(self.positions),
        }

    @classmethod
    def _from_plain(cls, values: dict[str, Any]) -> Self:
        plain = {"first": date.fromisoformat(values["first"]), "at": time.fromisoformat(values["at"])}
        return cls(**values | plain | {name: tuple(values[name]) for name in ("weekdays", "positions")})

    def _later(self, local: datetime) -> datetime:
        near = self._near(local)
        return near[bisect_right(near, local)]

    def _latest(self, local: datetime) -> datetime:
        near = self._near(local)
        index = bisect_right(near, local)
        if not index:
            raise OverflowError("before the first day")
        return near[index - 1]

    def _near(self, local: datetime) -> list[datetime]:
        """The due times around a local one."""
        count = max(0, self._count(local.date()))
        # A day that gives way to a later one does so by less than a week.
        return [datetime.combine(day, self.at) for day in self._days(range(max(0, count - WEEK), count + 2))]

    def _days(self, counts: Iterable[int]) -> list[date]:
        """The due days of some units of the count, sorted."""
        return sorted({day for count in counts for day in self._days_of(count) if day >= self.first})

    def _count(self, day: date) -> int:
        """How many units lie between the first day and this one."""
        match self.unit:
            case "days":
                units = (day - self.first).days
            case "weeks":
                units = (day - monday_of(self.first)).days // WEEK
            case "months":
                units = months_of(day) - months_of(self.first)
            case _:
                units = day.year - self.first.year
        return units // self.every

    def _days_of(self, count: int) -> list[date]:
        units = count * self.every
        match self.unit:
            case "days":
                return [self._moved(self.first + timedelta(days=units))]
            case "weeks":
                monday = monday_of(self.first) + timedelta(weeks=units)
                return [monday + timedelta(days=weekday) for weekday in self.weekdays or (self.first.weekday(),)]
            case "months" if self.positions:
                return self._positioned(month_day(months_of(self.first) + units, 1))
            case "months":
                return [self._moved(month_day(months_of(self.first) + units, self.first.day))]
        return [self._moved(month_day(months_of(self.first) + 12 * units, self.first.day))]

    def _moved(self, day: date) -> date:
        """The day, or the first one after it that is one of the weekdays."""
        return day + timedelta(days=min(((weekday - day.weekday()) % WEEK for weekday in self.weekdays), default=0))

    def _positioned(self, month: date) -> list[date]:
        length = monthrange(month.year, month.month)[1]
        days = [month.replace(day=number) for number in range(1, length + 1)]
        days = [day for day in days if not self.weekdays or day.weekday() in self.weekdays]
        return [days[position - 1 if position > 0 else position] for position in self.positions]


@dataclass(frozen=True)
class Never(Schedule, kind="never"):
    """Not due at all: a task that is run only when somebody asks for it."""

    @property
    def period(self) -> float:
        return float("inf")

    def placed(self, zone: str, seed: str) -> Self:
        return self

    def _next(self, after: datetime) -> None:
        return None

    def _previous(self, at: datetime) -> None:
        return None


def monday_of(day: date) -> date:
    return day - timedelta(days=day.weekday())


def months_of(day: date) -> int:
    """The months before that of a day, since the year 0."""
    return 12 * day.year + day.month - 1


def month_day(months: int, day: int) -> date:
    """A day of a month, or its last one; OverflowError where there is no such year."""
    year, month = divmod(months, 12)
    if year > date.max.year:
        raise OverflowError(year)
    return date(year, month + 1, min(day, monthrange(year, month + 1)[1]))
