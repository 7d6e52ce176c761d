"""What keywords and jobs have in common: `Every 5 to 10 days at 20:00:00`, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time

from ..errors import DeclarationError
from .adjusted import MIDNIGHT, Jittered
from .base import Schedule
from .elapsed import ClockGrid, Interval, check_span
from .local import WallClock
from .spans import UNITS

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """A count of units, perhaps up to a `latest`, perhaps on a weekday or at some times of day.

    Raises DeclarationError for what makes no sense together.
    """

    count: float
    unit: str  # a key of UNITS
    latest: float | None = None
    times: tuple[time, ...] = ()
    weekday: str | None = None
    zone: str | None = None

    def __post_init__(self) -> None:
        said = f"every({self.count!r})"
        if self.unit not in UNITS:
            raise DeclarationError(f"{said} has no unit.", f"Write schedule.{said}.seconds, .minutes, .hours or .days.")
        for count in (self.count, self.latest):
            if isinstance(count, bool) or not isinstance(count, int | float | None):
                raise DeclarationError(f"{count!r} is not a number of {self.unit}.", "Write for example every(10).")
        check_span(self.count * UNITS[self.unit])
        if self.latest is not None:
            check_span(self.latest * UNITS[self.unit])
            if self.latest < self.count:
                raise DeclarationError(
                    f"{said}.to({self.latest}) goes backward.", f"Write every({self.latest}).to({self.count!r})."
                )
        self._check_times()

    def _check_times(self) -> None:
        if self.weekday is not None and (self.weekday not in WEEKDAYS or self.unit != "weeks"):
            raise DeclarationError(
                f"{self.weekday} doesn't go with {self.unit}.", 'Write schedule.every().monday.at("09:00").'
            )
        if self.times and self.unit == "seconds":
            raise DeclarationError("Every so many seconds has no time of day.", 'Write every().day.at("20:00").')
        if self._follows_clock and not all(count == int(count) for count in (self.count, self.latest or 1)):
            raise DeclarationError(
                f"Clock times need a whole number of {self.unit}, not {self.count}.", "Write for example every(2)."
            )

    @property
    def _follows_clock(self) -> bool:
        return bool(self.times) or self.weekday is not None

    @property
    def text(self) -> str:
        """The phrase in the words of the repr of a `schedule` job, which doesn't tell weekdays."""
        unit = self.unit[:-1] if self.count == 1 else self.unit
        if self.times:
            return f"Every {self.count} {unit} at {', '.join(map(str, self.times))}"
        latest = "" if self.latest is None else f"to {self.latest} "
        return f"Every {self.count} {latest}{unit}"

    def schedule(self) -> Schedule:
        """The schedule; with a `latest` the distances lie anywhere between `count` and `latest` units."""
        low, high = self.count, self.count if self.latest is None else self.latest
        if self._follows_clock:
            return self._clock_schedule(int(low + high) // 2, int(high - low) // 2)
        seconds = UNITS[self.unit]
        if high == low:
            return Interval(low * seconds)
        return Jittered(Interval((low + high) / 2 * seconds), (high - low) / 2 * seconds)

    def _clock_schedule(self, every: int, spread: int) -> Schedule:
        if self.weekday is not None:
            weekdays = (WEEKDAYS.index(self.weekday),)
            return WallClock(self.times or (MIDNIGHT,), every, weekdays, spread, zone=self.zone)
        if self.unit in ("days", "weeks"):
            days = UNITS[self.unit] // UNITS["days"]
            return WallClock(self.times, days * every, spread=days * spread, zone=self.zone)
        at = self.times[0]
        offset = at.second if self.unit == "minutes" else 60 * at.minute + at.second
        return ClockGrid(UNITS[self.unit], offset, every, spread, zone=self.zone)
