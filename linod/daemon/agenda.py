"""What is planned: for each task its next due time, and the runs that were claimed and wait for their instant."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..runs import Outcome, Run
from ..task import Task
from .clock import Timer, monotonic

if TYPE_CHECKING:
    from .control import Caller
    from .workers import Worker


@dataclass(eq=False, kw_only=True, slots=True)
class LiveRun:
    """A run between its claim and its end, with what only the daemon needs of it."""

    run: Run
    entry: Entry
    at: datetime  # when it shall start: its due time, or later for a retry or a catch-up after boot
    confirmed: bool = False  # its claim is in history
    overdue: bool = False  # its instant has come before its claim was in history
    decided: bool = False  # it has fallen due
    dropped: bool = False  # it will not begin; who still holds it lets go of it
    worker: Worker | None = None
    guest: Caller | None = None  # the process that runs it itself
    asker: Caller | None = None  # who has asked for it, and hears what it does
    began: float = 0.0  # monotonic
    young: bool = False  # counts against max_parallel
    verdict: Outcome | None = None  # why we are ending it
    verdict_reason: str = ""
    timeout: Timer | None = None
    stuck: Timer | None = None
    progress: str = ""

    @property
    def task(self) -> Task:
        return self.entry.task

    def let_down(self, reason: str) -> None:
        """Tell whoever waits for it that it will not begin."""
        for caller in filter(None, (self.guest, self.asker)):
            caller.runs = caller.hears = None
            caller.refuse(reason)
        self.asker = None


@dataclass(eq=False, kw_only=True, slots=True)
class Entry:
    """A task, and where it stands."""

    task: Task
    position: int
    since: datetime  # known, enabled and with this very schedule since then
    accounted: datetime | None  # the latest due time that was started or skipped
    due: datetime | None = None  # its next due time in the agenda
    next: LiveRun | None = None  # the claimed run of its next due time
    waiting: deque[LiveRun] = field(default_factory=deque)  # due, but something keeps them from starting
    alive: set[LiveRun] = field(default_factory=set)
    retry: Timer | None = None
    gone: bool = False  # declared no more
    last_outcome: Outcome | None = None
    last_reason: str = ""
    failures: int = 0  # in a row
    failing_since: datetime | None = None  # when the first of these began

    def account(self, due: datetime) -> None:
        """A due time is dealt with, and so are those before it."""
        self.accounted = max(self.accounted or due, due)


class Agenda:
    """Instants with what happens then, the earliest first.

    What is no longer wanted is dropped when its turn comes: a due time that is not its task's `due` any more, and a run
    that is decided about.
    """

    def __init__(self) -> None:
        self._due_times: list[tuple[datetime, int, Entry]] = []
        self._claimed: list[tuple[datetime, int, LiveRun]] = []
        self._order = itertools.count()

    def plan(self, due: datetime, entry: Entry) -> None:
        """A task's next due time, to be claimed some time before."""
        if entry.due != due:
            entry.due = due
            heapq.heappush(self._due_times, (due, next(self._order), entry))

    def claimed(self, live: LiveRun) -> None:
        """A claimed run, to be started at its instant."""
        heapq.heappush(self._claimed, (live.at, next(self._order), live))

    def take_due_times(self, until: datetime) -> list[tuple[datetime, Entry]]:
        """The due times up to an instant, to be claimed now."""
        taken = []
        while (coming := self.next_due()) and coming[0] <= until:
            heapq.heappop(self._due_times)
            coming[1].due = None
            taken.append(coming)
        return taken

    def take_claimed(self, until: datetime, limit: int) -> list[LiveRun]:
        """The runs that shall start by now, up to a number; the rest comes with the next call."""
        taken: list[LiveRun] = []
        while self._claimed and self._claimed[0][0] <= until and len(taken) < limit:
            taken.append(heapq.heappop(self._claimed)[2])
        return taken

    def starting_together(self, within: timedelta, limit: int) -> int:
        """How many runs start about when the next one does; counting stops at a limit."""
        if not self._claimed:
            return 0
        until = self._claimed[0][0] + within
        # In a heap the earliest are in front, though not quite in their order.
        return min(limit, sum(at <= until for at, _order, _live in self._claimed[: 4 * limit]))

    def next_due(self) -> tuple[datetime, Entry] | None:
        """The next due time that is not claimed yet."""
        while self._due_times:
            due, _order, entry = self._due_times[0]
            if entry.due == due:
                return due, entry
            heapq.heappop(self._due_times)
        return None

    def next_due_time(self) -> datetime | None:
        return coming[0] if (coming := self.next_due()) else None

    def next_claimed(self) -> LiveRun | None:
        """The claimed run that starts next."""
        while self._claimed:
            live = self._claimed[0][2]
            if not live.decided:
                return live
            heapq.heappop(self._claimed)
        return None

    def next_start(self) -> datetime | None:
        return live.at if (live := self.next_claimed()) else None

    def all_claimed(self) -> list[LiveRun]:
        """All claimed runs that wait for their instant, in no order."""
        return [live for _at, _order, live in self._claimed if not live.decided]

    def drop_due_times(self) -> None:
        """Forget all due times that are not claimed yet."""
        for _due, _order, entry in self._due_times:
            entry.due = None
        self._due_times.clear()

    def drop_claimed(self) -> list[LiveRun]:
        """Forget all runs that wait for their instant; returns them."""
        dropped = [live for _at, _order, live in self._claimed]
        self._claimed.clear()
        return dropped


class Capacity:
    """How many runs may be going on at the same time.

    Only young runs count against the lower limit. One that has lasted a while waits for something, and a dozen of those
    must not become a queue for all others; the higher limit holds for all together.
    """

    def __init__(self, *, parallel: int, total: int, slow_after: float) -> None:
        self.parallel, self.total, self.slow_after = parallel, total, slow_after
        self.alive = 0
        self._young = 0
        self._by_age: deque[LiveRun] = deque()

    def started(self, live: LiveRun) -> None:
        live.young = True
        self.alive += 1
        self._young += 1
        self._by_age.append(live)

    def ended(self, live: LiveRun) -> None:
        self.alive -= 1
        if live.young:
            live.young = False
            self._young -= 1

    def room(self) -> int:
        """How many more runs may start now."""
        self._grow_old()
        return max(0, min(self.parallel - self._young, self.total - self.alive))

    def next_room(self) -> float | None:
        """Seconds until a young run counts no more; None where only an end makes room."""
        self._grow_old()
        if not self._by_age or self.alive >= self.total:
            return None
        return max(0.0, self._by_age[0].began + self.slow_after - monotonic())

    def _grow_old(self) -> None:
        limit = monotonic() - self.slow_after
        while self._by_age and (not self._by_age[0].young or self._by_age[0].began <= limit):
            live = self._by_age.popleft()
            if live.young:
                live.young = False
                self._young -= 1
