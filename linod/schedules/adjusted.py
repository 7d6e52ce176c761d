"""Schedules that change the due times of another one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo

from ..errors import DeclarationError
from ..instants import MICROSECOND
from .base import Schedule, draw, from_dict
from .zones import first_instant, zone_named

MIDNIGHT = time(0, 0)


@dataclass(frozen=True)
class Adjusted(Schedule):
    """What all of them take over from the schedule that they change."""

    base: Schedule

    def placed(self, zone: str, seed: str) -> Self:
        return replace(self, base=self.base.placed(zone, seed))

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"base": self.base.as_dict()}

    @classmethod
    def _from_plain(cls, values: dict[str, Any]) -> Self:
        return cls(**values | {"base": from_dict(values["base"])})

    @property
    def follows_the_wall(self) -> bool:
        return self.base.follows_the_wall

    @property
    def period(self) -> float:
        return self.base.period


@dataclass(frozen=True)
class Jittered(Adjusted, kind="jittered"):
    """Each due time of `base` moved later by a part of `seconds` that is drawn from the seed and that due time.

    A due time is never moved beyond the next one: where a change of summer time brings two of them closer together,
    the part is taken of the shorter distance.
    """

    seconds: float
    seed: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.seconds < self.base.period:  # written so that it refuses NaN as well
            raise DeclarationError(
                f"A jitter of {self.seconds} seconds doesn't fit a task that runs every {self.base.period:g} seconds.",
                "Write a jitter longer than 0 and shorter than the time between two runs.",
            )

    def placed(self, zone: str, seed: str) -> Self:
        return replace(super().placed(zone, seed), seed=self.seed or seed)

    def _next(self, after: datetime) -> datetime | None:
        begun = self.base.previous(after)
        if begun is not None and (due := self._moved(begun)) > after:
            return due
        coming = self.base.next(after)
        return None if coming is None else self._moved(coming)

    def _previous(self, at: datetime) -> datetime | None:
        begun = self.base.previous(at)
        if begun is not None and self._moved(begun) > at:
            begun = self.base.previous(begun - MICROSECOND)
        return None if begun is None else self._moved(begun)

    def _moved(self, due: datetime) -> datetime:
        if self.seed is None:
            raise self._unplaced()
        room = timedelta(seconds=self.seconds)
        following = self.base.next(due)
        if following is not None:
            room = min(room, following - due)
        return due + timedelta(microseconds=int(room // MICROSECOND * draw(self.seed, due)))


@dataclass(frozen=True)
class Until(Adjusted, kind="until"):
    """The due times of `base` that are not later than `end`, an instant or a naive local time."""

    end: datetime
    zone: str | None = None  # of a naive end; None: the site's

    def __post_init__(self) -> None:
        # A day less at both sides, so that the end is an instant in every zone.
        if not datetime(1970, 1, 2) < self.end.replace(tzinfo=None) < datetime(9999, 12, 30):
            raise DeclarationError(
                f"until={self.end} can't be meant: an end lies between the years 1970 and 9999.",
                "Write a later one, or leave out until= where there is none.",
            )
        if self.zone is not None:
            zone_named(self.zone)
        if self.end.tzinfo is not None:
            object.__setattr__(self, "end", self.end.astimezone(UTC))

    def placed(self, zone: str, seed: str) -> Self:
        end = self.end if self.end.tzinfo is not None else first_instant(self.end, zone_named(self.zone or zone))
        return replace(super().placed(zone, seed), end=end)

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"end": self.end.isoformat()}

    @classmethod
    def _from_plain(cls, values: dict[str, Any]) -> Self:
        return super()._from_plain(values | {"end": datetime.fromisoformat(values["end"])})

    def _next(self, after: datetime) -> datetime | None:
        end = self._end()
        due = self.base.next(after)
        return due if due is not None and due <= end else None

    def _previous(self, at: datetime) -> datetime | None:
        return self.base.previous(min(at, self._end()))

    def _end(self) -> datetime:
        if self.end.tzinfo is None:
            raise self._unplaced()
        return self.end


@dataclass(frozen=True)
class Since(Adjusted, kind="since"):
    """The due times of `base` that are not earlier than `start`, an instant."""

    start: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None:
            raise DeclarationError(f"A start needs its time zone, unlike {self.start}.")

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"start": self.start.isoformat()}

    @classmethod
    def _from_plain(cls, values: dict[str, Any]) -> Self:
        return super()._from_plain(values | {"start": datetime.fromisoformat(values["start"])})

    def count(self, after: datetime, until: datetime) -> int:
        return self.base.count(max(after, self.start - MICROSECOND), until)

    def _next(self, after: datetime) -> datetime | None:
        return self.base.next(max(after, self.start - MICROSECOND))

    def _previous(self, at: datetime) -> datetime | None:
        due = self.base.previous(at)
        return due if due is not None and due >= self.start else None


@dataclass(frozen=True)
class OnDays(Adjusted, kind="on-days"):
    """The due times of `base` on some days of the week (Monday is 0)."""

    weekdays: tuple[int, ...]
    zone: str | None = None  # where these days are; None: the site's

    def __post_init__(self) -> None:
        if not self.weekdays or not set(self.weekdays) <= set(range(7)):
            raise DeclarationError(f"{self.weekdays} are not days of the week.", "Write 0 for Monday to 6 for Sunday.")
        if self.zone is not None:
            zone_named(self.zone)

    def placed(self, zone: str, seed: str) -> Self:
        return replace(super().placed(zone, seed), zone=self.zone or zone)

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"weekdays": list(self.weekdays)}

    @classmethod
    def _from_plain(cls, values: dict[str, Any]) -> Self:
        return super()._from_plain(values | {"weekdays": tuple(values["weekdays"])})

    def _next(self, after: datetime) -> datetime | None:
        due = self.base.next(after)
        while due is not None and not self._counts(due):
            due = self.base.next(self._midnight(due, days=1) - MICROSECOND)
        return due

    def _previous(self, at: datetime) -> datetime | None:
        due = self.base.previous(at)
        while due is not None and not self._counts(due):
            due = self.base.previous(self._midnight(due) - MICROSECOND)
        return due

    def _counts(self, due: datetime) -> bool:
        return due.astimezone(self._wall()).weekday() in self.weekdays

    def _midnight(self, due: datetime, days: int = 0) -> datetime:
        """The instant when the day of a due time begins, or a later one."""
        day = due.astimezone(self._wall()).date() + timedelta(days=days)
        return first_instant(datetime.combine(day, MIDNIGHT), self._wall())

    def _wall(self) -> ZoneInfo:
        if self.zone is None:
            raise self._unplaced()
        return zone_named(self.zone)
