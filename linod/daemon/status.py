"""The line that `systemctl status` shows: what there is, what runs, what comes next, what went wrong last."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..words import count
from .agenda import LiveRun
from .clock import Timer, Timers, now
from .notify import Notifier
from .reporter import Reporter, short_clock

SETTLES_WITHIN = 1.0  # seconds; a run that is over by then is no news
MOST_NAMED = 3  # running tasks


class StatusLine:
    """Keeps the line true, without telling systemd of each run."""

    def __init__(self, notifier: Notifier, reporter: Reporter, timers: Timers, compose: Callable[[], str]) -> None:
        self._notifier, self._reporter, self._timers, self._compose = notifier, reporter, timers, compose
        self._seen = 0
        self._timer: Timer | None = None

    def turn_finished(self) -> None:
        """Have the line told soon, if something has happened."""
        if not self._notifier.wanted or self._reporter.happened == self._seen:
            return
        self._seen = self._reporter.happened
        if self._timer is None or self._timer.callback is None:
            self._timer = self._timers.after(SETTLES_WITHIN, self.tell)

    def tell(self) -> None:
        self._notifier.status(self._compose())


def describe(tasks: int, live: Collection[LiveRun], coming: str, failure: str, trouble: str) -> str:
    """The line for a site that is loaded."""
    parts = [f"{count(tasks, 'task')}.", trouble and f"History cannot be written: {trouble}.", running(live), coming]
    return " ".join(filter(None, [*parts, failure and f"Last failure: {failure}"]))


def running(live: Collection[LiveRun]) -> str:
    """What runs, the oldest first."""
    if not live:
        return ""
    oldest = sorted(live, key=lambda one: one.began)[:MOST_NAMED]
    named = [
        f"{one.task.label} since {short_clock(one.run.started or now())}"
        + (f" ({one.progress})" if one.progress else "")
        for one in oldest
    ]
    more = f" and {len(live) - MOST_NAMED} more" if len(live) > MOST_NAMED else ""
    return f"Running: {', '.join(named)}{more}."
