"""A world: a throw-away site with random tasks, its daemon, a service manager, and a clock that can be set.

It knows what was asked of the daemon and when, and tells it to the model.
"""

import json
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path

from linod.caller import ask
from linod.instants import from_micros
from linod.launch import Launch, Place
from linod.task import Task
from linod.wire import Ask, Refused, Reload, Resume
from tests.support.site import Site, marked, name_of, until

from .bodies import LEFT_BEHIND
from .clock import Clock
from .drawing import draw_tasks
from .judge import by_identity
from .ledger import Ledger
from .model import Model
from .notices import Notices

PATIENCE = 60.0  # seconds until something is there that takes less than one on an idle machine
WATCHDOG = 15.0  # seconds, as WatchdogSec=
NEAR = timedelta(seconds=8)  # within which a fault may explain something
SETTINGS = """
LINOD = {{
    "max_parallel": {max_parallel},
    "recycle_runs": {recycle_runs},
    "idle_worker": 5.0,
    "drain_timeout": 4.0,
    "keep_runs": 1_000_000,
}}
"""
TASKS = """
from tests.chaos.bodies import declare

declare("tasks.json")
"""
# Shortly before summer time begins, and before it ends, in the zone of the site.
CHANGES = (datetime(2027, 3, 28, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC))


@dataclass(frozen=True)
class Strike:
    """When a fault was there, by the monotonic clock and by the world's."""

    name: str
    began: float
    ended: float
    since: datetime
    until: datetime

    def is_near(self, instant):
        return self.since - NEAR <= instant <= self.until + NEAR

    def __str__(self):
        return f"{self.name} for {self.ended - self.began:.1f} s, {self.since:%H:%M:%S.%f} to {self.until:%H:%M:%S.%f}"


class ServedSite(Site):
    """A site whose daemon is started as a service manager does it: nothing has loaded the site for it."""

    def command(self, *arguments):
        if arguments != ("linod",):
            return super().command(*arguments)
        place = Place(directory=str(self.path), python=sys.executable, manage=str(self.path / "manage.py"))
        return Launch(place=place, name="site", state=str(self.state)).command()


class Life:
    """A daemon from its start to its end, by the monotonic clock."""

    def __init__(self, daemon):
        self.daemon, self.pid = daemon, daemon.pid
        self.frozen = []  # when it could not run
        self.killed = False
        self.ended = inf  # when it was asked to end, or killed

    def ends(self, *, killed=False):
        self.killed = self.killed or killed
        self.ended = min(self.ended, time.monotonic())


class World:
    """Use it in a `with` block, at the end of which nothing of it is left but its files."""

    def __init__(self, path, random):
        self.path = Path(path)
        self.ledger = Ledger(self.path / "ledger")
        self.ledger.directory.mkdir(parents=True)
        self.clock = Clock(self.path, start=draw_start(random))
        self.notices = Notices(self.path / "notify")
        self.mark = f"CHAOS_LEDGER={self.ledger.directory}"
        self.site = ServedSite(
            self.path / "site",
            TASKS,
            SETTINGS.format(max_parallel=random.choice([2, 4, 8]), recycle_runs=random.choice([3, 20, 1000])),
            CHAOS_LEDGER=str(self.ledger.directory),
            CHAOS_SEED=str(random.random()),
            **self.clock.environment,
        )
        self.site.state.mkdir()
        self.model = Model()
        self.tasks, self.declared = [], {}  # now, and ever by their names
        self.strikes = []  # what has happened to it, with its time
        self.clock_sets = []  # when, by the monotonic clock
        self.complaints = []
        self._remembered = {}  # runs that have ended, of a history that was damaged since
        self.lives = []  # of daemons, with the times at which they were frozen
        self._numbers = 0
        self._settled = None  # the life at which it was settled last
        self._since = self.clock.now()
        self.declare(draw_tasks(random, self.clock.now()))

    def __enter__(self):
        self.start()
        self.settle()
        return self

    def __exit__(self, *exception):
        self.daemon.__exit__(*exception)
        self.notices.close()
        until(lambda: not self.processes(), what="the end of all processes")

    # The daemon

    @property
    def daemon(self):
        return self.lives[-1].daemon

    def start(self):
        """Have a daemon started. It is there when the world is settled."""
        daemon = self.site.daemon(NOTIFY_SOCKET=self.notices.path, WATCHDOG_USEC=str(int(WATCHDOG * 1e6)))
        self.lives.append(Life(daemon))

    def signal(self, number):
        if number == signal.SIGTERM:
            self.lives[-1].ends()
        self.daemon.signal(number)

    def kill(self):
        """End the daemon with SIGKILL."""
        self.model.daemon_ended(self.clock.now())
        self.lives[-1].ends(killed=True)
        self.daemon.kill()

    def stop(self):
        """Stop it as a service manager does; it drains."""
        self.lives[-1].ends()
        code = self.daemon.terminate(PATIENCE)
        self.model.daemon_ended(self.clock.now())
        if code != 0:
            self.complain(f"a daemon that was stopped left with {code}: {self.daemon.output()[-2000:]}")

    @contextmanager
    def frozen(self):
        """The daemon does not run for a while."""
        began = time.monotonic()
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)
            self.lives[-1].frozen.append((began, time.monotonic()))

    # What is asked of it

    def ask(self, message, patience=PATIENCE):
        """Ask the daemon for something. Raises LinodError where it does not answer or doesn't want to."""
        return ask(self.site.path, message, patience)

    def tell(self, message):
        """The same for what it cannot refuse."""
        answer = self.ask(message)
        if isinstance(answer, Refused):
            self.complain(f"{message} was refused: {answer.reason}")

    def reload(self):
        """Have it load the site anew."""
        self.tell(Reload())

    def declare(self, tasks):
        """Give the site these tasks, from the next load on."""
        self.tasks = tasks
        self.declared |= {task["name"]: task for task in tasks}
        self.site.write("tasks.json", json.dumps(tasks, indent=1))

    @contextmanager
    def code(self, text):
        """The site's code is something else for a while."""
        self.site.declare(text)
        try:
            yield
        finally:
            self.site.declare(TASKS)

    @property
    def names(self):
        return [task["name"] for task in self.tasks]

    def new_number(self):
        """For a task that was not there before."""
        self._numbers += 1
        return 1000 + self._numbers

    def set_clock(self, by):
        """Set the wall clock while the daemon runs."""
        before = self.clock.now()
        self.clock.move(by, self.daemon.pid)
        self.clock_sets.append(time.monotonic())
        self.model.clock_was_set(before=before, after=self.clock.now())
        self.ask(Ask())
        self._since = self.clock.now()

    # What is known of it

    def settle(self):
        """Wait until the daemon is there, and note from when on it wants which tasks."""
        self.await_ready()
        self.ask_for_order()
        with self.site.history() as archive:
            known, paused = archive.tasks(), archive.pauses()
        tasks = {row["id"]: Task.from_dict(json.loads(row["task"])) for row in known}
        if tasks.keys() != set(self.names):
            self.complain(f"the daemon knows {sorted(tasks)}, but declared are {sorted(self.names)}")
        wanted = {
            id: task.schedule for id, task in tasks.items() if task.policies.enabled and not paused.keys() & {"", id}
        }
        now, restarted = self.clock.now(), self.lives[-1] is not self._settled
        accounted = {row["id"]: row["accounted"] and from_micros(row["accounted"]) for row in known}
        self.model.observe(
            wanted,
            since=self._since,
            now=now,
            monotonic=time.monotonic(),
            accounted=accounted,
            restarted=restarted,
        )
        self._since, self._settled = now, self.lives[-1]

    def await_ready(self):
        """Wait until the daemon has told that it is ready."""
        self.daemon.wait_for(lambda: self.notices.of(self.daemon.pid, "READY"), PATIENCE)

    def ask_for_order(self):
        """Wait until all that the daemon knows is written: before that it confirms nothing, not even no change."""
        with self.site.history() as archive:
            paused = archive.pauses()
        self.tell(Resume(task=next(name for name in self.names if name not in paused), by="chaos"))

    def workers(self):
        """The pids of the daemon's workers, without what tasks have left behind."""
        return [pid for pid in self.daemon.workers() if name_of(pid) != LEFT_BEHIND]

    def unfinished(self):
        with self.site.history() as archive:
            return archive.unfinished()

    def runs(self):
        """All runs in history, in the order of their claims, and those claims that did not become any."""
        with self.site.history() as archive:
            runs = by_identity([*archive.runs(limit=10**9), *archive.unfinished()])
        return sorted((self._remembered | runs).values(), key=lambda run: run.id)

    def remember(self):
        """History is about to be damaged: keep what only it knows. What goes on, the daemon knows as well."""
        self._remembered = by_identity(run for run in self.runs() if run.outcome)

    def processes(self):
        """The processes that belong to it."""
        return marked(self.mark)

    # What is said of it

    def strike(self, fault, random):
        """Let something go wrong, and note when."""
        since, began = self.clock.now(), time.monotonic()
        self._since = since
        try:
            fault.strike(self, random)
        finally:
            self.strikes.append(Strike(fault.name, began, time.monotonic(), since, self.clock.now()))

    def complain(self, text):
        """Something is wrong; the storm goes on."""
        self.complaints.append(f"{self.clock.now():%H:%M:%S} {text}")


def draw_start(random):
    """When the story begins: some minutes before a change of summer time, or now."""
    change = random.choice([None, *CHANGES])
    return change and change - timedelta(seconds=random.uniform(5, 600))
