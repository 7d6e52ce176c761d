"""Decide what people are told about tasks. Pure: what happens to runs goes in, an alert comes out for each change.

People know of at most three troubles of a task: that it is failing, late, or stuck. What they know is not told again,
however often it happens, until it is over, which is told once. A task is failing when it has gone wrong so often in a
row that its retries are used up: with a retry left, it may yet be well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from ..alert.task import LONGEST_DETAIL, LONGEST_REASON, Event, TaskAlert
from ..archive import storable
from ..runs import Outcome, Run
from ..task import Task


class Trouble(StrEnum):
    """What people may know of a task."""

    FAILING = "failing"
    LATE = "late"
    STUCK = "stuck"


@dataclass(kw_only=True, slots=True)
class Known:
    """One trouble of a task that people know of."""

    task: str
    trouble: Trouble
    since: datetime  # when it began
    times: int = 0  # runs that have gone wrong since


class Alerts:
    """What people know, and what they are told next."""

    def __init__(self, known: Iterable[Known], last_number: int, changed: Callable[[Known, bool], None]) -> None:
        """`changed` is called when people know of a trouble, or know that it is over."""
        self._known = {(each.task, each.trouble): each for each in known}
        self.last_number = last_number
        self._changed = changed

    # What happens

    def ended(self, task: Task, run: Run, *, failures: int, since: datetime | None) -> list[TaskAlert]:
        """A run has ended, as the last one of so many `failures` in a row, the first of which began at `since`."""
        if run.outcome is Outcome.SUCCEEDED:
            return self._over(task, run, Trouble.FAILING) + self._over(task, run, Trouble.STUCK)
        if not (run.outcome and run.outcome.bad):
            return []  # that it was cancelled says nothing about the task
        if known := self._find(task, Trouble.FAILING):
            known.times += 1
            return []
        if run.outcome is Outcome.LOST:
            return self._failing(Event.LOST, task, run, failures, since)
        if failures <= task.policies.retries:
            return []
        return self._failing(Event.FAILED, task, run, failures, since)

    def late(self, task: Task, run: Run, due: datetime, now: datetime, cause: str) -> list[TaskAlert]:
        """A run has not begun so long after it was due that people want to know."""
        if self._find(task, Trouble.LATE):
            return []
        self._learn(Known(task=task.id, trouble=Trouble.LATE, since=due))
        return [self._alert(Event.LATE, task, run, now, since=text_of(due), reason=cause)]

    def began_in_time(self, task: Task, run: Run, now: datetime) -> list[TaskAlert]:
        """A run has begun, and not late."""
        return self._over(task, run, Trouble.LATE, now)

    def stuck(self, task: Task, run: Run, now: datetime, cause: str) -> list[TaskAlert]:
        """A run goes on that should have ended."""
        if self._find(task, Trouble.STUCK):
            return []
        began = run.started or now
        self._learn(Known(task=task.id, trouble=Trouble.STUCK, since=began))
        return [self._alert(Event.STUCK, task, run, now, since=text_of(began), reason=cause)]

    def paused(self, task: Task, run: Run, now: datetime, *, failures: int, reason: str) -> list[TaskAlert]:
        """linod itself has paused a task; nobody resumes it but a person."""
        known = self._find(task, Trouble.FAILING)
        since = text_of(known.since) if known else ""
        return [self._alert(Event.PAUSED, task, run, now, since=since, times=failures, reason=reason)]

    # What people know

    def known(self) -> list[Known]:
        """All troubles that people know of."""
        return list(self._known.values())

    def renamed(self, old: str, new: str) -> None:
        """A task has a new id, as history knows already."""
        for trouble in Trouble:
            if known := self._known.pop((old, trouble), None):
                known.task = new
                self._known[new, trouble] = known

    def is_failing(self, task: Task) -> bool:
        """Whether people know that it goes wrong."""
        return self._find(task, Trouble.FAILING) is not None

    def is_late(self, task: Task) -> bool:
        """Whether people know that it doesn't begin in time."""
        return self._find(task, Trouble.LATE) is not None

    def _find(self, task: Task, trouble: Trouble) -> Known | None:
        return self._known.get((task.id, trouble))

    def _learn(self, known: Known) -> None:
        self._known[known.task, known.trouble] = known
        self._changed(known, True)

    def _failing(self, event: Event, task: Task, run: Run, failures: int, since: datetime | None) -> list[TaskAlert]:
        began = since or run.started or run.due
        self._learn(Known(task=task.id, trouble=Trouble.FAILING, since=began, times=failures))
        detail = run.traceback or run.output
        return [
            self._alert(
                event,
                task,
                run,
                run.ended or run.started or run.due,
                since=text_of(began),
                times=failures,
                reason=run.reason,
                detail=detail[-LONGEST_DETAIL:],
            )
        ]

    def _over(self, task: Task, run: Run, trouble: Trouble, now: datetime | None = None) -> list[TaskAlert]:
        """People hear that a trouble is over, if they know of it."""
        if (known := self._find(task, trouble)) is None:
            return []
        del self._known[task.id, trouble]
        self._changed(known, False)
        at = now or run.ended or run.due
        return [
            self._alert(Event.RECOVERED, task, run, at, since=text_of(known.since), times=known.times, was=str(trouble))
        ]

    def _alert(
        self,
        event: Event,
        task: Task,
        run: Run,
        at: datetime,
        *,
        since: str = "",
        times: int = 0,
        was: str = "",
        reason: str = "",
        detail: str = "",
    ) -> TaskAlert:
        self.last_number += 1
        return TaskAlert(
            number=self.last_number,
            event=str(event),
            task=task.id,
            name=task.label,
            at=text_of(at),
            since=since,
            times=times,
            was=was,
            run=run.id,
            outcome=str(run.outcome or ""),
            reason=storable(reason[:LONGEST_REASON]),
            detail=storable(detail),
        )


def text_of(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()
