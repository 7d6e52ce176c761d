"""The daemon's loop: load, announce, wait, start what is due, reap what ended, drain.

Single-threaded, without Django, without a line of the site's code. Read `Daemon.run` and `Daemon.turn` first. What is
due when is told in plan.py, what becomes of a run in running.py, and what a new daemon does about the past in
recovery.py.
"""

from __future__ import annotations

import gc
import selectors
import signal
from pathlib import Path

from ..conf import Settings
from ..errors import EXIT_CONFIGURATION
from ..launch import Launch
from ..linux import boot_id
from ..task import Task
from ..wire import Loaded
from .clock import Timers, WallClock, monotonic
from .control import Control
from .forkserver import ForkServer, ForkServers
from .history import History
from .notify import Notifier
from .plan import Plan
from .recovery import Recovery
from .reporter import Reporter
from .running import Running
from .signals import Signals
from .workers import Workers

# Seconds. Whoever stops a whole process group often signals its leader too: that is one wish, not two.
ONE_WISH = 0.2
ERRNO_INVALID = 22  # what systemd shows beside the status of a unit that cannot be configured


class Daemon:
    """Runs the tasks of one site."""

    def __init__(self, launch: Launch, history: History, reporter: Reporter, notifier: Notifier, lock: int) -> None:
        self.launch, self.history, self.reporter, self.notifier = launch, history, reporter, notifier
        self.boot = boot_id()
        self.settings = Settings()
        self.selector = selectors.DefaultSelector()
        self.timers = Timers()
        self.wall_clock = WallClock()
        self.signals = Signals()
        self.plan = Plan(history, reporter, self.boot, once=launch.once)
        self.running = Running(self.plan, history, self.timers, reporter)
        self.workers = self.running.workers = Workers(self.selector, self.timers, lock, self.running)
        self.sites = ForkServers(launch, self.selector, self.timers, self)
        self.control = Control(Path(launch.state), self.selector, self.running)
        self.loaded_once = False
        self.draining = False
        self.asked_at = 0.0
        self.killed_by = 0  # the signal that asked a second time
        self.in_trouble = False  # history cannot be written
        self.exit_code: int | None = None

    # The story

    def run(self) -> int:
        """Run tasks until told to stop. Returns the exit code."""
        self.begin()
        while self.exit_code is None:
            self.turn()
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
        self.plan.resume(self.past)
        self.sites.start()
        # A fork server that the command line gave us may have ended before we could hear of it.
        self.workers.reap(self.sites.ended)

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
        self.reporter.turn_finished()
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
        limits = (self.timers.next(), self.notifier.next_ping(), self.running.next_room())
        return min((limit for limit in limits if limit is not None), default=None)

    def watch_clock(self) -> None:
        """After the clock was set, plan everything anew."""
        moved = self.wall_clock.jump()
        if moved is not None:
            self.reporter.clock_was_set(moved)
            self.plan.clock_was_set(moved)

    def on_history(self) -> None:
        """History has answered claims, or fails, or works again."""
        self.plan.take_answers()
        trouble = self.history.trouble
        if trouble and not self.in_trouble:
            self.reporter.history_trouble(trouble)
        elif self.in_trouble and not trouble:
            self.reporter.history_back()
        self.in_trouble = bool(trouble)

    # The site

    def site_loaded(self, server: ForkServer, tasks: list[Task], loaded: Loaded) -> None:
        """The site's tasks are known: plan them, and announce that we are ready."""
        self.use(Settings(**loaded.settings))
        self.workers.renew(server)
        if loaded.threads:
            self.reporter.site_has_threads(loaded.threads)
        if not loaded.uses_linod or not tasks:
            self.reporter.nothing_to_do(uses_linod=loaded.uses_linod)
            return self.drain()
        if self.loaded_once:
            self.reporter.site_changed(self.plan.adopt(tasks, None))
        else:
            self.loaded_once = True
            self.plan.adopt(tasks, self.past)
            Recovery(
                self.past, self.plan, self.running, self.history, self.reporter, self.boot, once=self.launch.once
            ).account()
            self.reporter.site_loaded(len(tasks), self.plan.describe_next())
            # The plan stays; no collection needs to look at it again.
            gc.freeze()
        self.notifier.ready()
        self.notifier.status(f"{len(tasks)} tasks. {self.plan.describe_next()}")

    def site_not_loaded(self, reason: str, *, permanent: bool, traceback: str) -> None:
        """It cannot be loaded: give up where a later try would say the same, else go on with what there is."""
        self.reporter.site_not_loaded(reason, traceback)
        if self.loaded_once:
            return
        if permanent:
            self.notifier.failed(reason, ERRNO_INVALID)
            self.exit_code = EXIT_CONFIGURATION
        else:
            self.notifier.ready()
            self.notifier.status(f"waiting for the site: {reason}")

    def site_is_gone(self, how: str, pause: float) -> None:
        self.workers.server = None
        if not self.draining:
            self.reporter.site_is_gone(how, pause)

    def site_wrote(self, text: str) -> None:
        self.reporter.site_wrote(text)

    def forked(self, serial: int, pid: int) -> None:
        self.workers.forked(serial, pid)

    def not_forked(self, serial: int, reason: str) -> None:
        self.reporter.not_forked(reason)
        self.workers.not_forked(serial)

    def use(self, settings: Settings) -> None:
        """Go on with the settings of the site."""
        self.settings = self.workers.settings = self.sites.settings = self.history.settings = settings
        self.reporter.all_runs = settings.log_runs == "all"
        self.running.use(settings)

    # The end

    def on_signals(self) -> None:
        """Do what signals ask for."""
        for number in self.signals.take():
            if number == signal.SIGCHLD:
                self.workers.reap(self.sites.ended)
            elif number == signal.SIGHUP and not self.launch.terminal:
                self.sites.load()
            elif not self.draining:
                self.asked_at = monotonic()
                self.reporter.draining(signal.Signals(number).name, len(self.running.live))
                self.drain()
            elif monotonic() - self.asked_at > ONE_WISH:
                self.kill_everything(number)

    def drain(self) -> None:
        """Start nothing more; let what runs end."""
        self.draining = True
        self.notifier.stopping()
        self.plan.close()
        self.running.close()
        self.sites.stop()
        self.timers.after(self.settings.drain_timeout, self.stop_waiting)

    def stop_waiting(self) -> None:
        """The drain has lasted long enough: ask what still runs to end, then see to it."""
        self.running.end_all("the daemon stops")
        self.control.close()

    def kill_everything(self, number: int) -> None:
        """Asked a second time: end at once."""
        self.killed_by = number
        self.reporter.killing(len(self.running.live))
        self.running.kill_all("the daemon was told twice to stop")
        self.control.close()

    def see_whether_all_is_done(self) -> None:
        """Leave when a drain is over; begin one when all that was due once has been run."""
        if self.draining:
            if not self.running.live and not len(self.workers) and not len(self.sites):
                self.exit_code = 128 + self.killed_by if self.killed_by else 0
        elif self.launch.once and self.loaded_once and self.plan.is_empty() and self.running.is_empty():
            self.drain()
