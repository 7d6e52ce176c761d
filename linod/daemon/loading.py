"""What becomes of the site's code: loaded first, loaded anew, not loadable, gone and back.

A fork server tells of it (forkserver.py); here it is decided what that means for the daemon, for systemd, and for who
has asked for a reload.
"""

from __future__ import annotations

from collections.abc import Callable
from selectors import BaseSelector
from typing import Protocol

from .. import sites
from ..conf import Settings
from ..errors import EXIT_CONFIGURATION
from ..launch import Launch, Place
from ..task import Task
from ..wire import Loaded
from .clock import Timers
from .forkserver import ForkServer, ForkServers
from .notify import Notifier
from .plan import Plan
from .reporter import Reporter
from .service import find_place
from .workers import Workers

SLOW_START = 15.0  # seconds that an interpreter may need before it begins to load, on a host that has just booted
ERRNO_INVALID = 22  # what systemd shows beside the status of a unit that cannot be configured
Answer = Callable[[str], None]  # told the problem, nothing where there is none


class Owner(Protocol):
    """The daemon, as far as it is asked here."""

    draining: bool

    def use(self, settings: Settings) -> None: ...
    def begin_with(self, tasks: list[Task]) -> None: ...
    def remember(self, loaded: Loaded) -> None: ...
    def tell_status(self) -> None: ...
    def drain(self) -> None: ...
    def leave(self, exit_code: int) -> None: ...


class Loading:
    """Listens to the fork servers of the site."""

    def __init__(
        self,
        launch: Launch,
        owner: Owner,
        plan: Plan,
        workers: Workers,
        reporter: Reporter,
        notifier: Notifier,
        selector: BaseSelector,
        timers: Timers,
    ) -> None:
        self.loaded_once = False
        self.waiting_for = ""  # why there is no site to run the tasks of
        self.nothing = ""  # why there is nothing to do
        self.servers = ForkServers(launch, self.find_place, selector, timers, self)
        self._launch, self._owner, self._plan, self._workers = launch, owner, plan, workers
        self._reporter, self._notifier = reporter, notifier
        self._reloading = False
        self._waiting: list[Answer] = []  # to hear how a reload went

    def start(self, settings: Settings) -> None:
        """Have the site loaded for the first time, and let systemd be as patient as we are."""
        self._notifier.extend(settings.load_timeout + SLOW_START)
        self.servers.start()

    def find_place(self) -> Place:
        """Where the site is now; raises ConfigurationError. Its link and its interpreter may be others at a reload."""
        return find_place(sites.find(self._launch.name)) if self._launch.linked else self._launch.place

    # Reload

    def reload(self, answer: Answer | None = None) -> None:
        """Load the site anew, and answer when that is done.

        One that comes while another is going on begins again: the code may have changed in between.
        """
        if self._owner.draining:
            if answer is not None:
                answer("The daemon is about to stop.")
            return
        if answer is not None:
            self._waiting.append(answer)
        self._reloading = True
        self._notifier.reloading()
        self._reporter.reloading()
        self.servers.load()

    def end_reload(self, problem: str) -> None:
        """Answer all who wait."""
        self._reloading = False
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer(problem)

    # What fork servers tell

    def site_loaded(self, server: ForkServer, tasks: list[Task], settings: Settings, loaded: Loaded) -> None:
        """The site's tasks are known: plan them, and announce that we are ready."""
        was_gone, self.waiting_for = bool(self.waiting_for) and self.loaded_once, ""
        self._owner.use(settings)
        self._owner.remember(loaded)
        companions = [] if self._launch.once else loaded.companions
        self._workers.renew(server, companions)
        if loaded.threads:
            self._reporter.site_has_threads(loaded.threads)
        for complaint in loaded.complaints:
            self._reporter.override_complaint(complaint)
        # A companion may find tasks later.
        if not loaded.uses_linod or not (tasks or companions):
            return self._have_nothing_to_do(uses_linod=loaded.uses_linod)
        if self.loaded_once:
            self._reporter.site_changed(self._plan.adopt(tasks, None))
        else:
            self.loaded_once = True
            self._owner.begin_with(tasks)
        if was_gone:
            self._reporter.site_is_back()
        elif self._reloading:
            self._reporter.reloaded(len(tasks), self._plan.describe_next())
        self._be_ready()
        self.end_reload("")

    def site_not_loaded(self, reason: str, *, permanent: bool, traceback: str) -> None:
        """It cannot be loaded: give up where a later try would say the same, else go on with what there is."""
        problem = f"The site cannot be loaded: {reason}"
        if self.servers.current is not None:
            problem = f"The new code cannot be loaded, the old one goes on: {reason}"
            self._reporter.reload_failed(reason, traceback)
        elif reason != self.waiting_for:  # said once, not with each try
            self._reporter.site_not_loaded(reason, traceback)
            self.waiting_for = reason
        if permanent and not self.loaded_once:
            self._notifier.failed(reason, ERRNO_INVALID)
            self._owner.leave(EXIT_CONFIGURATION)
        else:
            self._be_ready()
        self.end_reload(problem)

    def site_is_gone(self, how: str, pause: float) -> None:
        self._workers.server = None
        self.waiting_for = self.waiting_for or how
        if not self._owner.draining:
            self._reporter.site_is_gone(how, pause)

    def site_wrote(self, text: str) -> None:
        self._reporter.site_wrote(text)

    def forked(self, serial: int, pid: int) -> None:
        self._workers.forked(serial, pid)

    def not_forked(self, serial: int, reason: str) -> None:
        self._workers.not_forked(serial, reason)

    def _have_nothing_to_do(self, *, uses_linod: bool) -> None:
        """The site has no work for us: the service has started and is over, and that is no failure."""
        self.nothing = self._reporter.nothing_to_do(uses_linod=uses_linod)
        self._be_ready()
        self.end_reload("")
        self._owner.drain()

    def _be_ready(self) -> None:
        """Tell systemd that a start or a reload is over."""
        self._notifier.ready()
        self._owner.tell_status()
