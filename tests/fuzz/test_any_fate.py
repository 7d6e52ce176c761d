"""Any fate of a site: whatever befalls its clock, its daemon, its disk and its tasks, each due time is accounted for.

The plan, the runs and the recovery are the daemon's own, and so is history. Time and workers are not: an hour passes in
a moment, and a run lasts as long as is drawn. So thousands of stories are tried where a storm tries one; what is wrong
with one is found by the storm's own model and judge.
"""

from __future__ import annotations

import io
import os
import select
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from linod.archive import Archive
from linod.conf import Settings
from linod.daemon import history as history_module
from linod.daemon import recovery as recovery_module
from linod.daemon.agenda import LiveRun
from linod.daemon.alerting import Alerting
from linod.daemon.clock import Timers
from linod.daemon.history import SqliteHistory
from linod.daemon.pauses import SITE, make_pause
from linod.daemon.plan import Plan
from linod.daemon.recovery import Recovery
from linod.daemon.reporter import Reporter, TextSink
from linod.daemon.running import Running
from linod.runs import Outcome, Run
from linod.schedules import Interval, WallClock
from linod.schedules.base import Schedule
from linod.task import Policies, Task
from linod.wire import Ended, Message
from tests.chaos import judge as judge_module
from tests.chaos import model as model_module
from tests.chaos.judge import Case, judge
from tests.chaos.ledger import Line
from tests.chaos.model import Model

START = datetime(2026, 11, 24, 11, 50, tzinfo=UTC)
PATIENCE = 10.0
DRAIN_TIMEOUT = 4.0
WORKERS = 3
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
        return max(0, WORKERS - len(self._site.running.live))

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
        self.disk_waits = False

    # The daemon, as loop.py has it

    def start(self) -> None:
        self.history = SqliteHistory(self.state, Settings())
        self.timers = Timers()
        reporter, past = Reporter(TextSink(io.StringIO())), self.history.past()
        self.plan = Plan(self.history, reporter, self.boot, once=False)
        alerting = Alerting(self.history, self.timers, reporter)
        self.running = Running(self.plan, self.history, self.timers, reporter, alerting)
        self.running.workers = Hands(self)  # type: ignore[assignment]
        self.plan.resume(past)
        self.plan.adopt(list(self.tasks.values()), past)
        self.running.resume(past)
        Recovery(past, self.plan, self.running, self.history, reporter, self.boot, once=False).account()
        alerting.resume(past, self.plan.entries.values())
        self.disk_waits = False
        self.settle(restarted=True)

    def turn(self) -> None:
        self.timers.run_due()
        self.plan.claim_ahead()
        if not self.disk_waits:
            self.hear_from_the_disk()
        while due := self.plan.fallen_due():
            for live in due:
                self.running.decide(live)
        self.running.begin_waiting()
        if not self.disk_waits:
            self.history.turn_finished()

    def hear_from_the_disk(self) -> None:
        while self.plan._unconfirmed:
            self.history.turn_finished()
            assert select.select([self.history], [], [], PATIENCE)[0]
            self.plan.take_answers()

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
        self.timers.after(DRAIN_TIMEOUT, lambda: self.running.end_all("the daemon stops"))
        while self.running.live:
            self.sleep(max(self.timers.next() or 0.0, 0.001))
            self.timers.run_due()
        self.has_ended()

    def ends(self) -> None:
        """From now on it plans nothing more."""
        self.model.daemon_ended(self.now)
        self.upset.append(self.monotonic)

    def has_ended(self) -> None:
        assert self.history.close(PATIENCE)
        os.close(self.history.fileno())

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
            self.running.run_ended(live, Ended(run=live.run.id, outcome=outcome, reason=f"it has {outcome}"))

    def write(self, kind: str, live: LiveRun) -> None:
        self.lines.append(Line(kind, live.run.id, live.task.id, None, self.now.timestamp(), self.monotonic))  # type: ignore[arg-type]

    # What is known of it

    def settle(self, *, restarted: bool = False) -> None:
        """Tell the model what is wanted now that it is written: before that, nobody is told that it holds."""
        self.let_the_disk_answer()
        self.sleep(0.001)  # nothing is asked twice in the same instant
        entries = self.plan.entries
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
            runs = {run.id: run for run in [*archive.runs(limit=10**9), *archive.unfinished()]}
        case = Case(
            runs=[runs[id] for id in sorted(runs)],
            lines=self.lines,
            model=self.model,
            policies=policies,
            since=since,
            now=self.now,
            upset=self.upset,
        )
        return [f"{broken.task}: {broken.sentence}, runs {broken.runs}" for broken in judge(case)]


@st.composite
def all_policies(draw: st.DrawFn) -> Policies:
    return Policies(
        timeout=draw(st.sampled_from([1.0, 30.0, 3600.0])),
        grace=draw(st.sampled_from([0.2, 5.0])),
        overlap=draw(st.sampled_from(["skip", "queue", "allow", "replace"])),
        catch_up=draw(st.sampled_from(["once", "none", "all"])),
        retries=draw(st.integers(0, 2)),
        retry_delay=draw(st.sampled_from([0.2, 3.0, 40.0])),
        lock=draw(st.sampled_from([None, "printer"])),
        rerun_lost=draw(st.booleans()),
    )


bodies = st.builds(
    Body,
    seconds=st.sampled_from([0.1, 2.0, 20.0, 100.0]),
    outcomes=st.lists(st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CRASHED]), min_size=1).map(tuple),
)
labels = st.sampled_from(["a", "b", "c"])
spans = st.sampled_from([0.5, 3.0, 11.0, 50.0, 700.0, 4000.0])
intervals = st.sampled_from([1.5, 7.0, 45.0, 61.0, 600.0, 3600.0])
minutes = st.integers(0, 59)


class FateMachine(RuleBasedStateMachine):
    """A site to which anything happens."""

    @initialize(policies=st.tuples(*[all_policies()] * 3), does=st.tuples(*[bodies] * 3))
    def begin(self, policies: tuple[Policies, ...], does: tuple[Body, ...]) -> None:
        self.directory = tempfile.TemporaryDirectory(dir="/dev/shm")
        self.patch = pytest.MonkeyPatch()
        self.site = SimulatedSite(Path(self.directory.name))
        for name, module in list(sys.modules.items()):
            if name.startswith("linod.daemon.") and name not in OF_THE_DISK:
                for function in ("now", "monotonic"):
                    if hasattr(module, function):
                        self.patch.setattr(module, function, lambda function=function: getattr(self.site, function))
        self.patch.setattr(recovery_module, "uptime", lambda: self.site.monotonic)
        self.patch.setattr(history_module, "GATHER", 0.0)
        self.patch.setattr(model_module, "SLACK", timedelta())  # no machine is busy here,
        self.patch.setattr(judge_module, "UNTIL_REPEATED", 6000.0)  # and daemons may be away for longer
        self.policies = dict(zip(("a", "b", "c"), policies, strict=True))
        self.site.bodies = dict(zip(self.policies, does, strict=True))
        self.site.outcomes = {label: cycle(body.outcomes) for label, body in self.site.bodies.items()}
        self.versions = 0
        self.site.start()

    def teardown(self) -> None:
        if not hasattr(self, "site"):
            return
        try:
            self.site.disk_waits = False
            self.site.turn()
            assert self.site.broken(self.policies) == []
        finally:
            self.patch.undo()
            self.directory.cleanup()

    def adopt(self) -> None:
        self.site.plan.adopt(list(self.site.tasks.values()), None)
        self.site.settle()

    def schedule(self, label: str, schedule: Schedule, *, enabled: bool = True) -> None:
        policies = replace(self.policies[label], enabled=enabled)
        self.site.tasks[label] = Task(id=label, label=label, text="", schedule=schedule, policies=policies)

    # The site's code

    @rule(label=labels, seconds=intervals)
    def declare_interval(self, label: str, seconds: float) -> None:
        self.versions += 1  # no two have a due time in common
        self.schedule(label, Interval(seconds, phase=self.versions / 1000))
        self.adopt()

    @rule(label=labels, times=st.sets(minutes, min_size=1, max_size=3), second=st.integers(0, 59))
    def declare_times(self, label: str, times: set[int], second: int) -> None:
        self.versions += 1
        at = tuple(time(hour, minute, second, self.versions) for hour in (11, 12, 13) for minute in sorted(times))
        self.schedule(label, WallClock(at, zone="UTC"))
        self.adopt()

    @precondition(lambda self: self.site.tasks)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        del self.site.tasks[data.draw(st.sampled_from(sorted(self.site.tasks)))]
        self.adopt()

    @precondition(lambda self: self.site.tasks)
    @rule(data=st.data())
    def disable_or_enable(self, data: st.DataObject) -> None:
        task = self.site.tasks[data.draw(st.sampled_from(sorted(self.site.tasks)))]
        self.schedule(task.id, task.schedule, enabled=not task.policies.enabled)
        self.adopt()

    # People

    @rule(label=labels | st.just(SITE))
    def pause(self, label: str) -> None:
        if label == SITE or label in self.site.tasks:
            known = self.site.plan.pauses.get(label)
            self.site.running.pause(make_pause(known, task=label, reason="", by="root", now=self.site.now))
            self.site.settle()

    @precondition(lambda self: self.site.plan.pauses)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        self.site.plan.unpause(data.draw(st.sampled_from(sorted(self.site.plan.pauses))))
        self.site.settle()

    @precondition(lambda self: self.site.tasks)
    @rule(data=st.data())
    def run_now(self, data: st.DataObject) -> None:
        entry = self.site.plan.entries[data.draw(st.sampled_from(sorted(self.site.tasks)))]
        self.site.running.run_now(entry, Asker())  # type: ignore[arg-type]
        self.site.turn()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        not_begun = {live.run.id: live for live in self.site.plan.not_begun(set(self.site.plan.entries.values()))}
        if runs := sorted([*not_begun, *self.site.running.live]):
            run = data.draw(st.sampled_from(runs))
            if run in not_begun:
                self.site.running.cancel(not_begun[run], "cancelled by root")
            else:
                self.site.running.end(self.site.running.live[run], Outcome.CANCELLED, "cancelled by root")
            self.site.turn()

    # Time

    @rule(seconds=st.sampled_from([0.2, 1.0, 6.0, 30.0, 90.0]))
    def live_for(self, seconds: float) -> None:
        self.site.live_for(seconds)

    @rule(seconds=spans)
    def oversleep(self, seconds: float) -> None:
        self.site.sleep(seconds)
        self.site.turn()

    @rule(seconds=spans | spans.map(lambda seconds: -seconds))
    def set_clock(self, seconds: float) -> None:
        if abs(seconds) >= 1:
            self.site.set_clock(seconds)

    # The daemon and its disk

    @rule(waits=st.booleans())
    def the_disk(self, waits: bool) -> None:
        self.site.disk_waits = waits
        self.site.turn()

    @rule(down=st.sampled_from([0.0, 2.0]) | spans)
    def kill(self, down: float) -> None:
        self.site.kill()
        self.site.sleep(down)
        self.site.start()

    @rule(down=spans)
    def restart_host(self, down: float) -> None:
        """Without warning; what the disk was told is there."""
        self.site.kill()
        self.site.boot += "+"
        self.site.sleep(down)
        self.site.start()

    @rule(down=st.sampled_from([0.0, 2.0]) | spans)
    def restart(self, down: float) -> None:
        self.site.disk_waits = False
        self.site.turn()
        self.site.drain()
        self.site.sleep(down)
        self.site.start()


TestFate = FateMachine.TestCase
