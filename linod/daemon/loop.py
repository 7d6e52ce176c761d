"""The daemon's loop: load, announce, wait, start what is due, reap what ended, drain.

Single-threaded, without Django, without a line of the site's code. Read `Daemon.run` and `Daemon.turn` first. What is
due when is told in plan.py, what becomes of a run in running.py, what a new daemon does about the past in recovery.py,
and what becomes of the site's code in loading.py.
"""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
from datetime import datetime
from pathlib import Path

from ..alert import memory as alert
from ..conf import Settings
from ..launch import Launch, clean_environment
from ..linux import boot_id
from ..task import Policies, Task
from ..wire import Loaded
from .alerting import Alerting
from .anew import tell_all
from .answers import Answers
from .clock import Timer, Timers, WallClock, monotonic, now
from .control import Control
from .history import History
from .loading import Loading
from .notify import Notifier
from .plan import Plan
from .recovery import Recovery
from .reporter import Reporter, short_clock
from .running import Running
from .signals import Signals
from .status import StatusLine, describe
from .teller import FAREWELL, ONCE_FAREWELL
from .workers import Workers

# Seconds. Whoever stops a whole process group often signals its leader too: that is one wish, not two.
ONE_WISH = 0.2
STEADY_AFTER = 30.0  # seconds that a site must have run before people are told that it is back
LAST_WORDS = 10.0  # seconds that history gets at the end of a drain, before systemd kills us


class Daemon:
    """Runs the tasks of one site."""

    def __init__(self, launch: Launch, history: History, reporter: Reporter, notifier: Notifier, lock: int) -> None:
        self.launch, self.history, self.reporter, self.notifier = launch, history, reporter, notifier
        self.boot = boot_id()
        self.settings = Settings(load_timeout=launch.load_timeout)
        self.selector = selectors.DefaultSelector()
        self.timers = Timers()
        self.wall_clock = WallClock()
        self.signals = Signals()
        self.plan = Plan(history, reporter, self.boot, once=launch.once)
        self.alerting = Alerting(history, self.timers, reporter)
        self.running = Running(self.plan, history, self.timers, reporter, self.alerting)
        self.workers = self.running.workers = Workers(self.selector, self.timers, lock, self.running)
        self.alerting.teller.workers = self.workers
        self.plan.renamed = self.alerting.renamed
        self.loading = Loading(launch, self, self.plan, self.workers, reporter, notifier, self.selector, self.timers)
        self.answers = Answers(self.loading, self.plan, self.running, history, reporter)
        self.control = Control(Path(launch.state), self.selector, self.running, self.answers)
        self.status = StatusLine(notifier, reporter, self.timers, self.describe)
        self.steady: Timer | None = None
        self.draining = False
        self.drained_at: datetime | None = None
        self.asked_at = 0.0
        self.killed_by = 0  # the signal that asked a second time
        self.in_trouble = False  # history cannot be written
        self.exit_code: int | None = None
        self.use(self.settings)

    # The story

    def run(self) -> int:
        """Run tasks until told to stop. Returns the exit code."""
        self.begin()
        while self.exit_code is None:
            self.turn()
        self.signals.close()
        self.control.close()
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
        for renewal in self.history.renewals():
            self.reporter.history_renewed(renewal)
        if self.past.missing:
            self.reporter.history_behind(self.past.missing, known=not self.past.behind)
        self.plan.resume(self.past)
        self.loading.start(self.settings)
        # A fork server that the command line gave us may have ended before we could hear of it.
        self.workers.reap(self.loading.servers.ended)

    def turn(self) -> None:
        """One pass: wait, take in what happened, start what is due."""
        self.wait()
        self.watch_clock()
        self.timers.run_due()
        self.plan.claim_ahead()
        for live in self.plan.fallen_due():
            self.running.decide(live)
        self.running.begin_waiting()
        self.running.fork_ahead()
        self.see_whether_all_is_done()
        self.history.turn_finished()
        if complaint := self.notifier.complaint():
            self.reporter.notify_trouble(complaint)
        self.reporter.turn_finished()
        self.status.turn_finished()
        self.notifier.turn_finished()

    def wait(self) -> None:
        """Sleep until something happens, and let it be handled. The only place where the daemon waits."""
        instants = (self.plan.next_instant(), self.running.next_fork())
        self.wall_clock.wake_at(min(filter(None, instants), default=None))
        for key, _events in self.selector.select(self.patience()):
            # An earlier event of the same turn may have closed this one's source.
            if self.selector.get_map().get(key.fd) is key:
                key.data()

    def patience(self) -> float | None:
        """How long nothing needs to be done by the monotonic clock, in seconds; None: until something happens."""
        limits = (
            self.timers.next(),
            self.notifier.next_ping(),
            self.running.next_room(),
            self.reporter.next_flush(),
            self.history.patience(),
        )
        return min((limit for limit in limits if limit is not None), default=None)

    def watch_clock(self) -> None:
        """After the clock was set, plan everything anew."""
        moved = self.wall_clock.jump()
        if moved is not None:
            self.reporter.clock_was_set(moved)
            self.plan.clock_was_set(moved)

    def on_history(self) -> None:
        """History has answered claims, or fails, or works again, or has begun anew."""
        self.plan.take_answers()
        for renewal in self.history.renewals():
            self.reporter.history_renewed(renewal)
            if not renewal.is_whole:
                tell_all(self.history, self.plan, self.running, self.alerting)
            self.control.keep()
        if self.history.taken_over and not self.draining:
            self.reporter.taken_over(self.history.taken_over)
            self.drain()
        trouble = self.history.trouble
        if trouble and not self.in_trouble:
            self.reporter.history_trouble(trouble)
        elif self.in_trouble and not trouble:
            self.reporter.history_back(self.history.take_let_go())
        self.in_trouble = bool(trouble)

    # The site, as loading.py tells of it

    def begin_with(self, tasks: list[Task]) -> None:
        """The site is loaded for the first time: account for the past, and plan."""
        self.plan.adopt(tasks, self.past)
        self.running.resume(self.past)
        Recovery(
            self.past, self.plan, self.running, self.history, self.reporter, self.boot, once=self.launch.once
        ).account()
        self.alerting.resume(self.past, self.plan.entries.values())
        self.reporter.site_loaded(len(tasks), self.plan.describe_next())
        # The plan stays; no collection needs to look at it again.
        gc.freeze()

    def use(self, settings: Settings) -> None:
        """Go on with the settings of the site."""
        self.settings = self.workers.settings = self.loading.servers.settings = self.history.settings = settings
        self.reporter.all_runs = settings.log_runs == "all"
        self.running.use(settings)

    def remember(self, loaded: Loaded) -> None:
        """Keep how the site sends mail, for when it cannot be loaded; tell soon that it is back, if it had failed."""
        self.alerting.use(self.settings, loaded.channels)
        if not self.launch.linked:
            return
        if problem := alert.remember(Path(self.launch.state), loaded.mail):
            self.reporter.say(problem, logging.WARNING)
        if self.launch.once:
            return  # a pass that has ended well tells it itself
        self.timers.cancel(self.steady)
        self.steady = self.timers.after(STEADY_AFTER, self.tell_recovery)

    def tell_recovery(self) -> None:
        """A process of its own sends the mail, if people know that the site had failed."""
        if command := alert.recovery_command(Path(self.launch.state), self.launch.name):
            try:
                os.posix_spawn(command[0], command, clean_environment())
            except OSError as error:
                problem = f"Nobody is told that the site runs again: {command[0]} cannot be started: {error.strerror}."
                self.reporter.say(problem, logging.WARNING)

    def describe(self) -> str:
        """What there is, what runs, what comes next, what went wrong: one line for `systemctl status`."""
        if sentence := self.loading.nothing:
            return sentence
        if reason := self.loading.waiting_for:
            return f"waiting for the site: {reason}"
        coming = f"Stopping since {short_clock(self.drained_at)}." if self.drained_at else self.plan.describe_next()
        failure, trouble = self.reporter.describe_failure(), self.history.trouble
        return describe(len(self.plan.entries), self.running.live.values(), coming, failure, trouble)

    def tell_status(self) -> None:
        self.status.tell()

    # The end

    def on_signals(self) -> None:
        """Do what signals ask for."""
        for number in self.signals.take():
            if number == signal.SIGCHLD:
                self.workers.reap(self.loading.servers.ended)
            elif number == signal.SIGHUP and not self.launch.terminal:
                self.loading.reload()
            elif not self.draining:
                self.asked_at = monotonic()
                self.reporter.draining(signal.Signals(number).name, len(self.running.live))
                self.drain()
            elif monotonic() - self.asked_at > ONE_WISH:
                self.kill_everything(number)

    def drain(self) -> None:
        """Start nothing more; let what runs end."""
        self.draining, self.drained_at = True, now()
        self.notifier.stopping()
        self.ask_for_time(self.settings.drain_timeout)
        self.loading.end_reload("The daemon is about to stop.")
        self.plan.close()
        self.alerting.close(self.running.live.values())
        self.running.close()
        self.loading.servers.stop()
        self.timers.after(self.settings.drain_timeout, self.stop_waiting)

    def leave(self, exit_code: int) -> None:
        self.exit_code = exit_code

    def ask_for_time(self, seconds: float) -> None:
        """Let systemd wait for runs whose tasks have announced a longer grace than usual, when they must end."""
        grace = max((live.task.policies.grace for live in self.running.live.values()), default=0.0)
        if grace > Policies().grace:
            self.notifier.extend(seconds + grace + LAST_WORDS)

    def stop_waiting(self) -> None:
        """The drain has lasted long enough: ask what still runs to end, then see to it."""
        self.ask_for_time(0)
        self.running.end_all("the daemon stops")
        self.control.part_with_guests()

    def kill_everything(self, number: int) -> None:
        """Asked a second time: end at once."""
        self.killed_by = number
        self.reporter.killing(len(self.running.live))
        self.running.kill_all("the daemon was told twice to stop")
        self.control.part_with_guests()

    def see_whether_all_is_done(self) -> None:
        """Leave when a drain is over; begin one when all that was due once has been run."""
        if self.draining:
            farewell = ONCE_FAREWELL if self.launch.once else FAREWELL
            if not self.running.awaited() and self.alerting.say_farewell(farewell):
                self.notifier.extend(farewell + LAST_WORDS)
            if not self.running.awaited() and not self.workers.awaited() and not len(self.loading.servers):
                self.running.leave_behind()
                self.exit_code = 128 + self.killed_by if self.killed_by else 0
        elif self.launch.once and self.loading.loaded_once and self.plan.is_empty() and self.running.is_empty():
            self.alerting.hurry()
            self.drain()
