"""Schedules that follow the clock on the wall, and what summer time does to them."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from functools import cached_property, lru_cache
from typing import Any, Self
from zoneinfo import ZoneInfo

from ..errors import DeclarationError
from .base import Schedule, draw_index
from .elapsed import check_span, check_spread
from .zones import first_instant, latest_shown, zone_named

FIRST_MONDAY = date(1, 1, 1)  # days and weeks are counted from here


@dataclass(frozen=True)
class LocalSchedule(Schedule):
    """A row of local times, each due at the first instant when the zone's clock shows it or a later one.

    The forms of it only know naive local times. That due times strictly increase follows from the one rule in
    `zones.py`; local times in the same gap are a single due time.
    """

    zone: str | None = field(default=None, kw_only=True)  # None: the site's

    def __post_init__(self) -> None:
        if self.zone is not None:
            zone_named(self.zone)

    @property
    def follows_the_wall(self) -> bool:
        return True

    def placed(self, zone: str, seed: str) -> Self:
        return replace(self, zone=self.zone or zone)

    @abstractmethod
    def _later(self, local: datetime) -> datetime:
        """The earliest local time later than `local`; OverflowError if there is none."""

    @abstractmethod
    def _latest(self, local: datetime) -> datetime:
        """The latest local time not later than `local`; OverflowError if there is none."""

    @cached_property
    def _wall(self) -> ZoneInfo:
        if self.zone is None:
            raise self._unplaced()
        return zone_named(self.zone)

    def _next(self, after: datetime) -> datetime:
        return _next_of(self, after)

    def _previous(self, at: datetime) -> datetime:
        return first_instant(self._latest(latest_shown(at, self._wall)), self._wall)


@lru_cache(maxsize=512)
def _next_of(schedule: LocalSchedule, after: datetime) -> datetime:
    """Kept for a while: many tasks are due at the same time of day, and all ask the same then."""
    return first_instant(schedule._later(latest_shown(after, schedule._wall)), schedule._wall)


@dataclass(frozen=True)
class WallClock(LocalSchedule, kind="wall-clock"):
    """At some times of day, every nth day; or, on some days of the week, every nth week (Monday is 0).

    Days are counted from Monday 1 January of the year 1, so the nth ones are the same on all hosts and every seventh
    day is a Monday. With `spread` the distance varies by so many days (or weeks).
    """

    times: tuple[time, ...]
    every: int = 1
    weekdays: tuple[int, ...] = ()
    spread: int = 0
    seed: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_span(self._block_days * 86400)
        check_spread(self.spread, self.every)
        if not self.times:
            raise DeclarationError("The list of times of day is empty.", 'Write for example at=["08:00", "20:00"].')
        if not set(self.weekdays) <= set(range(7)):
            raise DeclarationError(f"{self.weekdays} are not days of the week.", "Write 0 for Monday to 6 for Sunday.")
        # Sorted, so that the same times in another order are the same schedule.
        object.__setattr__(self, "times", tuple(sorted(set(self.times))))
        object.__setattr__(self, "weekdays", tuple(sorted(set(self.weekdays))))

    @cached_property
    def period(self) -> float:
        moments = self._moments(0)
        following = [*moments[1:], moments[0] + timedelta(days=self._block_days)]
        return min(later - moment for moment, later in zip(moments, following, strict=True)).total_seconds()

    def placed(self, zone: str, seed: str) -> Self:
        return replace(super().placed(zone, seed), seed=self.seed or (seed if self.spread else None))

    def as_dict(self) -> dict[str, Any]:
        plain_times = [at.isoformat() for at in self.times]
        return super().as_dict() | {"times": plain_times, "weekdays": list(self.weekdays)}

    @classmethod
    def _from_plain(cls, values: dict[str, Any]) -> Self:
        times = tuple(time.fromisoformat(at) for at in values["times"])
        return cls(**values | {"times": times, "weekdays": tuple(values["weekdays"])})

    def _later(self, local: datetime) -> datetime:
        block = self._block(local)
        near = [*self._local_times(block), *self._local_times(block + 1)]
        return near[bisect_right(near, local)]

    def _latest(self, local: datetime) -> datetime:
        block = self._block(local)
        near = [*self._local_times(block - 1), *self._local_times(block)]
        return near[bisect_right(near, local) - 1]

    @property
    def _unit_days(self) -> int:
        return 7 if self.weekdays else 1

    @property
    def _block_days(self) -> int:
        return self.every * self._unit_days

    def _block(self, local: datetime) -> int:
        return (local.date() - FIRST_MONDAY).days // self._block_days

    def _local_times(self, block: int) -> list[datetime]:
        if self.spread and self.seed is None:
            raise self._unplaced()
        return self._moments(draw_index(block, self.every, self.spread, self.seed))

    def _moments(self, unit: int) -> list[datetime]:
        """The local times of one day, or week, counted from the first Monday."""
        first = FIRST_MONDAY + timedelta(days=unit * self._unit_days)
        days = [first + timedelta(days=weekday) for weekday in self.weekdays or (0,)]
        return [datetime.combine(day, at) for day in days for at in self.times]
