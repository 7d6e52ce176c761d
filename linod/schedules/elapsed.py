"""Schedules that count elapsed time: a change of summer time neither skips nor repeats any of their due times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Self
from zoneinfo import ZoneInfo

from ..errors import DeclarationError
from ..instants import EPOCH, MICROSECOND
from .base import Schedule, draw, draw_index
from .zones import offset_change, utc_offset, zone_named

SECOND = timedelta(seconds=1)
SHORTEST = 0.1  # seconds; below this a run costs more than it does
LONGEST = 100 * 365.25 * 86400  # seconds; beyond a century it is a slip of the keyboard


def check_span(seconds: float) -> None:
    """Refuse, with a DeclarationError, a distance between due times that cannot be meant."""
    if not SHORTEST <= seconds <= LONGEST:  # written so that it refuses NaN as well
        raise DeclarationError(
            f"A task cannot run every {seconds} seconds: the shortest interval is 0.1 seconds, the longest 100 years.",
            'Write for example every=10 or every="15min".',
        )


def check_spread(spread: int, every: int) -> None:
    """Refuse, with a DeclarationError, distances that vary by more than leaves them in their order."""
    if not 0 <= spread < every:
        raise DeclarationError(f"Every {every} units cannot be spread over {spread} of them.", "Write a smaller one.")


@dataclass(frozen=True)
class Interval(Schedule, kind="interval"):
    """Every so many seconds, on a grid that is anchored at the Unix epoch plus a phase.

    Nothing drifts, a restart shifts nothing, and several hosts agree. The phase comes from the seed, so that the tasks
    of fifty sites don't start in the same second. Both are exact to the microsecond.
    """

    seconds: float
    phase: float | None = None

    def __post_init__(self) -> None:
        check_span(self.seconds)
        if self.phase is not None and not 0 <= self.phase < self.seconds:
            raise DeclarationError(f"A phase of {self.phase} seconds is not within {self.seconds} seconds.")

    @property
    def period(self) -> float:
        return float(self.seconds)

    def placed(self, zone: str, seed: str) -> Self:
        if self.phase is not None:
            return self
        return replace(self, phase=int(draw(seed) * _microseconds(self.seconds)) / 1_000_000)

    @cached_property
    def _grid(self) -> tuple[int, int]:
        """Distance and phase in whole microseconds: sums of floats would drift."""
        if self.phase is None:
            raise self._unplaced()
        return _microseconds(self.seconds), _microseconds(self.phase)

    def count(self, after: datetime, until: datetime) -> int:
        """By calculation: a task that runs every second misses 86,400 due times a day."""
        distance = self._previous(until) - self._previous(after)
        return max(0, distance // timedelta(microseconds=self._grid[0]))

    def _next(self, after: datetime) -> datetime:
        return self._previous(after) + timedelta(microseconds=self._grid[0])

    def _previous(self, at: datetime) -> datetime:
        step, phase = self._grid
        elapsed = (at - EPOCH) // MICROSECOND - phase
        return EPOCH + timedelta(microseconds=elapsed - elapsed % step + phase)


@dataclass(frozen=True)
class ClockGrid(Schedule, kind="clock-grid"):
    """Every nth hour (or minute), when the clock on the wall is `offset` seconds into it.

    It goes on through both passes of a repeated hour, and two due times are always whole units apart, except where a
    zone changes by a fraction of the unit (Lord Howe: half an hour). `spread` varies the distance by so many units.
    """

    unit: int  # seconds: 3600 or 60
    offset: int  # seconds into the unit
    every: int = 1
    spread: int = 0
    zone: str | None = None
    seed: str | None = None

    def __post_init__(self) -> None:
        check_span(self.every * self.unit)
        if self.unit <= 0 or not 0 <= self.offset < self.unit:
            raise DeclarationError(f"{self.offset} seconds are not within a unit of {self.unit} seconds.")
        check_spread(self.spread, self.every)
        if self.zone is not None:
            zone_named(self.zone)

    @property
    def period(self) -> float:
        return float(self.every * self.unit)

    def placed(self, zone: str, seed: str) -> Self:
        return replace(self, zone=self.zone or zone, seed=self.seed or (seed if self.spread else None))

    def _next(self, after: datetime) -> datetime:
        shift = self._shift(after)
        due = self._later(after, shift)
        if self._shift(due) == shift:
            return due
        change = offset_change(after, due, self._wall)
        return self._later(change - MICROSECOND, self._shift(change))

    def _previous(self, at: datetime) -> datetime:
        shift = self._shift(at)
        due = self._latest(at, shift)
        if self._shift(due) == shift:
            return due
        before = offset_change(due, at, self._wall) - MICROSECOND
        return self._latest(before, self._shift(before))

    @cached_property
    def _wall(self) -> ZoneInfo:
        if self.zone is None or (self.spread and self.seed is None):
            raise self._unplaced()
        return zone_named(self.zone)

    def _shift(self, instant: datetime) -> int:
        """How many seconds the units of the local clock begin before those of UTC: none in most zones."""
        return utc_offset(instant, self._wall) // SECOND % self.unit

    def _later(self, after: datetime, shift: int) -> datetime:
        block = self._block(after, shift)
        due = self._due(block, shift)
        return due if due > after else self._due(block + 1, shift)

    def _latest(self, at: datetime, shift: int) -> datetime:
        block = self._block(at, shift)
        due = self._due(block, shift)
        return due if due <= at else self._due(block - 1, shift)

    def _block(self, instant: datetime, shift: int) -> int:
        return ((instant - EPOCH) // SECOND + shift - self.offset) // (self.unit * self.every)

    def _due(self, block: int, shift: int) -> datetime:
        index = draw_index(block, self.every, self.spread, self.seed)
        return EPOCH + timedelta(seconds=index * self.unit + self.offset - shift)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)
