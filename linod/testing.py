"""For a project's own tests: run a task as a worker would, or see what a plan brings, without a daemon.

from linod.testing import Timeline, run_task

result = run_task("send_pending_emails")
assert result.outcome == "succeeded", result.traceback

days = Timeline(datetime(2026, 3, 28, 12, tzinfo=UTC))
assert [due.task for due in days.advance(days=1)] == ["checkdata"]
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from .runs import Outcome
from .site.call import Result, call
from .site.load import find_declarations, time_zone
from .task import Declaration

__all__ = ["Due", "Outcome", "Result", "Timeline", "run_task"]


def run_task(task: str | Callable[..., Any]) -> Result:
    """Run a declared task in this process, in a fresh context, awaiting it if it is async; never raises what it raises.

    `task` is its function, its id, or its function's name. Raises LookupError where no such task is declared.
    """
    for declaration in find_declarations():
        if task in (declaration.function, declaration.task.id, declaration.task.label):
            return call(declaration.function)
    raise LookupError(f"No task {task!r} is declared; there are: {', '.join(d.task.id for d in find_declarations())}.")


@dataclass(frozen=True, order=True)
class Due:
    """A due time on a timeline."""

    at: datetime  # aware UTC
    task: str  # the function's own name
    id: str


class Timeline:
    """The due times of the declared tasks, over a time that only a test moves."""

    def __init__(self, start: datetime, *, zone: str | None = None, run: bool = False) -> None:
        """`start` is aware. `zone` is TIME_ZONE by default. `run`: call each task's function when it is due."""
        from django.conf import settings

        self.now = start.astimezone(UTC)
        self._run = run
        zone = zone or time_zone(settings)
        self._declarations = [d.placed(zone=zone, site="test") for d in find_declarations() if d.task.policies.enabled]
        self._heap: list[tuple[datetime, int]] = []
        for position in range(len(self._declarations)):
            self._plan(position)

    def advance(self, **distance: float) -> list[Due]:
        """Move the time on (`hours=2`, as for a timedelta); returns what was due meanwhile, in its order."""
        until = self.now + timedelta(**distance)
        passed = []
        while self._heap and self._heap[0][0] <= until:
            self.now, position = heapq.heappop(self._heap)
            passed.append(self._fall_due(self._declarations[position]))
            self._plan(position)
        self.now = until
        return passed

    def _plan(self, position: int) -> None:
        if due := self._declarations[position].task.schedule.next(self.now):
            heapq.heappush(self._heap, (due, position))

    def _fall_due(self, declaration: Declaration) -> Due:
        if self._run:
            call(declaration.function)
        return Due(at=self.now, task=declaration.task.label, id=declaration.task.id)
