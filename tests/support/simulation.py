"""A site in simulated time: an hour passes in a moment, and a run lasts as long as its body says.

The plan, the runs, the recovery and the history are the daemon's own. Time and workers are not. What was wanted of the
daemon is told to the storm's model, and what came of it is judged by the storm's judge.
"""

from __future__ import annotations

import io
import os
import select
import sys
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path

import pytest

from linod.archive import Archive
from linod.conf import Settings
from linod.daemon import history as history_module
from linod.daemon import plan as plan_module
from linod.daemon import planner as planner_module
from linod.daemon import recovery as recovery_module
from linod.daemon.agenda import LiveRun
from linod.daemon.alerting import Alerting
from linod.daemon.anew import tell_all
from linod.daemon.clock import Timers
from linod.daemon.history import SqliteHistory
from linod.daemon.plan import Plan
from linod.daemon.planner import has_come
from linod.daemon.recovery import Recovery
from linod.daemon.reporter import Reporter, TextSink
from linod.daemon.running import Running
from linod.runs import Outcome, Run
from linod.task import Policies, Task
from linod.wire import Begin, Ended, Message, Visit
from tests.chaos import judge as judge_module
from tests.chaos import model as model_module
from tests.chaos.judge import Case, by_identity, judge
from tests.chaos.ledger import Line
from tests.chaos.model import Model

START = datetime(2026, 11, 24, 11, 50, tzinfo=UTC)
PATIENCE = 10.0
DRAIN_TIMEOUT = 4.0
WORKERS = 3
NO_PROCESS = 1 << 22  # the pid after the last one that the kernel gives
Identity = tuple[int, str, datetime]
LONGEST_STEP = 1.0  # seconds that nobody notices
OF_THE_DISK = {f"linod.daemon.{name}" for name in ("history", "historyfile", "marks")}  # its time is the real one


@dataclass(frozen=True)
class Body:
    """What the runs of a task do: they last so many seconds, and end like this, one after the other."""

    seconds: float
    outcomes: tuple[Outcome, ...]


class Hands:
    """Workers without processes: a run lasts as long as its body says, or ends soon after it is told to."""

    def __init__(self, site: SimulatedSite) -> None:
        self._site, self.settings, self.server = site, Settings(), None

    def idle(self) -> int:
        return max(0, WORKERS - sum(live.guest is None for live in self._site.running.live.values()))

    available = idle

    def provide(self, wanted: int, fresh: int) -> None:
        """They are there."""

    def begin(self, live: LiveRun) -> bool:
        self._site.run_begins(live)
        return True

    def terminate(self, live: LiveRun, verdict: Outcome, reason: str) -> None:
        live.verdict, live.verdict_reason = verdict, reason
        self._site.run_ends_in(live.task.policies.grace / 2, live, Outcome.CRASHED)

    def has_ended(self, live: LiveRun) -> bool:
        return False

    def dismiss_idle(self) -> None:
        """They have left."""


class Asker:
    """Somebody who has a task run, and hears of it."""

    runs = hears = None

    def tell(self, message: Message) -> None:
        """Heard."""

    def refuse(self, reason: str) -> None:
        """Heard."""

    def run_ended(self, run: Run) -> None:
        """Heard."""


class Guest(Asker):
    """A process that runs a task itself, if it may."""

    pid = NO_PROCESS
    runs: LiveRun | None = None

    def __init__(self, site: SimulatedSite) -> None:
        self._site = site

    def tell(self, message: Message) -> None:
        if isinstance(message, Begin) and self.runs is not None:
            self._site.run_begins(self.runs)


class SimulatedSite:
    """A site, its daemon as far as it decides, and a clock."""

    def __init__(self, state: Path) -> None:
        self.state, self.now, self.monotonic, self.boot = state, START, 1000.0, "boot"
        self.tasks: dict[str, Task] = {}
        self.bodies: dict[str, Body] = {}
        self.outcomes: dict[str, cycle[Outcome]] = {}
        self.lines: list[Line] = []
        self.upset: list[float] = []  # when something kept the daemon from running what it wants to run
        self.model = Model()
        self.settings = Settings()
        state.mkdir()
        self.remembered: dict[Identity, Run] = {}  # what only a history knew that is lost now
        self.disk_waits = False

    # The daemon, as loop.py has it

    def start(self, *, once: bool = False) -> None:
        self.history = SqliteHistory(self.state, Settings())
        self.timers = Timers()
        reporter, past = Reporter(TextSink(io.StringIO())), self.history.past()
        self.plan = Plan(self.history, reporter, self.boot, once=once)
        self.alerting = Alerting(self.history, self.timers, reporter)
        self.running = Running(self.plan, self.history, self.timers, reporter, self.alerting)
        self.running.workers = Hands(self)  # type: ignore[assignment]
        self.running.use(self.settings)
        self.plan.renamed = self.alerting.renamed
        self.plan.resume(past)
        self.plan.adopt(list(self.tasks.values()), past)
        self.running.resume(past)
        Recovery(past, self.plan, self.running, self.history, reporter, self.boot, once=once).account()
        self.alerting.resume(past, self.plan.entries.values())
        self.disk_waits = False
        self.settle(restarted=True)

    def turn(self) -> None:
        self.run_timers()
        self.plan.claim_ahead()
        if not self.disk_waits:
            self.hear_from_the_disk()
        while due := self.plan.fallen_due():
            for live in due:
                self.running.decide(live)
        self.running.begin_waiting()
        if not self.disk_waits:
            self.history.turn_finished()

    def run_timers(self) -> None:
        """Let end what has lasted long enough; a task that has failed too often is paused then."""
        before = set(self.plan.pauses)
        self.timers.run_due()
        if self.plan.pauses.keys() != before:
            self.have_written()
            self.observe(among=self.model.wanted)

    def hear_from_the_disk(self) -> None:
        while self.plan._unconfirmed:
            self.history.turn_finished()
            assert select.select([self.history], [], [], PATIENCE)[0]
            self.on_history()

    def on_history(self) -> None:
        self.plan.take_answers()
        for renewal in self.history.renewals():
            if not renewal.is_whole:
                tell_all(self.history, self.plan, self.running, self.alerting)

    def have_written(self) -> None:
        """Wait until all that was said to history is on the disk."""
        written: list[str] = []
        self.history.when_written(written.append)
        while not written:
            self.history.turn_finished()
            assert select.select([self.history], [], [], PATIENCE)[0]
            self.on_history()
        if self.history._turn:  # it had to be told again
            self.have_written()

    def sleep(self, seconds: float) -> None:
        """Time passes, and the daemon does not run."""
        if self.disk_waits or seconds > LONGEST_STEP:
            self.upset.append(self.monotonic)
        self.now += timedelta(seconds=seconds)
        self.monotonic += seconds

    def live_for(self, seconds: float) -> None:
        """Time passes, and the daemon is awake whenever it wants to be."""
        end = self.now + timedelta(seconds=seconds)
        while (rest := (end - self.now) / timedelta(seconds=1)) > 0:
            until = self.plan.next_instant()
            by_the_wall = max((until - self.now) / timedelta(seconds=1), 0.001) if until else rest
            by_timers = max(self.timers.next() or 0.001, 0.001) if self.timers.next() is not None else rest
            self.sleep(min(rest, by_the_wall, by_timers, LONGEST_STEP))
            self.turn()

    def kill(self) -> None:
        """What this turn has said to history is lost, where the disk was slow; who runs is dead."""
        self.history._turn = history_module.Batch()
        self.ends()
        self.has_ended()

    def drain(self) -> None:
        self.ends()
        self.plan.close()
        self.running.close()
        self.timers.after(DRAIN_TIMEOUT, self.stop_waiting)
        while self.running.live:
            self.sleep(max(self.timers.next() or 0.0, 0.001))
            self.run_timers()
        self.has_ended()

    def stop_waiting(self) -> None:
        self.running.end_all("the daemon stops")
        for live in [live for live in self.running.live.values() if live.guest]:
            self.running.guest_left(live)

    def run_once(self) -> None:
        """A pass: what was missed is run, and no more."""
        self.start(once=True)
        while not self.plan.is_empty() or not self.running.is_empty():
            self.live_for(LONGEST_STEP)
        self.drain()

    def ends(self) -> None:
        """From now on it plans nothing more."""
        self.model.daemon_ended(self.now)
        self.upset.append(self.monotonic)

    def has_ended(self) -> None:
        assert self.history.close(PATIENCE)
        os.close(self.history.fileno())

    # Its history

    def harm(self, harm: Callable[[Path], None]) -> None:
        """Let something happen to the history while the daemon runs, which notices when it writes."""
        self.let_the_disk_rest()
        self.remember()
        harm(self.state)
        self.let_the_disk_answer()
        self.have_written()

    def lose(self, end: Callable[[], None], harm: Callable[[Path], None]) -> None:
        """Let the daemon end in some way, and let something happen to the history then, of which nothing is left."""
        self.disk_waits = False
        self.turn()
        self.have_written()
        self.model.observe({}, since=self.now, now=self.now, monotonic=self.monotonic)
        end()
        self.remember()
        self.remember_what_is_lost()
        harm(self.state)

    def was_ahead(self) -> bool:
        """Whether something began at an instant that is still to come."""
        return any(line.wall > self.now.timestamp() for line in self.lines)

    def let_the_disk_rest(self) -> None:
        """Wait until nothing is being written."""
        deadline = time.monotonic() + PATIENCE
        while self.history._batch or self.history._writing_since is not None:
            assert time.monotonic() < deadline
            time.sleep(0.0001)

    def remember(self) -> None:
        """What has ended, history alone knows."""
        with Archive(self.state) as archive:
            self.remembered |= by_identity(archive.runs(limit=10**9))

    def remember_what_is_lost(self) -> None:
        """What had no end will never have one."""
        with Archive(self.state) as archive:
            for run in archive.unfinished():
                if run.id in self.begun:
                    run.outcome, run.reason = Outcome.LOST, "its history is lost"
                elif has_come(run, self.now):
                    run.outcome, run.reason = Outcome.SKIPPED, "its history is lost"
                else:
                    continue
                self.remembered |= by_identity([run])

    # Its workers

    def run_begins(self, live: LiveRun) -> None:
        task, policies = live.task.id, live.task.policies
        alive = [other for other in self.running.live.values() if other is not live]
        self.write("begin", live)
        if policies.overlap != "allow" and any(other.run.task == task for other in alive):
            self.write("overlap", live)
        if policies.lock and any(other.task.policies.lock == policies.lock for other in alive):
            self.write("lock", live)
        self.run_ends_in(self.bodies[task].seconds, live, next(self.outcomes[task]))

    def run_ends_in(self, seconds: float, live: LiveRun, outcome: Outcome) -> None:
        self.timers.after(seconds, lambda: self.run_ends(live, outcome))

    def run_ends(self, live: LiveRun, outcome: Outcome) -> None:
        if live.run.id in self.running.live:
            if outcome is not Outcome.CRASHED:
                self.write("end", live)
            elif live.guest:
                return self.running.guest_left(live)
            self.running.run_ended(live, Ended(run=live.run.id, outcome=outcome, reason=f"it has {outcome}"))

    @property
    def begun(self) -> set[int]:
        """The runs that have ever begun."""
        return {line.run for line in self.lines if line.kind == "begin"}

    def write(self, kind: str, live: LiveRun) -> None:
        self.lines.append(Line(kind, live.run.id, live.task.id, live.run.pid, self.now.timestamp(), self.monotonic))  # type: ignore[arg-type]

    def visit(self, task: str, *, leaves: bool) -> None:
        """A guest comes, and may be gone again before it hears anything."""
        guest = Guest(self)
        self.running.guest_asks(guest, Visit(task=task, pid=guest.pid))  # type: ignore[arg-type]
        if leaves and guest.runs is not None:
            self.running.guest_left(guest.runs)
        self.turn()

    # What is known of it

    def rename(self, old: str, new: str) -> None:
        """What was known of a task is known of the one with the new name."""
        self.lines = [replace(line, task=new) if line.task == old else line for line in self.lines]
        runs = [replace(run, task=new) if run.task == old else run for run in self.remembered.values()]
        self.remembered = by_identity(runs)
        self.model.renamed(old, new, self.monotonic)

    def settle(self, *, restarted: bool = False) -> None:
        """Tell the model what is wanted now that it is written: before that, nobody is told that it holds."""
        self.let_the_disk_answer()
        self.sleep(0.001)  # nothing is asked twice in the same instant
        self.observe(among=self.plan.entries, restarted=restarted)
        self.turn()

    def observe(self, *, among: Container[str], restarted: bool = False) -> None:
        entries = {id: entry for id, entry in self.plan.entries.items() if id in among}
        self.model.observe(
            {id: entry.task.schedule for id, entry in entries.items() if self.plan.runs_by_itself(entry)},
            since=self.now,
            now=self.now,
            monotonic=self.monotonic,
            accounted={id: entry.accounted for id, entry in entries.items()},
            restarted=restarted,
        )

    def let_the_disk_answer(self) -> None:
        slow, self.disk_waits = self.disk_waits, False
        self.turn()
        self.disk_waits = slow

    def set_clock(self, seconds: float) -> None:
        """Nothing survives a kill of what was not written when the clock was set."""
        before = self.now
        self.now += timedelta(seconds=seconds)
        self.upset.append(self.monotonic)
        self.model.clock_was_set(before=before, after=self.now)
        self.plan.clock_was_set(timedelta(seconds=seconds))
        self.let_the_disk_answer()

    def broken(self, policies: dict[str, Policies]) -> list[str]:
        """What the judge says after a drain."""
        since = self.now
        self.drain()
        with Archive(self.state) as archive:
            runs = self.remembered | by_identity([*archive.runs(limit=10**9), *archive.unfinished()])
        case = Case(
            runs=[runs[identity] for identity in sorted(runs)],
            lines=self.lines,
            model=self.model,
            policies=policies,
            since=since,
            now=self.now,
            upset=self.upset,
        )
        return [f"{broken.task}: {broken.sentence}, runs {broken.runs}" for broken in judge(case)]


@contextmanager
def simulated_time(site: SimulatedSite) -> Iterator[pytest.MonkeyPatch]:
    """Within the block, the clock of the daemon is the site's, but for what waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("linod.daemon.") and name not in OF_THE_DISK:
                for function in ("now", "monotonic"):
                    if hasattr(module, function):
                        patch.setattr(module, function, lambda function=function: getattr(site, function))
        patch.setattr(recovery_module, "uptime", lambda: site.monotonic)
        patch.setattr(history_module, "GATHER", 0.0)
        patch.setattr(planner_module, "MOST_QUEUED", 3)  # so that they are reached,
        patch.setattr(planner_module, "MOST_CAUGHT_UP", 3)
        patch.setattr(plan_module, "MOST_AT_ONCE", 2)
        patch.setattr(model_module, "SLACK", timedelta())  # no machine is busy here,
        patch.setattr(judge_module, "UNTIL_REPEATED", 6000.0)  # and daemons may be away for longer
        yield patch
