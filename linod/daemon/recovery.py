"""At the start: deal with what happened, or didn't, while no daemon ran."""

from __future__ import annotations

from datetime import timedelta

from ..linux import processes, uptime
from ..runs import Outcome, Run, Trigger
from . import planner
from .agenda import Entry
from .children import end_leftovers
from .clock import now
from .history import History
from .past import Past
from .plan import Plan
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
        rerun = self._settle_unfinished()
        for entry in self._plan.entries.values():
            if not self._plan.runs_by_itself(entry):
                continue
            if not self._catch_up(entry) and entry.task.id not in rerun:
                self._resume_retry(entry)
            self._plan.plan_next(entry)

    def _settle_unfinished(self) -> set[str]:
        """Settle the runs without an end. The tasks of those that are run again."""
        rerun = set()
        pids = processes() if self._past.unfinished else []
        for run in self._past.unfinished:
            entry = self._plan.entries.get(run.task)
            if not self._had_begun(run):
                self._history.withdraw(run)  # its due time is still to be accounted for
                if entry and run.trigger is Trigger.RERUN and self._plan.runs_by_itself(entry):
                    self._plan.claim(
                        entry, run.due, at=now(), trigger=Trigger.RERUN, attempt=run.attempt, dues=run.dues
                    )
                    rerun.add(run.task)
                continue
            self._bury(run, pids)
            if entry and planner.wants_rerun(entry.task, run) and self._plan.runs_by_itself(entry):
                self._plan.again(entry, run, Trigger.RERUN)
                rerun.add(run.task)
        return rerun

    def _had_begun(self, run: Run) -> bool:
        """A claim of another boot may have: its mark is worth nothing."""
        return run.started is not None or run.boot != self._boot or self._history.started_for_sure(run)

    def _bury(self, run: Run, pids: list[int]) -> None:
        """Record a run whose end nobody saw, and end what is left of it."""
        restarted = run.boot != self._boot
        if run.pid and not restarted:
            end_leftovers(run.pid, run.born, pids)
        run.outcome = Outcome.LOST
        run.reason = "the host was restarted" if restarted else "the daemon died while it was running"
        self._history.save(run)
        entry = self._plan.entries.get(run.task)
        if entry is not None:
            entry.failures += 1
            entry.last_outcome, entry.last_reason = Outcome.LOST, run.reason
            if run.trigger is not Trigger.MANUAL:
                entry.accounted = max(entry.accounted or run.due, run.due)
                self._history.account(run.task, run.due)
        self._reporter.run_lost(entry.task if entry else None, run)

    def _catch_up(self, entry: Entry) -> bool:
        """Run, or record as skipped, the due times that passed since the task was last seen to."""
        instant = now()
        after = planner.reference(since=entry.since, accounted=entry.accounted, now=instant)
        if latest := planner.far_ahead(since=entry.since, accounted=entry.accounted, now=instant):
            self._reporter.record_from_the_future(entry.task, latest)
            self._plan.count_from(entry, after)
        missed = planner.catch_up(entry.task, after, instant, resident=not self._once)
        if missed.skipped and missed.last_skipped is not None:
            self._plan.skip_unclaimed(
                entry, missed.last_skipped, missed.skipped, missed.reason, quietly=missed.matters_little
            )
        at = instant + timedelta(seconds=planner.delay_after_boot(entry.task, uptime()))
        for due, dues in missed.runs:
            live = self._plan.claim(entry, due, at=at, trigger=Trigger.CATCH_UP, dues=dues)
            self._reporter.catching_up(entry.task, live.run)
            entry.accounted = max(entry.accounted or due, due)
        return bool(missed.runs)

    def _resume_retry(self, entry: Entry) -> None:
        """Go on with the retries of a run that went wrong before the daemon was stopped."""
        last = self._past.last_runs.get(entry.task.id)
        if last and (delay := planner.resumed_retry(entry.task, last, since=entry.since, now=now())) is not None:
            self._running.retry_after(entry, last, delay)
