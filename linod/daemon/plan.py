"""The plan: which tasks there are, when each is due next, and the claims for those due times.

    adopt -> plan_from -> claim_ahead -> fallen_due -> plan_next -> claim_ahead

What happens to a run once it is due is told in running.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ..archive import PauseRecord
from ..instants import MICROSECOND
from ..runs import Outcome, Run, Trigger
from ..task import Task
from . import planner
from .agenda import Agenda, Entry, LiveRun
from .clock import now
from .history import History, is_durable
from .past import Known, Past
from .pauses import SITE, describe_pause
from .reporter import Reporter, short_clock

CLAIM_BEFORE = timedelta(seconds=1)  # a due time is claimed this long before, at the latest;
MOST_AT_ONCE = 50  # due times that are decided about in one turn
TOGETHER = timedelta(seconds=1)  # runs that start within this want a worker each
HANDED_ON = ""  # in the place of a boot id: the daemon that claimed it is sure that it has not begun


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
        self.pauses: dict[str, PauseRecord] = {}  # by the task's id, or SITE
        self._left: dict[str, Entry] = {}  # tasks that are declared no more, as long as a run of theirs goes on
        self._before: dict[str, Known] = {}  # the tasks that were known before the site is loaded
        self.closed = once  # no further due times are planned
        self.renamed: Callable[[str, str], None] = lambda old, new: None  # told of a task with a new id
        self._history, self._reporter, self._boot = history, reporter, boot
        self._agenda = Agenda()
        self._unconfirmed: dict[int, LiveRun] = {}  # claims that history has not answered yet
        self._last_id = self._lap = 0

    # Tasks

    def resume(self, past: Past) -> None:
        """Go on where the last daemon stopped."""
        self._last_id, self._lap = past.last_id, past.lap
        self.pauses, self._before = past.pauses, past.tasks
        if past.latest_due is not None and past.latest_due > now() + planner.CLAIM_WITHIN:
            self._lap += 1  # the clock was set back while no daemon ran: intervals come by the same due times again

    def adopt(self, tasks: list[Task], past: Past | None) -> Changes:
        """Take over the declared tasks; with a past, as the first ones, whose due times are planned later."""
        changes, instant = Changes(), now()
        declared = {task.id for task in tasks}
        gone = {id: self.entries.pop(id) for id in list(self.entries) if id not in declared}
        self._release(gone.values(), instant, "its task is declared no more")
        self._left = {id: entry for id, entry in (self._left | gone).items() if entry.alive}
        changes.gone = [entry.task.label for entry in gone.values()]
        differing = [
            task.id for task in tasks if (old := self.entries.get(task.id)) and not is_same_plan(old.task, task)
        ]
        self._release([self.entries[id] for id in differing], instant, "its task is declared otherwise now")
        for position, task in enumerate(tasks):
            entry_or_none = self.entries.get(task.id)
            if entry_or_none is None:
                changes.new.append(task.label)
                known = self._known(task, past, declared) if past else self._renamed(task, gone)
                self._add(task, position, known, past, instant)
            elif entry_or_none.task != task or entry_or_none.position != position:
                if without_places(entry_or_none.task) != without_places(task):
                    changes.changed.append(task.label)
                self._change(entry_or_none, task, position, instant)
        for id in gone:
            self._history.forget(id)
        return changes

    def amend(self, tasks: list[Task], gone: list[str]) -> Changes:
        """Take over some tasks that are new or declared otherwise; all others stay as they are."""
        ordered = sorted(self.entries.values(), key=lambda entry: entry.position)
        amended = {entry.task.id: entry.task for entry in ordered if entry.task.id not in gone}
        return self.adopt(list((amended | {task.id: task for task in tasks}).values()), None)

    def _add(self, task: Task, position: int, known: Known | None, past: Past | None, instant: datetime) -> None:
        if known is None or known.task is None or not is_same_plan(known.task, task):
            known = Known(task=task, since=instant, accounted=None)
        entry = Entry(task=task, position=position, since=known.since, accounted=known.accounted)
        self.entries[task.id] = entry
        self._take_over_runs(entry)
        self._history.know(task, position, entry.since, entry.accounted)
        if past is None:
            self.plan_from(entry, instant)
        elif last := past.last_runs.get(task.id):
            entry.last_outcome, entry.last_reason = last.outcome, last.reason

    def _take_over_runs(self, entry: Entry) -> None:
        """Runs that began before a task was gone, or had another name, are runs of the one that is declared now."""
        for id in filter(None, (entry.task.id, entry.task.policies.renamed_from)):
            if before := self._left.pop(id, None):
                entry.alive |= before.alive
        for live in entry.alive:
            live.entry, live.run.task = entry, entry.task.id

    def _known(self, task: Task, past: Past, declared: set[str]) -> Known | None:
        """What history knows of a task, also under its former name, unless another task has that."""
        known = past.tasks.get(task.id)
        old = task.policies.renamed_from
        if known is None and old and old not in declared and (known := past.rename(old, task.id)):
            self._history.rename(old, task.id)
        return known

    def _renamed(self, task: Task, gone: dict[str, Entry]) -> Known | None:
        """What is known of a task that had another name until now, under which it is not gone then."""
        old = task.policies.renamed_from
        entry = gone.pop(old, None) if old else None
        if old is None or entry is None:
            return None
        self._history.rename(old, task.id)
        self.renamed(old, task.id)
        if pause := self.pauses.pop(old, None):
            self.pauses[task.id] = replace(pause, task=task.id)
        return Known(task=entry.task, since=entry.since, accounted=entry.accounted)

    def _change(self, entry: Entry, task: Task, position: int, instant: datetime) -> None:
        """A task is declared otherwise than before; with another schedule, it was released, and begins anew."""
        entry.position = position
        if is_same_plan(entry.task, task):
            entry.task = task
            self._history.redeclare(task, position)
        else:
            entry.task, entry.since, entry.accounted, entry.gone = task, instant, None, False
            self._history.know(task, position, instant, None)
            self.plan_from(entry, instant)

    def labels(self) -> dict[str, str]:
        """The names of the tasks' functions, by id; those known from before while the site is not loaded."""
        known = self.entries or self._before
        return {id: one.task.label for id, one in known.items() if one.task}

    def _release(self, entries: Iterable[Entry], instant: datetime, reason: str) -> None:
        """Let go of tasks: all that is planned of them is taken back; what runs goes on."""
        released = set(entries)
        for entry in released:
            self._skip_unseen(entry, instant)
            entry.gone, entry.due = True, None
        if released:
            for live in self.not_begun(released):
                self._take_back(live, instant, reason)

    def not_begun(self, entries: set[Entry]) -> list[LiveRun]:
        """The runs of tasks that were claimed and have not begun."""
        undecided = {*self._agenda.all_claimed(), *self._unconfirmed.values()}
        waiting = [live for entry in entries for live in entry.waiting]
        return [live for live in undecided if live.entry in entries and not live.decided] + waiting

    def find_not_begun(self, run: int) -> LiveRun | None:
        """A claimed run by its number."""
        return next((live for live in self.not_begun(set(self.entries.values())) if live.run.id == run), None)

    # Pauses

    def pause(self, pause: PauseRecord) -> list[Entry]:
        """Plan nothing more of a task, or of the whole site; only what a person asks for is still run.

        Returns the tasks that this concerns.
        """
        concerned, instant = self._concerned(pause.task), now()
        for entry in concerned:
            self._skip_unseen(entry, instant)
            entry.due = None
        self.pauses[pause.task] = pause
        self._history.pause(pause)
        for live in self.not_begun(set(concerned)):
            if live.run.trigger is not Trigger.MANUAL:
                self._take_back(live, instant, "its task is paused")
        return concerned

    def unpause(self, task: str) -> None:
        """Plan a task, or the whole site, again. What was due meanwhile was not missed."""
        del self.pauses[task]
        since = now()
        self._history.resume(task, since)
        for id, known in self._before.items():
            if task in (SITE, id):
                known.since = since
        for entry in self._concerned(task):
            if self.pause_of(entry) is None:
                entry.since, entry.failures, entry.failing_since = since, 0, None
                self.plan_from(entry, since)

    def pause_of(self, entry: Entry) -> PauseRecord | None:
        """Why a task is paused, None where it is not."""
        return self.pauses.get(SITE) or self.pauses.get(entry.task.id)

    def runs_by_itself(self, entry: Entry) -> bool:
        """Whether runs of a task begin without a person asking for them."""
        return not entry.gone and entry.task.policies.enabled and self.pause_of(entry) is None

    def _concerned(self, task: str) -> list[Entry]:
        if task == SITE:
            return list(self.entries.values())
        return [self.entries[task]] if task in self.entries else []

    # Due times

    def plan_from(self, entry: Entry, instant: datetime) -> None:
        """Put a task's first due time from an instant on into the agenda.

        All that came until then is seen to, and what comes while that was being done is due at once.
        """
        self._plan(entry, planner.next_due(entry.task, accounted=entry.accounted, now=instant))

    def plan_next(self, entry: Entry, after: datetime) -> None:
        """Put into the agenda the due time that follows on one that has come."""
        self._plan(entry, entry.task.schedule.next(after))

    def _plan(self, entry: Entry, due: datetime | None) -> None:
        if due is not None and not self.closed and self.runs_by_itself(entry):
            self._agenda.plan(due, entry)

    def claim_ahead(self) -> None:
        """Write down that runs will be started, some time before they are due."""
        for due, entry in self._agenda.take_due_times(now() + planner.CLAIM_WITHIN):
            if not entry.gone and entry.next is None:
                entry.next = self.claim(entry, due, at=due, trigger=Trigger.SCHEDULE)

    def claim(self, entry: Entry, due: datetime, *, at: datetime, trigger: Trigger, dues: int = 1) -> LiveRun:
        """Claim a run for a due time, to be started at an instant."""
        run = self._new_run(entry, due, dues=dues)
        run.trigger = trigger
        return self._claim(entry, run, at)

    def claim_again(self, entry: Entry, run: Run, *, at: datetime) -> LiveRun:
        """Take over a run that another daemon has claimed, and that has not begun."""
        run.boot = self._boot
        return self._claim(entry, run, at)

    def _claim(self, entry: Entry, run: Run, at: datetime) -> LiveRun:
        live = LiveRun(run=run, entry=entry, at=at)
        self._unconfirmed[run.id] = live
        self._history.claim(run, durable=is_durable(entry.task))
        self._agenda.claimed(live)
        return live

    def again(self, entry: Entry, run: Run, trigger: Trigger) -> LiveRun:
        """Claim one more attempt for the due time of a run, which may come again in a later lap."""
        attempt = self._new_run(entry, run.due, dues=run.dues)
        attempt.trigger, attempt.attempt, attempt.lap = trigger, run.attempt + 1, run.lap
        return self._claim(entry, attempt, now())

    def fallen_due(self) -> list[LiveRun]:
        """The claimed runs whose instant has come, each once. The next due time of their tasks is planned.

        Not all of them where there are many: the first shall begin before the last is looked at.
        """
        instant, due = now(), []
        for live in self._agenda.take_claimed(instant, MOST_AT_ONCE):
            if not live.confirmed:
                live.overdue = True  # it comes again when the disk has answered
            elif not live.decided:
                live.decided = True
                due.append(live)
        for live in due:
            if live.entry.next is live:
                live.entry.next = None
                live.entry.account(live.run.due)
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
                if live.overdue:
                    self._agenda.claimed(live)
            else:
                self._reporter.claim_refused(live.task, live.run)
                was_next = live.entry.next is live
                self.drop(live, "its due time has been seen to before")
                if was_next:
                    self.plan_next(live.entry, live.run.due)

    # What is not run

    def withdraw(self, live: LiveRun, reason: str) -> None:
        """Take a claim back as if it had never been; its due time is not accounted for."""
        self.drop(live, reason)
        self._history.withdraw(live.run)

    def _take_back(self, live: LiveRun, instant: datetime, reason: str) -> None:
        """Take a claim back for good. If its due time has come by an instant, that is recorded."""
        if self._has_come(live, instant):
            self.skip(live, reason)
        else:
            self.withdraw(live, reason)

    def _hand_on(self, live: LiveRun, reason: str) -> None:
        """Leave to the next daemon what it could not know otherwise.

        That a lost run is to be repeated, and that a run waited while later due times of its task were seen to, is
        known from the claim alone.
        """
        if self._has_come(live, now()):
            live.run.trigger = Trigger.CATCH_UP
        if live.run.trigger in (Trigger.CATCH_UP, Trigger.RERUN):
            self.drop(live, reason)
            live.run.boot = HANDED_ON
            self._history.save(live.run)
        else:
            self.withdraw(live, reason)

    def _has_come(self, live: LiveRun, instant: datetime) -> bool:
        """Whether a run that has not begun is the only record of a due time which has passed, by the clock of then."""
        fell_due = live.run.trigger is Trigger.SCHEDULE and (live.decided or live.overdue)
        return fell_due or planner.has_come(live.run, instant)

    def drop(self, live: LiveRun, reason: str) -> None:
        """Let go of a run that has not begun."""
        live.dropped = live.decided = True
        live.let_down(reason)
        self._unconfirmed.pop(live.run.id, None)
        if live.entry.next is live:
            live.entry.next = None
        with suppress(ValueError):
            live.entry.waiting.remove(live)

    def skip(self, live: LiveRun, reason: str) -> None:
        """Record that a claimed run will not start."""
        self.drop(live, reason)
        self._record_skip(live.entry, live.run, reason)
        self._reporter.run_skipped(live.task, live.run)

    def cancel(self, live: LiveRun, reason: str) -> None:
        """Record that a run which has not begun will not, for a person doesn't want it."""
        was_next = live.entry.next is live
        self.skip(live, reason)
        if was_next:
            self.plan_next(live.entry, live.run.due)

    def skip_left(self, entry: Entry, run: Run, reason: str, *, quietly: bool) -> None:
        """Record that a run which another daemon has claimed will not start."""
        self._record_skip(entry, run, reason)
        if not quietly:
            self._reporter.run_skipped(entry.task, run)

    def skip_unclaimed(self, entry: Entry, due: datetime, dues: int, reason: str, *, quietly: bool = False) -> None:
        """Record that due times, the last of which is given, were never claimed and will not be run."""
        self.skip_left(entry, self._new_run(entry, due, dues=dues), reason, quietly=quietly)

    def _record_skip(self, entry: Entry, run: Run, reason: str) -> None:
        run.outcome, run.reason, run.ended = Outcome.SKIPPED, reason, now()
        self.account(entry, run)

    def account(self, entry: Entry, run: Run) -> None:
        """Write a run that begins or will not, and with it that its due time is seen to."""
        if planner.sees_to(run, now()):
            entry.account(run.due)
            self._history.account(run)
        else:
            self._history.save(run)

    def _skip_overslept(self, live: LiveRun, instant: datetime) -> datetime | None:
        """Account for due times that went by after this one, because the daemon was stopped or the clock jumped.

        Returns the last of them.
        """
        # Half a period, for a change of summer time makes some shorter.
        if (instant - live.run.due).total_seconds() < live.task.schedule.period / 2:
            return None
        return self._skip_between(live.entry, live.run.due, instant)

    def _skip_unseen(self, entry: Entry, instant: datetime) -> None:
        """Account for due times until an instant that were not claimed, of a task that is let go of now."""
        if entry.next:
            self._skip_overslept(entry.next, instant)
        elif entry.due and entry.due <= instant:
            self._skip_between(entry, entry.due - MICROSECOND, instant)
        elif self.closed and self.runs_by_itself(entry):  # nothing is planned any more
            seen = planner.reference(since=entry.since, accounted=entry.accounted, now=instant)
            self._skip_between(entry, seen, instant)

    def _skip_between(self, entry: Entry, after: datetime, until: datetime) -> datetime | None:
        schedule = entry.task.schedule
        following = schedule.next(after)
        if following is None or following > until or (last := schedule.previous(until)) is None:
            return None
        self.skip_unclaimed(entry, last, schedule.count(after, until), "the daemon could not run then")
        return last

    def _new_run(self, entry: Entry, due: datetime, *, dues: int) -> Run:
        self._last_id += 1
        return Run(id=self._last_id, task=entry.task.id, due=due, lap=self._lap, dues=dues, boot=self._boot)

    # Changes of the whole

    def clock_was_set(self, moved: timedelta) -> None:
        """Plan anew by the new time. What a clock set forward has jumped over is simply due now."""
        if moved > timedelta():
            return
        instant = now()
        before = instant - moved
        for entry in self.entries.values():
            self._skip_unseen(entry, before)
        for live in self.not_begun(set(self.entries.values())):
            if self._has_come(live, before):
                self._outlive_its_time(live)
        self._lap += 1
        self._agenda.drop_due_times()
        # An overdue one is not in the agenda.
        for live in {*self._agenda.drop_claimed(), *self._unconfirmed.values()}:
            if live.entry.next is live:
                self.withdraw(live, "the clock was set")
            elif not live.decided:  # its due time has come before, or it was not bound to the clock, like a retry
                live.at, live.overdue = instant, False
                self._agenda.claimed(live)
        for entry in self.entries.values():
            if planner.far_ahead(since=entry.since, accounted=entry.accounted, now=instant):
                self.count_from(entry, instant)
            elif entry.since > instant:
                self.count_from(entry, instant, entry.accounted)
            if entry.next is None:
                self.plan_from(entry, instant)

    def _outlive_its_time(self, live: LiveRun) -> None:
        """Go on with a run whose due time has come by the clock as it was, and may lie ahead now."""
        if live.run.due > now():
            live.run.trigger = Trigger.CATCH_UP  # for the next daemon as well, it has come
            self._history.save(live.run)
        if live.entry.next is live:
            live.entry.next = None
            live.entry.account(live.run.due)

    def count_from(self, entry: Entry, since: datetime, accounted: datetime | None = None) -> None:
        """Due times of a task count from this instant on, for what was recorded of it is from a clock that was ahead.

        What was accounted for is forgotten unless it is given: by a clock that was far ahead, it means nothing.
        """
        entry.since, entry.accounted = since, accounted
        self._history.know(entry.task, entry.position, since, accounted)

    def close(self) -> None:
        """Plan nothing more, and take back what has not begun."""
        self.closed = True
        for live in self.not_begun(set(self.entries.values())):
            self._hand_on(live, "the daemon is about to stop")
        self._agenda.drop_due_times()
        self._agenda.drop_claimed()

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
        if pause := self.pauses.get(SITE):
            return f"The site is {describe_pause(pause)}."
        planned, claimed = self._agenda.next_due(), self._agenda.next_claimed()
        coming = [planned] if planned else []
        if claimed:
            coming.append((claimed.at, claimed.entry))
        if not coming:
            return "Nothing is due."
        instant, entry = min(coming, key=lambda pair: (pair[0], pair[1].position))
        return f"Next: {entry.task.label} at {short_clock(instant)}."


def without_places(task: Task) -> Task:
    """A task without the places in files where it is written: a new line above them is no news."""
    return replace(task, source="", overridden=tuple(text.partition(":")[0] for text in task.overridden))


def is_same_plan(one: Task, other: Task) -> bool:
    """Whether due times of one also count as due times of the other."""
    return one.schedule == other.schedule and one.policies.enabled == other.policies.enabled
