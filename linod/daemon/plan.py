"""The plan: which tasks there are, when each is due next, and the claims for those due times.

    adopt -> plan_next -> claim_ahead -> fallen_due

What happens to a run once it is due is told in running.py.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ..runs import Outcome, Run, Trigger
from ..task import Task
from . import planner
from .agenda import Agenda, Entry, LiveRun
from .clock import now
from .history import History, Known, Past, is_durable
from .reporter import Reporter, clock

CLAIM_BEFORE = timedelta(seconds=1)  # a due time is claimed this long before, at the latest;
CLAIM_WITHIN = timedelta(seconds=12)  # when the loop is awake anyway, so is what comes within this
MOST_AT_ONCE = 50  # due times that are decided about in one turn
TOGETHER = timedelta(seconds=1)  # runs that start within this want a worker each


@dataclass
class Changes:
    """What is different in the site's tasks, by their labels."""

    new: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


class Plan:
    """The tasks of a site and their due times."""

    def __init__(self, history: History, reporter: Reporter, boot: str, *, once: bool) -> None:
        self.entries: dict[str, Entry] = {}
        self.closed = once  # no further due times are planned
        self._history, self._reporter, self._boot = history, reporter, boot
        self._agenda = Agenda()
        self._unconfirmed: dict[int, LiveRun] = {}  # claims that history has not answered yet
        self._last_id = self._lap = 0

    # Tasks

    def resume(self, past: Past) -> None:
        """Go on counting where the last daemon stopped."""
        self._last_id, self._lap = past.last_id, past.lap
        if past.latest_due is not None and past.latest_due > now() + CLAIM_WITHIN:
            self._lap += 1  # the clock was set back while no daemon ran: intervals come by the same due times again

    def adopt(self, tasks: list[Task], past: Past | None) -> Changes:
        """Take over the declared tasks; with a past, as the first ones, whose due times are planned later."""
        changes = Changes()
        declared = {task.id for task in tasks}
        for id in [id for id in self.entries if id not in declared]:
            entry = self.entries.pop(id)
            changes.gone.append(entry.task.label)
            self.release(entry)
            self._history.forget(id)
        for position, task in enumerate(tasks):
            entry_or_none = self.entries.get(task.id)
            if entry_or_none is None:
                changes.new.append(task.label)
                self._add(task, position, past)
            elif entry_or_none.task != task:
                changes.changed.append(task.label)
                self._change(entry_or_none, task, position)
        return changes

    def _add(self, task: Task, position: int, past: Past | None) -> None:
        known = self._known(task, past) if past else None
        if known is None or known.task is None or not is_same_plan(known.task, task):
            known = Known(task=task, since=now(), accounted=None)
        entry = Entry(task=task, position=position, since=known.since, accounted=known.accounted)
        self.entries[task.id] = entry
        self._history.know(task, position, entry.since, entry.accounted)
        if past is None:
            self.plan_next(entry)
        elif last := past.last_runs.get(task.id):
            entry.last_outcome, entry.last_reason = last.outcome, last.reason

    def _known(self, task: Task, past: Past) -> Known | None:
        """What history knows of a task, also under its former name."""
        known = past.tasks.get(task.id)
        old = task.policies.renamed_from
        if known is None and old and (known := past.rename(old, task.id)):
            self._history.rename(old, task.id)
        return known

    def _change(self, entry: Entry, task: Task, position: int) -> None:
        """A task is declared otherwise than before; with another schedule it begins anew."""
        if is_same_plan(entry.task, task):
            entry.task = task
        else:
            self.release(entry)
            entry.task, entry.since, entry.accounted, entry.gone = task, now(), None, False
            self.plan_next(entry)
        self._history.know(task, position, entry.since, entry.accounted)

    def release(self, entry: Entry) -> None:
        """Take back what is planned of a task; what runs goes on."""
        entry.gone = True
        for live in [entry.next, *entry.waiting]:
            if live is not None:
                self.withdraw(live)

    # Due times

    def plan_next(self, entry: Entry, after: datetime | None = None) -> None:
        """Put a task's next due time into the agenda: the next one from now, or after the one that has just come."""
        if self.closed or entry.gone or not entry.task.policies.enabled:
            return
        if after is not None:
            due = entry.task.schedule.next(after)
        else:
            due = planner.next_due(entry.task, accounted=entry.accounted, now=now())
        if due is not None:
            self._agenda.plan(due, entry)

    def claim_ahead(self) -> None:
        """Write down that runs will be started, some time before they are due."""
        for due, entry in self._agenda.take_due_times(now() + CLAIM_WITHIN):
            if not entry.gone and entry.next is None:
                entry.next = self.claim(entry, due, at=due, trigger=Trigger.SCHEDULE)

    def claim(
        self, entry: Entry, due: datetime, *, at: datetime, trigger: Trigger, attempt: int = 1, dues: int = 1
    ) -> LiveRun:
        """Claim a run for a due time, to be started at an instant."""
        run = self._new_run(entry, due, dues=dues)
        run.trigger, run.attempt = trigger, attempt
        live = LiveRun(run=run, entry=entry, at=at)
        self._unconfirmed[run.id] = live
        self._history.claim(run, durable=is_durable(entry.task))
        self._agenda.claimed(live)
        return live

    def again(self, entry: Entry, run: Run, trigger: Trigger) -> LiveRun:
        """Claim one more attempt for the due time of a run."""
        return self.claim(entry, run.due, at=now(), trigger=trigger, attempt=run.attempt + 1, dues=run.dues)

    def fallen_due(self) -> list[LiveRun]:
        """The claimed runs whose instant has come, each once. The next due time of their tasks is planned.

        Not all of them where there are many: the first shall begin before the last is looked at.
        """
        instant = now()
        due = [live for live in self._agenda.take_claimed(instant, MOST_AT_ONCE) if live.confirmed and not live.decided]
        for live in due:
            live.decided = True
            if live.entry.next is live:
                live.entry.next = None
                self._account(live.entry, live.run.due)
                # Not after what is accounted for: that may lie ahead when the clock was set back.
                self.plan_next(live.entry, self._skip_overslept(live, instant) or live.run.due)
        return [live for live in due if not live.dropped]

    def take_answers(self) -> None:
        """History says which claims are written."""
        for id, granted in self._history.answers():
            live = self._unconfirmed.pop(id, None)
            if live is None:
                continue
            if granted:
                live.confirmed = True
                if live.at <= now():
                    self._agenda.claimed(live)  # it fell due while we waited for the disk
            else:
                self._reporter.claim_refused(live.task, live.run)
                self.drop(live)
                self.plan_next(live.entry)

    # What is not run

    def withdraw(self, live: LiveRun) -> None:
        """Take a claim back; its due time is not accounted for."""
        self.drop(live)
        # That a lost run is to be repeated is known from this claim alone, so it stays for the next daemon.
        if live.run.trigger is not Trigger.RERUN:
            self._history.withdraw(live.run)

    def drop(self, live: LiveRun) -> None:
        """Let go of a run that has not begun."""
        live.dropped = live.decided = True
        self._unconfirmed.pop(live.run.id, None)
        if live.entry.next is live:
            live.entry.next = None
        with suppress(ValueError):
            live.entry.waiting.remove(live)

    def skip(self, live: LiveRun, reason: str) -> None:
        """Record that a claimed run will not start."""
        self.drop(live)
        self._record_skip(live.entry, live.run, reason)
        self._reporter.run_skipped(live.task, live.run)

    def skip_unclaimed(self, entry: Entry, due: datetime, dues: int, reason: str, *, quietly: bool = False) -> None:
        """Record that due times, the last of which is given, were never claimed and will not be run."""
        run = self._new_run(entry, due, dues=dues)
        self._account(entry, due)
        self._record_skip(entry, run, reason)
        if not quietly:
            self._reporter.run_skipped(entry.task, run)

    def _record_skip(self, entry: Entry, run: Run, reason: str) -> None:
        run.outcome, run.reason, run.ended = Outcome.SKIPPED, reason, now()
        self._history.save(run)
        self._history.account(entry.task.id, run.due)

    def _skip_overslept(self, live: LiveRun, instant: datetime) -> datetime | None:
        """Account for due times that went by after this one, because the daemon was stopped or the clock jumped.

        Returns the last of them.
        """
        schedule = live.task.schedule
        # Half a period, for a change of summer time makes some shorter.
        if (instant - live.run.due).total_seconds() < schedule.period / 2:
            return None
        following = schedule.next(live.run.due)
        if following is None or following > instant or (last := schedule.previous(instant)) is None:
            return None
        count = schedule.count(live.run.due, instant)
        self.skip_unclaimed(live.entry, last, count, "the daemon could not run then")
        return last

    def _account(self, entry: Entry, due: datetime) -> None:
        entry.accounted = max(entry.accounted or due, due)

    def _new_run(self, entry: Entry, due: datetime, *, dues: int) -> Run:
        self._last_id += 1
        return Run(id=self._last_id, task=entry.task.id, due=due, lap=self._lap, dues=dues, boot=self._boot)

    # Changes of the whole

    def clock_was_set(self, moved: timedelta) -> None:
        """Plan anew by the new time. What a clock set forward has jumped over is simply due now."""
        if moved > timedelta():
            return
        self._lap += 1
        self._agenda.drop_due_times()
        for live in self._agenda.drop_claimed():
            if live.entry.next is live:
                self.withdraw(live)
            elif not live.decided:  # like a retry: it was not bound to the clock
                live.at = now()
                self._agenda.claimed(live)
        for entry in self.entries.values():
            if entry.next is None:
                self.plan_next(entry)

    def close(self) -> None:
        """Plan nothing more, and take back what has not begun."""
        self.closed = True
        self._agenda.drop_due_times()
        for live in [*self._agenda.drop_claimed(), *self._unconfirmed.values()]:
            if not live.decided:
                self.withdraw(live)
        for entry in self.entries.values():
            self.release(entry)

    # What comes

    def next_instant(self) -> datetime | None:
        """When the wall clock has something for us."""
        due, start = self._agenda.next_due_time(), self._agenda.next_start()
        return min(filter(None, (due and due - CLAIM_BEFORE, start)), default=None)

    def next_start(self) -> datetime | None:
        """When the next claimed run shall start."""
        return self._agenda.next_start()

    def starting_together(self, limit: int) -> int:
        """How many workers the next start wants."""
        return self._agenda.starting_together(TOGETHER, limit)

    def is_empty(self) -> bool:
        return not self._unconfirmed and self._agenda.next_start() is None

    def describe_next(self) -> str:
        """When something happens next, in words."""
        upcoming = [(due, entry) for entry in self.entries.values() if (due := self._next_of(entry))]
        if not upcoming:
            return "Nothing is due."
        due, entry = min(upcoming, key=lambda pair: (pair[0], pair[1].position))
        return f"Next: {entry.task.label} at {clock(due)}."

    def _next_of(self, entry: Entry) -> datetime | None:
        if not entry.task.policies.enabled:
            return None
        return entry.next.run.due if entry.next else entry.task.schedule.next(now())


def is_same_plan(one: Task, other: Task) -> bool:
    """Whether due times of one also count as due times of the other."""
    return one.schedule == other.schedule and one.policies.enabled == other.policies.enabled
