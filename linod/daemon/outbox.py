"""What people are still to be told about tasks, by which channels, and when.

All that changes within a short time goes into one message. One that could not be delivered is kept, over restarts of
the daemon as well, and tried again after longer and longer pauses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..alert.task import TaskAlert
from ..wire import Tell
from . import statements
from .clock import Timer, Timers, now
from .history import History
from .past import PastAlerts
from .reporter import Reporter
from .teller import Teller, is_set

GATHER = 10.0  # seconds after the first change, in which others join it
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0  # seconds between two tries
MOST_KEPT = 1000  # alerts for one channel; of more, the oldest are only counted
LARGEST = 120_000  # bytes of alerts in one message
MAIL, URL, SIGNAL = "mail", "url", "signal"
CHANNELS = (MAIL, URL, SIGNAL)


class Channel:
    """One way to tell people."""

    def __init__(self, name: str, outbox: Outbox) -> None:
        self.name = name
        self.waiting: list[TaskAlert] = []
        self.left_out = 0
        self.told_at: datetime | None = None
        self.every = 0.0  # seconds from one message to the next
        self._outbox = outbox
        self._timer: Timer | None = None
        self._pause = 0.0  # after a try that failed
        self._under_way = False

    def add(self, alerts: Iterable[TaskAlert]) -> list[TaskAlert]:
        """Tell these soon. Returns those that are let go for want of room."""
        self.waiting += alerts
        let_go = self.waiting[: -MOST_KEPT or None] if len(self.waiting) > MOST_KEPT else []
        del self.waiting[: len(let_go)]
        self.left_out += len(let_go)
        if not self._under_way and not is_set(self._timer):
            self._wait(max(GATHER, self._rest()))
        return let_go

    def clear(self) -> list[TaskAlert]:
        """Tell nothing of what waits. Returns that."""
        self._outbox.timers.cancel(self._timer)
        let_go, self.waiting = self.waiting, []
        self.left_out, self._pause = 0, 0.0
        return let_go

    def hurry(self) -> None:
        """Tell now what waits to be joined by others: the daemon leaves."""
        if self.waiting and not self._under_way and not self._pause and not self._rest():
            self._outbox.timers.cancel(self._timer)
            self._go()

    def _rest(self) -> float:
        """Seconds until people may be told again."""
        if self.told_at is None:
            return 0.0
        passed = (now() - self.told_at) / timedelta(seconds=1)
        return self.every - passed if 0 <= passed < self.every else 0.0

    def _wait(self, seconds: float) -> None:
        self._timer = self._outbox.timers.after(seconds, self._go)

    def _go(self) -> None:
        batch, left_out = list(self.waiting), self.left_out
        alerts, unnamed = fitting(batch)
        self._under_way = True
        message = Tell(errand=0, channel=self.name, alerts=alerts, more=unnamed + left_out)
        self._outbox.teller.tell(message, lambda problem: self._done(batch, left_out, problem))

    def _done(self, batch: list[TaskAlert], left_out: int, problem: str) -> None:
        self._under_way = False
        if problem and self.name != SIGNAL:  # what receivers do is their affair: once is enough
            return self._try_again(len(batch), problem)
        self._pause, self.told_at = 0.0, now()
        told = {alert.number for alert in batch}
        rest = [alert for alert in self.waiting if alert.number not in told]
        # Some of the batch may have been let go meanwhile for want of room, and are told all the same.
        let_go = len(batch) - (len(self.waiting) - len(rest))
        self.waiting, self.left_out = rest, max(0, self.left_out - left_out - let_go)
        self._outbox.told(self, batch, problem)
        if self.waiting:
            self._wait(max(GATHER, self._rest()))

    def _try_again(self, number: int, problem: str) -> None:
        """Tell later what could not be told, unless nobody wants it any more."""
        if not self.waiting:
            return
        if not self._pause:
            self._outbox.reporter.not_told(self.name, number, problem)
        self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        self._wait(self._pause)


class Outbox:
    """All that people are still to be told."""

    def __init__(self, history: History, timers: Timers, reporter: Reporter, teller: Teller) -> None:
        self.timers, self.reporter, self.teller = timers, reporter, teller
        self._history = history
        self._channels = {name: Channel(name, self) for name in CHANNELS}
        self._wanted: tuple[str, ...] = ()
        self._owed: dict[int, set[str]] = {}  # the channels by which each alert is still to be told

    def use(self, wanted: Sequence[str], every: float) -> None:
        """Go on with the channels that the site wants, and so many seconds from one mail to the next.

        What waits for others is let go.
        """
        self._wanted = tuple(name for name in CHANNELS if name in wanted)
        self._channels[MAIL].every = every
        for name in set(CHANNELS).difference(self._wanted):
            self._history.write_together([self._settle(alert, name) for alert in self._channels[name].clear()])

    def resume(self, past: PastAlerts) -> None:
        """Go on where the last daemon stopped."""
        for name, told_at in past.told.items():
            if name in self._channels:
                self._channels[name].told_at = told_at
        for alert, channels in past.untold:
            self._history.write_together(self._keep([alert], [name for name in channels if name in self._wanted]))

    def keep(self, alerts: Sequence[TaskAlert]) -> list[statements.Statement]:
        """Tell these; returns the statements that keep them until then."""
        return self._keep(alerts, self._wanted) if self._wanted else []

    def _keep(self, alerts: Sequence[TaskAlert], channels: Sequence[str]) -> list[statements.Statement]:
        if channels:
            self._owed.update((alert.number, set(channels)) for alert in alerts)
        kept = [statements.owing(alert, sorted(channels)) for alert in alerts]
        for name in channels:
            for alert in self._channels[name].add(alerts):
                kept.append(self._settle(alert, name))
        return kept

    def told(self, channel: Channel, batch: Sequence[TaskAlert], problem: str) -> None:
        """People were told by a channel."""
        assert channel.told_at is not None
        settled = [self._settle(alert, channel.name) for alert in batch]
        latest = max((alert.number for alert in batch), default=0)
        self._history.write_together([*settled, statements.telling(channel.name, channel.told_at, latest)])
        self.reporter.told(channel.name, [alert.name for alert in batch], problem)

    def _settle(self, alert: TaskAlert, channel: str) -> statements.Statement:
        owed = self._owed.get(alert.number, set())
        owed.discard(channel)
        if not owed:
            self._owed.pop(alert.number, None)
        return statements.owing(alert, sorted(owed))

    def statements(self, last_number: int) -> list[statements.Statement]:
        """All that history must know of it, where it has to begin anew, and the number of the last alert of all."""
        waiting = {alert.number: alert for channel in self._channels.values() for alert in channel.waiting}
        owed = [statements.owing(alert, sorted(self._owed[number])) for number, alert in waiting.items()]
        told = [
            statements.telling(channel.name, channel.told_at, last_number)
            for channel in self._channels.values()
            if channel.told_at
        ]
        return [*owed, *told]

    def hurry(self) -> None:
        for channel in self._channels.values():
            channel.hurry()


def fitting(alerts: Sequence[TaskAlert]) -> tuple[list[dict[str, Any]], int]:
    """As many alerts as fit into one message, with details as far as there is room; and how many do not."""
    brief = [{**alert.as_dict(), "detail": ""} for alert in alerts]
    room, named = LARGEST, 0
    for one in brief:
        room -= len(json.dumps(one))
        if room < 0:
            break
        named += 1
    for one, alert in zip(brief[:named], alerts, strict=False):
        room -= len(json.dumps(alert.detail))
        if room < 0:
            break
        one["detail"] = alert.detail
    return brief[:named], len(alerts) - named
