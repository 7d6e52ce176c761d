"""The runs that are due or going on: decided about, handed to a worker, ended, followed up.

decide -> begin_waiting -> (a worker runs it) -> run_ended -> follow_up
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from ..archive import PauseRecord
from ..conf import Settings
from ..linux import birth
from ..runs import Outcome, Run, Trigger
from ..wire import Accepted, Begin, Ended, Progress, Visit
from ..words import count
from . import planner
from .agenda import Capacity, Entry, LiveRun
from .alerting import Alerting
from .clock import Timers, monotonic, now
from .control import Caller
from .history import History
from .output import Line
from .past import Past
from .pauses import make_pause
from .plan import Plan
from .reporter import Reporter
from .workers import Workers

FORK_BEFORE = timedelta(seconds=1)  # a worker is there this long before it is needed
GONE = "the command that ran it and the daemon lost sight of each other"
LEFT_BEHIND = "no signal could end it, and the daemon was stopped"


class Running:
    """All runs of a site between their due time and their end."""

    def __init__(self, plan: Plan, history: History, timers: Timers, reporter: Reporter, alerting: Alerting) -> None:
        self.live: dict[int, LiveRun] = {}  # those that have begun
        self.waiting: deque[LiveRun] = deque()  # those that may begin as soon as there is room and a worker
        self.workers: Workers  # it tells us of ends, so each needs the other
        self._plan, self._history, self._timers, self._reporter = plan, history, timers, reporter
        self._alerting = alerting
        alerting.why_it_waits = self._why_it_waits
        self._locks: dict[str, LiveRun] = {}  # who holds each lock
        self.closing = False
        self.use(Settings())

    def use(self, settings: Settings) -> None:
        """Go on with other limits."""
        self._parallel, self._pause_after = settings.max_parallel, settings.pause_after
        self._capacity = Capacity(
            parallel=settings.max_parallel, total=settings.max_running, slow_after=settings.slow_after
        )
        for live in self.live.values():
            self._capacity.started(live)

    def resume(self, past: Past) -> None:
        """Go on counting where the last daemon stopped."""
        for id, streak in sorted(past.streaks.items(), key=lambda pair: past.last_runs[pair[0]].id):
            if entry := self._plan.entries.get(id):
                entry.failures, entry.failing_since = streak.count, streak.since
                self._reporter.task_was_failing(entry.task, past.last_runs[id], streak.count, streak.since)

    # Asked for

    def run_now(self, entry: Entry, asker: Caller) -> LiveRun | str:
        """Have a task run now for somebody who listens; or the reason why not."""
        decision = planner.decide(
            entry.task, alive=len(entry.alive), waiting=len(entry.waiting), trigger=Trigger.MANUAL
        )
        match decision:
            case planner.Skip(reason):
                return reason
            case planner.Wait(reason):
                waits_for = reason
            case _:
                waits_for = self._what_is_in_the_way(entry)
        live = self._plan.claim(entry, now(), at=now(), trigger=Trigger.MANUAL)
        live.asker, asker.hears = asker, live
        asker.tell(Accepted(run=live.run.id, task=entry.task.id, waits_for=waits_for))
        return live

    def _what_is_in_the_way(self, entry: Entry) -> str:
        lock = entry.task.policies.lock
        if lock is not None and lock in self._locks:
            return f"{self._locks[lock].task.label} holds the lock {lock!r}"
        if not self._capacity.room():
            return f"{self._capacity.alive} runs are going on already"
        return ""

    def _why_it_waits(self, live: LiveRun) -> str:
        if not may_begin(live):
            return "its previous run is still going on"
        return self._what_is_in_the_way(live.entry) or "there is no worker that could run it"

    # Due

    def decide(self, live: LiveRun) -> None:
        """Let a run that is due begin, wait, or be skipped."""
        entry = live.entry
        if live.run.trigger is Trigger.SCHEDULE:
            self._timers.cancel(entry.retry)  # a new due time is a new try
        decision = planner.decide(
            live.task, alive=len(entry.alive), waiting=len(entry.waiting), trigger=live.run.trigger
        )
        if live.guest is not None:
            return self._decide_about_guest(live, live.guest, decision)
        match decision:
            case planner.Start():
                entry.waiting.append(live)
                self.waiting.append(live)
            case planner.Wait():
                entry.waiting.append(live)
            case planner.Replace():
                self._replace(live)
            case planner.Skip(reason) if live.run.trigger is Trigger.MANUAL:
                self._plan.withdraw(live, reason)  # whoever asked for it is told, and nothing was missed
            case planner.Skip(reason):
                self._plan.skip(live, reason)
        if not live.dropped:
            self._alerting.waits(live)

    def _replace(self, live: LiveRun) -> None:
        """End the previous run; this one begins when it has ended, or in the place of one that has not begun.

        At the end of a long queue it would be replaced itself before it comes to the front, and so would all others.
        """
        entry = live.entry
        place = next((self.waiting.index(older) for older in entry.waiting if older in self.waiting), None)
        for older in list(entry.waiting):
            self._plan.skip(older, "a newer run replaces it")
        entry.waiting.append(live)
        for older in entry.alive:
            self.end(older, Outcome.CANCELLED, "a newer run replaces it")
        if entry.alive:
            return
        if place is None:
            self.waiting.append(live)
        else:
            self.waiting[place] = live

    # Begin

    def begin_waiting(self) -> None:
        """Begin the runs that wait, in their order, as far as there is room."""
        if not self.waiting or self._history.busy():
            return
        room = min(self._capacity.room(), self.workers.idle())
        held: list[LiveRun] = []
        while room and self.waiting:
            live = self.waiting.popleft()
            if live.dropped:
                continue
            if may_begin(live) and self._take_lock(live) and self._begin(live):
                room -= 1
            else:
                held.append(live)
        self.waiting.extendleft(reversed(held))

    def _begin(self, live: LiveRun) -> bool:
        """Hand a run to a worker; False where none fits."""
        live.run.started = now()
        self._history.mark_started(live.run)
        if not self.workers.begin(live):
            live.run.started = None
            self._history.unmark_started(live.run)
            self._release_lock(live)
            return False
        live.timeout = self._timers.after(live.task.policies.timeout, lambda: self._time_out(live))
        live.entry.waiting.remove(live)
        self._has_begun(live)
        return True

    def _has_begun(self, live: LiveRun) -> None:
        live.began = monotonic()
        live.entry.alive.add(live)
        self.live[live.run.id] = live
        self._capacity.started(live)
        self._plan.account(live.entry, live.run)
        self._reporter.run_started(live.task, live.run)
        self._alerting.began(live)
        for caller in filter(None, (live.guest, live.asker)):
            caller.tell(Begin(run=live.run.id, task=live.task.id))

    def _take_lock(self, live: LiveRun) -> bool:
        """Take the lock that its task shares with others, if it has one and it is free."""
        name = live.task.policies.lock
        return name is None or self._locks.setdefault(name, live) is live

    def _release_lock(self, live: LiveRun) -> None:
        # By its holder: the task may have been given another lock while it ran.
        for name in [name for name, holder in self._locks.items() if holder is live]:
            del self._locks[name]

    def fork_ahead(self) -> None:
        """See to it that workers are there when they are needed."""
        if self.closing:
            return
        start = self._plan.next_start()
        soon = start is not None and start - now() <= FORK_BEFORE
        wanted = len(self.waiting) + (self._plan.starting_together(self._parallel) if soon else 0)
        wanted = min(wanted, self._parallel)
        if wanted:
            # Only of those that can begin next: thousands may wait, and this is asked in each turn.
            fresh = sum(live.task.policies.fresh for live in islice(self.waiting, wanted))
            self.workers.provide(wanted, fresh)

    def next_fork(self) -> datetime | None:
        """When a worker must be forked for the next start; None where one is there already."""
        start = self._plan.next_start()
        if start is None or self.workers.available() or self.closing:
            return None
        ahead = start - FORK_BEFORE
        return ahead if ahead > now() else None

    def next_room(self) -> float | None:
        """Seconds until a run that waits may begin because another one has become old."""
        return self._capacity.next_room() if self.waiting else None

    # End

    def end(self, live: LiveRun, verdict: Outcome, reason: str) -> None:
        """Ask a run to end, and see to it that it does."""
        if live.verdict is None and live.guest is None:
            self._reporter.run_is_ended(live.task, live.run, reason)
            self.workers.terminate(live, verdict, reason)
            self._alerting.is_told_to_end(live)

    def _time_out(self, live: LiveRun) -> None:
        if not self.workers.has_ended(live):
            limit = live.task.policies.timeout
            self.end(live, Outcome.TIMED_OUT, f"it took longer than its timeout of {limit:g} s")

    def run_ended(self, live: LiveRun, ended: Ended) -> None:
        """Record how a run ended, and what follows from it."""
        run, entry = live.run, live.entry
        run.ended, run.duration = now(), monotonic() - live.began
        run.outcome = live.verdict or Outcome(ended.outcome)
        run.reason = live.verdict_reason or ended.reason
        run.traceback, run.cpu, run.peak_memory = ended.traceback, ended.cpu, ended.peak_memory or None
        self._timers.cancel(live.timeout)
        self.live.pop(run.id, None)
        entry.alive.discard(live)
        self._capacity.ended(live)
        self._release_lock(live)
        self._history.save(run)
        if live.asker is not None:
            live.asker.run_ended(run)
        self._judge(entry, run)
        self._alerting.ended(live)
        self._give_up(entry, run)
        self._follow_up(entry, run)

    def _judge(self, entry: Entry, run: Run) -> None:
        """Keep count of failures, and say how it went."""
        news = entry.last_outcome is not None and (run.outcome, run.reason) != (entry.last_outcome, entry.last_reason)
        if run.outcome is Outcome.SUCCEEDED:
            entry.failures, entry.failing_since = 0, None
        elif run.outcome and run.outcome.bad:  # that one was cancelled says nothing about the task
            entry.failures += 1
            entry.failing_since = entry.failing_since or run.started
        entry.last_outcome, entry.last_reason = run.outcome, run.reason
        self._reporter.run_ended(entry.task, run, news=news, failures=entry.failures, since=entry.failing_since)

    def _give_up(self, entry: Entry, run: Run) -> None:
        """Pause a task that has gone wrong so often in a row that the site wants it left alone."""
        if not self._pause_after or entry.failures < self._pause_after or not self._plan.runs_by_itself(entry):
            return
        reason = f"it has failed {count(entry.failures, 'time')} in a row: {run.reason}"
        pause = make_pause(None, task=entry.task.id, reason=reason, by="linod", now=now())
        self.pause(pause)
        self._reporter.paused(entry.task.label, entry.task, pause)
        self._alerting.gave_up(entry, run, reason)

    def _follow_up(self, entry: Entry, run: Run) -> None:
        """Let the next run of the task begin that waited for this one, or try again."""
        if entry.waiting:
            self._let_next_begin(entry)
        elif (delay := planner.retry_delay(entry.task, run)) is not None:
            self.retry_after(entry, run, delay)

    def _let_next_begin(self, entry: Entry) -> None:
        """The run that was in the way of those which wait has ended, or will not begin."""
        if entry.waiting and may_begin(entry.waiting[0]) and entry.waiting[0] not in self.waiting:
            self.waiting.append(entry.waiting[0])

    def retry_after(self, entry: Entry, run: Run, delay: float) -> None:
        """Try a run again in so many seconds."""
        if not self.closing and self._plan.runs_by_itself(entry):
            self._reporter.retrying(entry.task, run, delay)
            entry.retry = self._timers.after(delay, lambda: self._retry(entry, run))

    def _retry(self, entry: Entry, run: Run) -> None:
        if not self.closing and self._plan.runs_by_itself(entry):
            self._plan.again(entry, run, Trigger.RETRY)

    # What a person doesn't want

    def cancel(self, live: LiveRun, reason: str) -> None:
        """Let a run that has not begun not begin."""
        self._plan.cancel(live, reason)
        self._let_next_begin(live.entry)

    def pause(self, pause: PauseRecord) -> None:
        """Begin no more runs of a task, or of the whole site, unless a person asks for them; what runs goes on."""
        for entry in self._plan.pause(pause):
            self._timers.cancel(entry.retry)
            self._let_next_begin(entry)

    # All

    def close(self) -> None:
        """Begin nothing more; what runs goes on."""
        self.closing = True
        self.waiting.clear()
        self.workers.dismiss_idle()

    def end_all(self, reason: str) -> None:
        for live in list(self.live.values()):
            self.end(live, Outcome.CANCELLED, reason)

    def kill_all(self, reason: str) -> None:
        for live in list(self.live.values()):
            self.workers.kill(live, Outcome.CANCELLED, reason)
        self.workers.kill_all()

    def awaited(self) -> bool:
        """Whether runs go on whose end will come."""
        return any(live.worker is None or not live.worker.defies_signals() for live in self.live.values())

    def leave_behind(self) -> None:
        """The daemon leaves before the runs that no signal ends: the next one will find them without an end."""
        for live in self.live.values():
            live.run.reason = LEFT_BEHIND
            self._history.save(live.run)
            self._reporter.run_is_left_behind(live.task, live.run)

    def is_empty(self) -> bool:
        return not self.live and not self.waiting

    # What runs say

    def run_wrote(self, live: LiveRun, lines: list[Line]) -> None:
        self._reporter.run_wrote(live.task, live.run, lines)
        if live.asker is not None:
            live.asker.run_wrote(live.run.id, "".join(f"{line}\n" for line in lines))

    def run_hidden(self, live: LiveRun, size: int) -> None:
        self._reporter.run_hidden(live.task, live.run, size)
        if live.asker is not None:
            live.asker.run_wrote(live.run.id, f"[{size:,} more bytes; history keeps the last part]\n")

    def run_progressed(self, live: LiveRun, progress: Progress) -> None:
        of = f" of {progress.total:g}" if progress.total is not None else ""
        live.progress = f"{progress.done:g}{of} {progress.text}".strip()
        if live.asker is not None:
            live.asker.run_progressed(replace(progress, run=live.run.id))

    def worker_wrote(self, text: str) -> None:
        self._reporter.site_wrote(text)

    def no_worker(self, reason: str) -> None:
        self._reporter.not_forked(reason)

    # Guests: processes that run a task themselves

    def guest_asks(self, guest: Caller, visit: Visit) -> None:
        """A command wants to run a task itself: it gets a claim like any other run."""
        entry = self._plan.entries.get(visit.task)
        if entry is None:
            guest.refuse("the daemon doesn't know this task; is the site's code newer than what it has loaded?")
        elif self.closing:
            guest.refuse("the daemon is about to stop")
        else:
            guest.runs = self._plan.claim(entry, now(), at=now(), trigger=Trigger.MANUAL)
            guest.runs.guest = guest

    def guest_left(self, live: LiveRun) -> None:
        """It is gone before it has told how its run ended."""
        if live.began:
            self.run_ended(live, Ended(run=live.run.id, outcome=Outcome.CRASHED, reason=GONE))
        else:
            live.guest = None
            self._plan.withdraw(live, GONE)

    def _decide_about_guest(self, live: LiveRun, guest: Caller, decision: planner.Decision) -> None:
        """A person is told at once rather than made to wait."""
        match decision:
            case planner.Start() if self._take_lock(live):
                live.run.started, live.run.pid, live.run.born = now(), guest.pid, birth(guest.pid)
                self._history.mark_started(live.run)
                self._has_begun(live)
            case planner.Start():
                self._plan.withdraw(live, f"another task holds the lock {live.task.policies.lock!r}")
            case planner.Skip(reason) | planner.Wait(reason):
                self._plan.withdraw(live, reason)
            case planner.Replace():
                self._plan.withdraw(live, "the previous run is still going on")


def may_begin(live: LiveRun) -> bool:
    """Whether no other run of its task is in the way: some may wait together that its task does not allow any more."""
    return not live.entry.alive or live.task.policies.overlap == "allow"
