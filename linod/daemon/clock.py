"""The daemon's watch: the only place that asks what time it is."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ..linux import WallClockTimer

NOTICEABLE = 1.0  # seconds that the wall clock must have moved by itself to count as set


def now() -> datetime:
    """The wall clock, as an aware UTC datetime: for due times."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds that nobody can set: for durations and deadlines. Stands still while the host is suspended."""
    return time.monotonic()


class WallClock:
    """Wakes the loop at an instant, and notices when the clock was set or the host slept."""

    def __init__(self) -> None:
        self._timer = WallClockTimer()
        self._armed: datetime | None = None
        self._offset = time.time() - time.monotonic()
        self._timer.set(None)

    def fileno(self) -> int:
        return self._timer.fileno()

    def wake_at(self, instant: datetime | None) -> None:
        """Wake the loop at this instant, None: at none."""
        if instant != self._armed:
            self._timer.set(instant)
            self._armed = instant

    def acknowledge(self) -> None:
        """Take the timer's event, so that it can come again."""
        self._timer.clock_was_set()
        self._armed = None

    def jump(self) -> timedelta | None:
        """By how much the clock has been moved since the last call, if by so much that it matters."""
        offset = time.time() - time.monotonic()
        moved = offset - self._offset
        if abs(moved) < NOTICEABLE:
            return None
        self._offset = offset
        self._armed = None
        return timedelta(seconds=moved)


class Timer:
    """A deadline that can be cancelled."""

    __slots__ = ("callback", "deadline")

    def __init__(self, deadline: float, callback: Callable[[], None] | None) -> None:
        self.deadline, self.callback = deadline, callback


class Timers:
    """Deadlines by the monotonic clock. Setting, cancelling and taking one cost the same however many there are."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._cancelled = 0

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Have something done in so many seconds."""
        timer = Timer(monotonic() + seconds, callback)
        heapq.heappush(self._heap, (timer.deadline, next(self._order), timer))
        return timer

    def cancel(self, timer: Timer | None) -> None:
        if timer is None or timer.callback is None:
            return
        timer.callback = None
        self._cancelled += 1
        # Most deadlines are timeouts of runs that end in time: the heap must not fill with the dead.
        if self._cancelled > 64 and self._cancelled > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float | None:
        """Seconds until the next deadline, None where there is none."""
        self._drop_cancelled()
        return max(0.0, self._heap[0][0] - monotonic()) if self._heap else None

    def run_due(self) -> None:
        """Do what is to be done by now."""
        limit = monotonic()
        self._drop_cancelled()
        while self._heap and self._heap[0][0] <= limit:
            timer = heapq.heappop(self._heap)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
            self._drop_cancelled()

    def _drop_cancelled(self) -> None:
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
