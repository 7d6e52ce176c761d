"""The daemon's loop: load, announce, wait, start what is due, reap what ended, drain.

Single-threaded, without Django, without a line of the site's code. Read `Daemon.run` and `Daemon.turn` first. A due
time goes through these hands:

    plan -> claim (ahead) -> fall due -> decide -> begin -> ended -> plan
"""

from __future__ import annotations

import selectors
import signal
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from ..conf import Settings
from ..launch import Launch
from ..linux import birth, boot_id, processes, uptime
from ..runs import Outcome, Run, Trigger
from ..task import Task
from ..wire import Ended, Loaded, Progress, Visit
from . import planner
from .agenda import Agenda, Capacity, Entry, LiveRun
from .children import end_leftovers
from .clock import Timers, WallClock, monotonic, now
from .control import Control, Guest
from .forkserver import ForkServer, ForkServers
from .history import History, Known, Past, is_durable
from .notify import Notifier
from .output import Line
from .reporter import Reporter, clock
from .signals import Signals
from .workers import Workers

CLAIM_BEFORE = timedelta(seconds=1)  # a due time is claimed this long before, at the latest;
CLAIM_WITHIN = timedelta(seconds=12)  # when the loop is awake anyway, so is what comes within this
TOGETHER = timedelta(seconds=1)  # runs that start within this want a worker each


class Daemon:
    """Runs the tasks of one site."""

    def __init__(self, launch: Launch, history: History, reporter: Reporter, notifier: Notifier, lock: int) -> None:
        self.launch, self.history, self.reporter, self.notifier = launch, history, reporter, notifier
        self.settings = Settings()
        self.selector = selectors.DefaultSelector()
        self.timers = Timers()
        self.wall_clock = WallClock()
        self.signals = Signals()
        self.workers = Workers(self.selector, self.timers, lock, self)
        self.sites = ForkServers(launch, self.selector, self.timers, self)
        self.control = Control(Path(launch.state), self.selector, self)
        self.boot = boot_id()
        self.entries: dict[str, Entry] = {}
        self.agenda = Agenda()
        self.capacity = self._new_capacity()
        self.unconfirmed: dict[int, LiveRun] = {}  # claims that history has not answered yet
        self.waiting: deque[LiveRun] = deque()  # they may begin as soon as there is room and a worker
        self.locks: dict[str, LiveRun | None] = {}  # who holds each lock
        self.live: dict[int, LiveRun] = {}  # runs that have begun
        self.planned_once = False
        self.draining = ""  # why
        self.killed_by = 0  # the signal that asked a second time
        self.exit_code: int | None = None
        self.in_trouble = False

    # The story

    def run(self) -> int:
        """Run tasks until told to stop. Returns the exit code."""
        self.begin()
        while self.exit_code is None:
            self.turn()
        return self.exit_code

    def begin(self) -> None:
        """Look back at what history knows, and have the site loaded."""
        for source, callback in (
            (self.signals, self.on_signals),
            (self.wall_clock, self.wall_clock.acknowledge),
            (self.history, self.on_history),
        ):
            self.selector.register(source, selectors.EVENT_READ, callback)
        self.past = self.history.past()
        self.last_id, self.lap = self.past.last_id, self.past.lap
        if self.past.latest_due is not None and self.past.latest_due > now() + CLAIM_WITHIN:
            self.lap += 1  # the clock was set back while no daemon ran: intervals come by the same due times again
        self.sites.start()

    def turn(self) -> None:
        """One pass: wait, take in what happened, start what is due."""
        self.wait()
        self.watch_clock()
        self.timers.run_due()
        self.claim_ahead()
        self.fall_due()
        self.begin_waiting()
        self.fork_ahead()
        self.drain()
        self.notifier.turn_finished()

    def wait(self) -> None:
        """Sleep until something happens, and let it be handled. The only place where the daemon waits."""
        self.wall_clock.wake_at(self.next_instant())
        for key, _events in self.selector.select(self.patience()):
            # An earlier event of the same turn may have closed this one's source.
            if self.selector.get_map().get(key.fd) is key:
                key.data()

    def next_instant(self) -> datetime | None:
        """When the wall clock has something for us."""
        due, start = self.agenda.next_due_time(), self.agenda.next_start()
        claim = due - CLAIM_BEFORE if due else None
        return min(filter(None, (claim, start)), default=None)

    def patience(self) -> float | None:
        """How long nothing needs to be done by the monotonic clock, in seconds."""
        room = self.capacity.next_room() if self.waiting else None
        limits = (self.timers.next(), self.notifier.next_ping(), room)
        return min((limit for limit in limits if limit is not None), default=None)

    # The site

    def site_loaded(self, server: ForkServer, tasks: list[Task], loaded: Loaded) -> None:
        """The site's tasks are known: plan them, and announce that we are ready."""
        self.use_settings(Settings(**loaded.settings))
        self.workers.server = server
        self.workers.dismiss_old()
        if loaded.threads:
            self.reporter.site_has_threads(loaded.threads)
        if not loaded.uses_linod or not tasks:
            self.reporter.say(
                "This site does not use linod." if not loaded.uses_linod else "This site has no scheduled jobs."
            )
            self.start_draining("nothing to do")
            return
        first = not self.planned_once
        new, gone, changed = self.plan_tasks(tasks)
        if first:
            self.account_for_the_past()
            self.planned_once = True
            self.reporter.site_loaded(len(tasks), self.describe_next())
        else:
            self.reporter.site_changed(new, gone, changed)
        self.notifier.ready()
        self.notifier.status(f"{len(tasks)} tasks. {self.describe_next()}")

    def site_not_loaded(self, reason: str, *, permanent: bool, traceback: str) -> None:
        """It cannot be loaded: give up where a later try would say the same, else go on with what there is."""
        self.reporter.site_not_loaded(reason, "" if permanent else traceback)
        if self.planned_once:
            return
        if permanent:
            self.notifier.failed(reason, 22)
            self.stop_now(78)
        else:
            self.notifier.ready()
            self.notifier.status(f"waiting for the site: {reason}")

    def site_is_gone(self, how: str, pause: float) -> None:
        self.workers.server = None
        if not self.draining:
            self.reporter.site_is_gone(how, pause)

    def site_wrote(self, text: str) -> None:
        self.reporter.site_wrote(text)

    def worker_wrote(self, text: str) -> None:
        self.reporter.site_wrote(text)

    def forked(self, serial: int, pid: int) -> None:
        self.workers.forked(serial, pid)

    def not_forked(self, serial: int, reason: str) -> None:
        self.reporter.not_forked(reason)
        self.workers.not_forked(serial)

    def use_settings(self, settings: Settings) -> None:
        self.settings = self.workers.settings = self.sites.settings = settings
        self.history.settings = settings
        self.reporter.all_runs = settings.log_runs == "all"
        alive = list(self.live.values())
        self.capacity = self._new_capacity()
        for live in alive:
            self.capacity.started(live)

    def _new_capacity(self) -> Capacity:
        s = self.settings
        return Capacity(parallel=s.max_parallel, total=s.max_running, slow_after=s.slow_after)

    # Plan

    def plan_tasks(self, tasks: list[Task]) -> tuple[list[str], list[str], list[str]]:
        """Take over the declared tasks. The labels of those that are new, gone, and changed."""
        new, gone, changed = [], [], []
        declared = {task.id: task for task in tasks}
        for id in [id for id in self.entries if id not in declared]:
            gone.append(self.entries[id].task.label)
            self.release(self.entries.pop(id))
            self.history.forget(id)
        for position, task in enumerate(tasks):
            entry = self.entries.get(task.id)
            if entry is None:
                new.append(task.label)
                self.entries[task.id] = self.new_entry(task, position)
            elif entry.task != task:
                changed.append(task.label)
                self.change_entry(entry, task, position)
        return new, gone, changed

    def new_entry(self, task: Task, position: int) -> Entry:
        known = self.known(task)
        instant = now()
        same = known is not None and known.task is not None and is_same_plan(known.task, task)
        entry = Entry(
            task=task,
            position=position,
            since=known.since if known and same else instant,
            accounted=known.accounted if known and same else None,
        )
        if last := self.past.last_runs.get(task.id):
            entry.last_outcome = last.outcome
        self.history.know(task, position, entry.since, entry.accounted)
        if self.planned_once:
            self.plan_next(entry)
        return entry

    def known(self, task: Task) -> Known | None:
        """What history knows of a task, also under its former name."""
        known = self.past.tasks.get(task.id)
        old = task.policies.renamed_from
        if known is None and old and (known := self.past.tasks.pop(old, None)):
            self.history.rename(old, task.id)
            self.past.tasks[task.id] = known
            if last := self.past.last_runs.pop(old, None):
                self.past.last_runs[task.id] = last
            for run in self.past.unfinished:
                if run.task == old:
                    run.task = task.id
        return known

    def change_entry(self, entry: Entry, task: Task, position: int) -> None:
        """A task is declared otherwise than before; another schedule begins anew."""
        if is_same_plan(entry.task, task):
            entry.task = task
        else:
            self.release(entry)
            entry.task, entry.since, entry.accounted, entry.gone = task, now(), None, False
            self.plan_next(entry)
        self.history.know(task, position, entry.since, entry.accounted)

    def release(self, entry: Entry) -> None:
        """Take back what is planned of a task; what runs goes on."""
        entry.gone = True
        self.timers.cancel(entry.retry)
        if entry.next is not None:
            self.withdraw(entry.next)
        for live in list(entry.waiting):
            self.withdraw(live)

    def plan_next(self, entry: Entry) -> None:
        """Put a task's next due time into the agenda."""
        if self.draining or self.launch.once or entry.gone or not entry.task.policies.enabled:
            return
        if due := planner.next_due(entry.task, accounted=entry.accounted, now=now()):
            self.agenda.plan(due, entry)

    # Claim

    def claim_ahead(self) -> None:
        """Write down that runs will be started, some time before they are due."""
        for due, entry in self.agenda.take_due_times(now() + CLAIM_WITHIN):
            if not entry.gone and entry.next is None:
                entry.next = self.claim(entry, due, at=due, trigger=Trigger.SCHEDULE)

    def claim(
        self, entry: Entry, due: datetime, *, at: datetime, trigger: Trigger, attempt: int = 1, dues: int = 1
    ) -> LiveRun:
        """Claim a run for a due time, to be started at an instant."""
        self.last_id += 1
        run = Run(
            id=self.last_id,
            task=entry.task.id,
            due=due,
            lap=self.lap,
            trigger=trigger,
            attempt=attempt,
            dues=dues,
            boot=self.boot,
        )
        live = LiveRun(run=run, entry=entry, at=at)
        self.unconfirmed[run.id] = live
        self.history.claim(run, durable=is_durable(entry.task))
        self.agenda.claimed(live)
        return live

    def on_history(self) -> None:
        """History says which claims are written."""
        for id, granted in self.history.answers():
            live = self.unconfirmed.pop(id, None)
            if live is None:
                continue
            if granted:
                live.confirmed = True
                if live.at <= now():
                    self.agenda.claimed(live)  # it fell due while we waited for the disk
            else:
                self.reporter.claim_refused(live.task, live.run)
                self.drop(live)
                self.plan_next(live.entry)
        self.report_trouble()

    def report_trouble(self) -> None:
        trouble = self.history.trouble
        if trouble and not self.in_trouble:
            self.reporter.history_trouble(trouble)
        elif self.in_trouble and not trouble:
            self.reporter.history_back()
        self.in_trouble = bool(trouble)

    def withdraw(self, live: LiveRun) -> None:
        """Take a claim back."""
        self.drop(live)
        self.history.withdraw(live.run)

    def drop(self, live: LiveRun) -> None:
        """Forget a run that has not begun."""
        self.unconfirmed.pop(live.run.id, None)
        live.decided = True  # the agenda may still hold it
        if live.entry.next is live:
            live.entry.next = None
        with suppress(ValueError):
            live.entry.waiting.remove(live)
        with suppress(ValueError):
            self.waiting.remove(live)
        self.release_lock(live)

    # Fall due

    def fall_due(self) -> None:
        """Decide about the runs whose instant has come."""
        for live in self.agenda.take_claimed(now()):
            if live.confirmed and not live.decided:
                live.decided = True
                self.decide(live)

    def decide(self, live: LiveRun) -> None:
        """Start a run, let it wait, or skip it."""
        entry = live.entry
        if entry.next is live:
            entry.next = None
            self.timers.cancel(entry.retry)  # a new due time is a new try
            self.skip_overslept(live)
            entry.accounted = max(entry.accounted or live.run.due, live.run.due)
            self.plan_next(entry)
        match planner.decide(live.task, alive=len(entry.alive), waiting=len(entry.waiting)):
            case planner.Start() if live.guest:
                self.begin_guest(live, live.guest)
            case planner.Start():
                entry.waiting.append(live)
                self.waiting.append(live)
            case planner.Skip(reason) if live.guest:
                self.turn_away(live, live.guest, reason)
            case planner.Wait(reason) if live.guest:
                self.turn_away(live, live.guest, reason)
            case planner.Replace() if live.guest:
                self.turn_away(live, live.guest, "the previous run is still going on")
            case planner.Wait():
                entry.waiting.append(live)
            case planner.Replace():
                for older in list(entry.waiting):
                    self.skip(older, "a newer run replaces it")
                entry.waiting.append(live)
                for older in entry.alive:
                    self.end(older, Outcome.CANCELLED, "a newer run replaces it")
                if not entry.alive:
                    self.waiting.append(live)
            case planner.Skip(reason):
                self.skip(live, reason)

    def skip_overslept(self, live: LiveRun) -> None:
        """Account for due times that went by after this one, because the daemon was stopped or the clock jumped."""
        instant = now()
        following = live.task.schedule.next(live.run.due)
        if following is None or following > instant:
            return
        count = live.task.schedule.count(live.run.due, instant)
        last = live.task.schedule.previous(instant)
        if count and last is not None:
            self.record_skip(live.entry, last, count, "the daemon could not run then")

    def skip(self, live: LiveRun, reason: str) -> None:
        """Record that a claimed run will not start."""
        self.drop(live)
        run = live.run
        run.outcome, run.reason, run.ended = Outcome.SKIPPED, reason, now()
        self.history.save(run)
        self.history.account(run.task, run.due)
        self.reporter.run_skipped(live.task, run)

    def record_skip(self, entry: Entry, due: datetime, dues: int, reason: str, *, quietly: bool = False) -> None:
        """Record due times that were never claimed and will not be run."""
        self.last_id += 1
        run = Run(
            id=self.last_id,
            task=entry.task.id,
            due=due,
            lap=self.lap,
            dues=dues,
            boot=self.boot,
            ended=now(),
            outcome=Outcome.SKIPPED,
            reason=reason,
        )
        entry.accounted = max(entry.accounted or due, due)
        self.history.save(run)
        self.history.account(run.task, due)
        if not quietly:
            self.reporter.run_skipped(entry.task, run)

    # Begin

    def begin_waiting(self) -> None:
        """Begin the runs that wait, in their order, as far as there is room."""
        if not self.waiting or self.history.busy():
            return
        room = min(self.capacity.room(), self.workers.idle())
        held: list[LiveRun] = []
        while room and self.waiting:
            live = self.waiting.popleft()
            if self.take_lock(live) and self.begin_run(live):
                room -= 1
            else:
                held.append(live)
        self.waiting.extendleft(reversed(held))

    def begin_run(self, live: LiveRun) -> bool:
        """Hand a run to a worker; False where none is idle."""
        run, entry = live.run, live.entry
        run.started = now()
        self.history.mark_started(run)
        if not self.workers.begin(live):
            run.started = None
            self.history.unmark_started(run)
            return False
        live.began = monotonic()
        live.timeout = self.timers.after(live.task.policies.timeout, lambda: self.time_out(live))
        entry.waiting.remove(live)
        entry.alive.add(live)
        self.live[run.id] = live
        self.capacity.started(live)
        self.history.save(run)
        self.history.account(run.task, run.due)
        self.reporter.run_started(live.task, run)
        return True

    # Guests

    def guest_asks(self, guest: Guest, visit: Visit) -> None:
        """A command wants to run a task itself: it gets a claim like any other run."""
        entry = self.entries.get(visit.task)
        if entry is None:
            guest.refuse("the daemon doesn't know this task; is the site's code newer than what it has loaded?")
        elif self.draining:
            guest.refuse("the daemon is about to stop")
        else:
            guest.live = self.claim(entry, now(), at=now(), trigger=Trigger.MANUAL)
            guest.live.guest = guest

    def begin_guest(self, live: LiveRun, guest: Guest) -> None:
        run = live.run
        if not self.take_lock(live):
            return self.turn_away(live, guest, f"another task holds the lock {live.task.policies.lock!r}")
        run.started, run.pid, run.born, live.began = now(), guest.pid, birth(guest.pid), monotonic()
        self.history.mark_started(run)
        live.entry.alive.add(live)
        self.live[run.id] = live
        self.capacity.started(live)
        self.history.save(run)
        self.reporter.run_started(live.task, run)
        guest.begin(live)

    def turn_away(self, live: LiveRun, guest: Guest, reason: str) -> None:
        self.withdraw(live)
        guest.refuse(reason)

    def take_lock(self, live: LiveRun) -> bool:
        """Take the lock that its task shares with others, if it has one and it is free."""
        name = live.task.policies.lock
        if name is None or self.locks.get(name) is live:
            return True
        if self.locks.get(name) is not None:
            return False
        self.locks[name] = live
        return True

    def release_lock(self, live: LiveRun) -> None:
        name = live.task.policies.lock
        if name is not None and self.locks.get(name) is live:
            del self.locks[name]

    def fork_ahead(self) -> None:
        """See to it that workers are there when they are needed."""
        if self.draining and not self.waiting:
            return
        soon = self.agenda.starting_together(TOGETHER, self.settings.max_parallel)
        wanted = min(len(self.waiting) + soon, self.settings.max_parallel)
        if wanted:
            fresh = sum(live.task.policies.fresh for live in self.waiting)
            self.workers.provide(wanted, min(fresh, self.settings.max_parallel))

    # End

    def time_out(self, live: LiveRun) -> None:
        policies = live.task.policies
        self.end(live, Outcome.TIMED_OUT, f"it took longer than its timeout of {policies.timeout:g} s")

    def end(self, live: LiveRun, verdict: Outcome, reason: str) -> None:
        """Ask a run to end, and see to it that it does."""
        if live.verdict is None:
            self.reporter.run_is_ended(live.task, live.run, reason)
            self.workers.terminate(live, verdict, reason)

    def run_ended(self, live: LiveRun, ended: Ended) -> None:
        """Record how a run ended, and what follows from it."""
        run, entry = live.run, live.entry
        run.ended, run.duration = now(), monotonic() - live.began
        run.outcome = live.verdict or Outcome(ended.outcome)
        run.reason = live.verdict_reason or ended.reason
        run.traceback, run.cpu, run.peak_memory = ended.traceback, ended.cpu, ended.peak_memory or None
        self.timers.cancel(live.timeout)
        self.live.pop(run.id, None)
        entry.alive.discard(live)
        self.capacity.ended(live)
        self.release_lock(live)
        self.history.save(run)
        self.judge(entry, run)
        self.follow_up(entry, run)

    def judge(self, entry: Entry, run: Run) -> None:
        """Keep count of failures, and say how it went."""
        news = run.outcome is not entry.last_outcome and entry.last_outcome is not None
        entry.failures = entry.failures + 1 if run.outcome and run.outcome.bad else 0
        entry.last_outcome = run.outcome
        self.reporter.run_ended(entry.task, run, news=news, failures=entry.failures)

    def follow_up(self, entry: Entry, run: Run) -> None:
        """Let the next run of the task begin that waited for this one, or try again."""
        if entry.waiting and not entry.alive:
            self.waiting.append(entry.waiting[0])
        elif not entry.waiting and (delay := planner.retry_delay(entry.task, run)) is not None:
            self.retry_after(entry, run, delay)

    def retry_after(self, entry: Entry, run: Run, delay: float) -> None:
        if self.draining or entry.gone:
            return
        self.reporter.retrying(entry.task, run, delay)
        entry.retry = self.timers.after(delay, lambda: self.retry(entry, run))

    def retry(self, entry: Entry, run: Run) -> None:
        if not self.draining:
            self.claim(entry, run.due, at=now(), trigger=Trigger.RETRY, attempt=run.attempt + 1, dues=run.dues)

    def run_wrote(self, live: LiveRun, lines: list[Line]) -> None:
        self.reporter.run_wrote(live.task, live.run, lines)

    def run_hidden(self, live: LiveRun, size: int) -> None:
        self.reporter.run_hidden(live.task, live.run, size)

    def run_progressed(self, live: LiveRun, progress: Progress) -> None:
        of = f" of {progress.total:g}" if progress.total is not None else ""
        live.progress = f"{progress.done:g}{of} {progress.text}".strip()

    # The past

    def account_for_the_past(self) -> None:
        """Deal with what happened, or didn't, while no daemon ran."""
        lost = [run for run in self.past.unfinished if self.is_lost(run)]
        for run in self.past.unfinished:
            if run not in lost:
                self.history.withdraw(run)  # never begun: its due time is still to be accounted for
        self.bury(lost)
        rerun = {run.task for run in lost if self.rerun(run)}
        for id in self.past.tasks.keys() - self.entries.keys():
            self.history.forget(id)
        for entry in self.entries.values():
            if not entry.task.policies.enabled:
                continue
            caught_up = self.catch_up(entry)
            if not caught_up and entry.task.id not in rerun:
                self.resume_retry(entry)
            self.plan_next(entry)
        self.past = Past()

    def is_lost(self, run: Run) -> bool:
        """Whether a run without an end had begun. A claim of another boot may have: its mark is worth nothing."""
        return run.started is not None or run.boot != self.boot or self.history.started_for_sure(run)

    def bury(self, lost: Iterable[Run]) -> None:
        """Record runs whose end nobody saw, and end what is left of them."""
        pids = processes() if lost else []
        for run in lost:
            restarted = run.boot != self.boot
            if run.pid and not restarted:
                end_leftovers(run.pid, run.born, pids)
            run.outcome = Outcome.LOST
            run.reason = "the host was restarted" if restarted else "the daemon died while it was running"
            self.history.save(run)
            self.history.account(run.task, run.due)
            entry = self.entries.get(run.task)
            if entry:
                entry.accounted = max(entry.accounted or run.due, run.due)
                entry.failures += 1
                entry.last_outcome = Outcome.LOST
            self.reporter.run_lost(entry.task if entry else None, run)

    def rerun(self, run: Run) -> bool:
        """Run a lost run again, once, if its task is safe to repeat."""
        entry = self.entries.get(run.task)
        if entry is None or not entry.task.policies.rerun_lost or run.trigger is Trigger.RERUN:
            return False
        self.claim(entry, run.due, at=now(), trigger=Trigger.RERUN, attempt=run.attempt + 1, dues=run.dues)
        return True

    def catch_up(self, entry: Entry) -> bool:
        """Run, or record as skipped, the due times that passed since the task was last seen to."""
        instant = now()
        if entry.accounted is not None and entry.accounted > instant + planner.FORGIVEN:
            self.reporter.record_from_the_future(entry.task, entry.accounted)
        after = planner.reference(since=entry.since, accounted=entry.accounted, now=instant)
        plan = planner.catch_up(entry.task, after, instant, resident=not self.launch.once)
        if plan.skipped and plan.last_skipped is not None:
            self.record_skip(entry, plan.last_skipped, plan.skipped, plan.reason, quietly=plan.matters_little)
        at = instant + timedelta(seconds=planner.delay_after_boot(entry.task, uptime()))
        for due, dues in plan.runs:
            live = self.claim(entry, due, at=at, trigger=Trigger.CATCH_UP, dues=dues)
            entry.accounted = max(entry.accounted or due, due)
            self.reporter.catching_up(entry.task, live.run)
        return bool(plan.runs)

    def resume_retry(self, entry: Entry) -> None:
        """Go on with the retries of a run that went wrong before the daemon was stopped."""
        last = self.past.last_runs.get(entry.task.id)
        if last is None or last.ended is None or (delay := planner.retry_delay(entry.task, last)) is None:
            return
        passed = (now() - last.ended).total_seconds()
        self.retry_after(entry, last, min(max(0.0, delay - passed), delay))

    # The clock

    def watch_clock(self) -> None:
        """After the clock was set, plan everything anew."""
        moved = self.wall_clock.jump()
        if moved is None:
            return
        self.reporter.clock_was_set(moved)
        if moved < timedelta():
            self.lap += 1
        self.agenda.drop_due_times()
        for live in self.agenda.drop_claimed():
            if live.entry.next is live:
                self.withdraw_if_ahead(live)
            elif not live.decided:
                live.at = min(live.at, now())
                self.agenda.claimed(live)
        for entry in self.entries.values():
            if entry.next is None:
                self.plan_next(entry)

    def withdraw_if_ahead(self, live: LiveRun) -> None:
        """A due time that the clock has jumped over is still to be run; one that is ahead is planned anew."""
        if live.at <= now():
            self.agenda.claimed(live)
        else:
            self.withdraw(live)

    # The end

    def on_signals(self) -> None:
        """Do what signals ask for."""
        for number in self.signals.take():
            if number == signal.SIGCHLD:
                self.workers.reap(self.sites.ended)
            elif number == signal.SIGHUP and not self.launch.terminal:
                self.sites.load()
            elif self.draining:
                self.kill_everything(number)
            else:
                self.start_draining(signal.Signals(number).name)

    def start_draining(self, why: str) -> None:
        """Start nothing more; let what runs end."""
        self.draining = why
        if why.startswith("SIG"):
            self.reporter.draining(why, len(self.live))
        self.notifier.stopping()
        self.agenda.drop_due_times()
        for live in [*self.agenda.drop_claimed(), *self.waiting, *self.unconfirmed.values()]:
            if live.run.started is None and live.run.outcome is None:
                self.withdraw(live)
        for entry in self.entries.values():
            self.release(entry)
        self.workers.dismiss_idle()
        self.sites.stop()
        self.timers.after(self.settings.drain_timeout, self.stop_waiting)

    def stop_waiting(self) -> None:
        """The drain has lasted long enough: ask what still runs to end, then see to it."""
        for live in list(self.live.values()):
            if live.guest is None:
                self.end(live, Outcome.CANCELLED, "the daemon stops")
        self.control.close()

    def kill_everything(self, number: int) -> None:
        """Asked a second time: end at once."""
        self.reporter.killing(len(self.live))
        self.control.close()
        for live in list(self.live.values()):
            self.workers.kill(live, Outcome.CANCELLED, "the daemon was told twice to stop")
        self.workers.kill_all()
        self.killed_by = number

    def drain(self) -> None:
        """See whether all has ended."""
        if self.launch.once and self.planned_once and not self.draining and self.nothing_left():
            self.start_draining("all is done")
        if self.draining and not self.live and not len(self.workers) and not len(self.sites):
            self.stop_now(128 + self.killed_by if self.killed_by else 0)

    def nothing_left(self) -> bool:
        return not (self.live or self.waiting or self.unconfirmed or self.agenda.next_start())

    def stop_now(self, exit_code: int) -> None:
        self.control.close()
        self.exit_code = exit_code

    # What to say

    def describe_next(self) -> str:
        """When something happens next, in words."""
        upcoming = [(due, entry) for entry in self.entries.values() if (due := self.next_of(entry))]
        if not upcoming:
            return "Nothing is due."
        due, entry = min(upcoming, key=lambda pair: (pair[0], pair[1].position))
        return f"Next: {entry.task.label} at {clock(due)}."

    def next_of(self, entry: Entry) -> datetime | None:
        if not entry.task.policies.enabled:
            return None
        return entry.next.run.due if entry.next else entry.task.schedule.next(now())


def is_same_plan(one: Task, other: Task) -> bool:
    """Whether due times of one also count as due times of the other."""
    return one.schedule == other.schedule and one.policies.enabled == other.policies.enabled
