"""At the start: deal with what happened, or didn't, while no daemon ran."""

from __future__ import annotations

from datetime import datetime, timedelta

from ..linux import processes, uptime
from ..runs import Outcome, Run, Trigger
from . import planner
from .agenda import Entry
from .children import end_leftovers
from .clock import now
from .history import History
from .past import Past
from .plan import HANDED_ON, Plan
from .reporter import Reporter
from .running import Running


class Recovery:
    """Accounts for the past, once, when the tasks are known."""

    def __init__(
        self, past: Past, plan: Plan, running: Running, history: History, reporter: Reporter, boot: str, *, once: bool
    ) -> None:
        self._past, self._plan, self._running = past, plan, running
        self._history, self._reporter, self._boot, self._once = history, reporter, boot, once

    def account(self) -> None:
        """Bury lost runs, catch up missed due times, resume retries, then plan the future."""
        for id in self._past.tasks.keys() - self._plan.entries.keys():
            self._history.forget(id)
        taken_up = self._settle_unfinished()
        for entry in self._plan.entries.values():
            if not self._plan.runs_by_itself(entry):
                continue
            instant = now()
            if not self._catch_up(entry, instant) and entry.task.id not in taken_up:
                self._resume_retry(entry)
            self._plan.plan_from(entry, instant)

    def _settle_unfinished(self) -> set[str]:
        """Settle the runs without an end. The tasks of those that are run after all, or again."""
        begun, not_begun = list[Run](), list[Run]()
        for run in self._past.unfinished:
            (begun if self._had_begun(run) else not_begun).append(run)
        pids = processes() if begun else []
        for run in begun:
            self._bury(run, pids)
        for run in not_begun:
            self._note_what_lies_ahead(run)
        # These come last: one that began may have passed them over.
        return {run.task for run in begun if self._repeat(run)} | {run.task for run in not_begun if self._take_up(run)}

    def _repeat(self, run: Run) -> bool:
        """Run a lost one again, if its task allows that. False if it is not."""
        entry = self._plan.entries.get(run.task)
        if not entry or not planner.wants_rerun(entry.task, run) or not self._plan.runs_by_itself(entry):
            return False
        if self._past.was_started_since(run.task):
            return False  # it may be its repetition that was started
        self._plan.again(entry, run, Trigger.RERUN)
        return True

    def _had_begun(self, run: Run) -> bool:
        """A claim of another boot may have: its mark may be gone. One that was handed on has only if it is marked."""
        if run.started is not None or self._history.is_marked(run):
            return True
        return run.boot != HANDED_ON and (run.boot != self._boot or self._history.started_for_sure(run))

    def _take_up(self, run: Run) -> bool:
        """See to a claim that has not begun: run it, if nothing else would see to its due time. False if it is not."""
        entry, instant = self._plan.entries.get(run.task), now()
        if entry and run.trigger is Trigger.RERUN and self._plan.runs_by_itself(entry):
            self._plan.claim_again(entry, run, at=instant)
            return True
        if not entry and planner.has_come(run, instant):
            self._skip_of_gone(run, instant)
            return False
        if not entry or not planner.has_come(run, instant) or self._is_caught_up(entry, run):
            self._history.withdraw(run)
            return False
        if reason := self._why_not(entry, run, instant):
            quietly = planner.goes_on(entry.task, resident=not self._once)
            self._plan.skip_left(entry, run, reason, quietly=quietly)
            return False
        run.trigger = Trigger.CATCH_UP
        live = self._plan.claim_again(entry, run, at=self._catch_up_at(entry, instant))
        self._reporter.catching_up(entry.task, live.run)
        return True

    def _skip_of_gone(self, run: Run, instant: datetime) -> None:
        run.outcome, run.reason, run.ended = Outcome.SKIPPED, "its task is declared no more", instant
        self._history.save(run)
        self._reporter.run_skipped(None, run)

    def _note_what_lies_ahead(self, run: Run) -> None:
        """A due time that came before the clock was set back is seen to, and what was missed before it is no more."""
        entry, instant = self._plan.entries.get(run.task), now()
        if entry and planner.was_passed_over(entry.task, run, accounted=entry.accounted, now=instant):
            run.trigger = Trigger.CATCH_UP
        elif entry and run.due > instant and planner.has_come(run, instant) and planner.sees_to(run, instant):
            entry.account(run.due)

    def _is_caught_up(self, entry: Entry, run: Run) -> bool:
        """Whether its due time is among those that count as missed: no later one was seen to while this one waited."""
        counts_from = max(entry.since, entry.accounted or entry.since)
        return counts_from < run.due <= now() and self._plan.runs_by_itself(entry)

    def _why_not(self, entry: Entry, run: Run, instant: datetime) -> str:
        if run.due <= entry.since:
            return "its task was paused or declared otherwise meanwhile"
        if self._plan.pause_of(entry):
            return "its task is paused"
        return planner.not_caught_up(entry.task, run.due, instant, resident=not self._once)

    def _bury(self, run: Run, pids: list[int]) -> None:
        """Record a run whose end nobody saw, and end what is left of it."""
        restarted = run.boot != self._boot
        if run.pid and not restarted:
            end_leftovers(run.pid, run.born, pids)
        run.outcome = Outcome.LOST
        died = "the host was restarted" if restarted else "the daemon died while it was running"
        run.reason = run.reason or died
        self._history.save(run)
        if (last := self._past.last_runs.get(run.task)) and last.id < run.id:
            self._past.forget_last_run(run.task)
        entry = self._plan.entries.get(run.task)
        if entry is not None:
            entry.failures += 1
            entry.last_outcome, entry.last_reason = Outcome.LOST, run.reason
            if planner.is_due_time(entry.task, run.due):
                self._plan.account(entry, run)
        self._reporter.run_lost(entry.task if entry else None, run)

    def _catch_up(self, entry: Entry, instant: datetime) -> bool:
        """Run, or record as skipped, the due times that passed until an instant since the task was last seen to."""
        after = planner.reference(since=entry.since, accounted=entry.accounted, now=instant)
        if latest := planner.far_ahead(since=entry.since, accounted=entry.accounted, now=instant):
            self._reporter.record_from_the_future(entry.task, latest)
            self._plan.count_from(entry, after)
        elif entry.since > instant:
            self._plan.count_from(entry, instant, entry.accounted)
        missed = planner.catch_up(entry.task, after, instant, resident=not self._once)
        if missed.skipped and missed.last_skipped is not None:
            self._plan.skip_unclaimed(
                entry, missed.last_skipped, missed.skipped, missed.reason, quietly=missed.matters_little
            )
        at = self._catch_up_at(entry, instant)
        for due, dues in missed.runs:
            live = self._plan.claim(entry, due, at=at, trigger=Trigger.CATCH_UP, dues=dues)
            self._reporter.catching_up(entry.task, live.run)
            entry.account(due)
        return bool(missed.runs)

    def _catch_up_at(self, entry: Entry, instant: datetime) -> datetime:
        return instant + timedelta(seconds=planner.delay_after_boot(entry.task, uptime()))

    def _resume_retry(self, entry: Entry) -> None:
        """Go on with the retries of a run that went wrong before the daemon was stopped."""
        last = self._past.last_runs.get(entry.task.id)
        if last and (delay := planner.resumed_retry(entry.task, last, since=entry.since, now=now())) is not None:
            self._running.retry_after(entry, last, delay)
