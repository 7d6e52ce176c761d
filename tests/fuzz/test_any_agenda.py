"""Any order of planning, claiming and ending: agenda, plan and capacity beside models that look at all each time."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from linod.daemon import agenda as module
from linod.daemon import plan as plan_module
from linod.daemon.agenda import Agenda, Capacity, Entry, LiveRun
from linod.daemon.pauses import SITE
from linod.runs import Run
from linod.schedules import Interval
from linod.task import Task
from tests.unit.test_plan import PATIENCE, World, task

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ENTRIES = 5
seconds = st.integers(0, 20)
labels = st.sampled_from(["a", "b", "c"])


def instant(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def live_run(entry: Entry, number: int, at: datetime) -> LiveRun:
    return LiveRun(run=Run(id=number, task=entry.task.id, due=at), entry=entry, at=at)


def new_entry(number: int) -> Entry:
    task = Task(id=f"app.t{number}", label=f"t{number}", text="", schedule=Interval(10, phase=0.0))
    return Entry(task=task, position=number, since=NOON, accounted=None)


class AgendaMachine(RuleBasedStateMachine):
    """An agenda, and the same as plain lists in the order of what was said."""

    @initialize()
    def begin(self) -> None:
        self.agenda = Agenda()
        self.entries = [new_entry(number) for number in range(ENTRIES)]
        self.due: dict[int, tuple[datetime, int]] = {}  # by the number of the entry; with the order of planning
        self.claimed: list[tuple[datetime, int, LiveRun]] = []
        self.order = 0

    def next_order(self) -> int:
        self.order += 1
        return self.order

    @rule(number=st.integers(0, ENTRIES - 1), second=seconds)
    def plan(self, number: int, second: int) -> None:
        due = instant(second)
        if self.due.get(number, (None, 0))[0] != due:
            self.due[number] = (due, self.next_order())
        self.agenda.plan(due, self.entries[number])

    @rule(number=st.integers(0, ENTRIES - 1))
    def want_it_no_more(self, number: int) -> None:
        self.due.pop(number, None)
        self.entries[number].due = None

    @rule(second=seconds)
    def take_due_times(self, second: int) -> None:
        expected = sorted((due, order, number) for number, (due, order) in self.due.items() if due <= instant(second))
        found = self.agenda.take_due_times(instant(second))
        # What was planned, given up and planned again for the same instant may come in its former place.
        assert [due for due, _entry in found] == [due for due, _order, _number in expected]
        assert {entry.position for _due, entry in found} == {number for _due, _order, number in expected}
        for _due, _order, number in expected:
            del self.due[number]

    @rule(number=st.integers(0, ENTRIES - 1), second=seconds)
    def claim(self, number: int, second: int) -> None:
        live = live_run(self.entries[number], self.next_order(), instant(second))
        self.claimed.append((live.at, live.run.id, live))
        self.agenda.claimed(live)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def decide_before(self, data: st.DataObject) -> None:
        """As for a run that is cancelled before its instant."""
        number = data.draw(st.integers(0, len(self.claimed) - 1))
        self.claimed[number][2].decided = True

    @rule(second=seconds, limit=st.integers(0, 4))
    def take_claimed(self, second: int, limit: int) -> None:
        taken = self.agenda.take_claimed(instant(second), limit)
        assert len(taken) <= limit
        undecided = [live for live in taken if not live.decided]
        expected = sorted(each for each in self.claimed if each[0] <= instant(second) and not each[2].decided)
        assert undecided == [live for _at, _order, live in expected][: len(undecided)]
        assert len(taken) == limit or len(undecided) == len(expected)
        for live in taken:
            live.decided = True
        self.claimed = [each for each in self.claimed if not each[2].decided]

    @rule()
    def drop_due_times(self) -> None:
        self.agenda.drop_due_times()
        self.due.clear()
        assert all(entry.due is None for entry in self.entries)

    @rule()
    def drop_claimed(self) -> None:
        dropped = {live.run.id for live in self.agenda.drop_claimed() if not live.decided}
        assert dropped == {live.run.id for _at, _order, live in self.claimed if not live.decided}
        self.claimed.clear()

    @invariant()
    def tells_what_comes_next(self) -> None:
        assert self.agenda.next_due_time() == min((due for due, _order in self.due.values()), default=None)
        waiting = sorted(each for each in self.claimed if not each[2].decided)
        assert self.agenda.next_start() == (waiting[0][0] if waiting else None)
        assert self.agenda.next_claimed() is (waiting[0][2] if waiting else None)
        assert {live.run.id for live in self.agenda.all_claimed()} == {live.run.id for _at, _order, live in waiting}
        for within in (0, 3):
            together = self.agenda.starting_together(timedelta(seconds=within), 100)
            if waiting:
                until = waiting[0][0] + timedelta(seconds=within)
                # Those that are decided about may still be counted: it is about how many workers to have.
                assert together >= sum(at <= until for at, _order, _live in waiting)
            else:
                assert together == 0


class PlanMachine(RuleBasedStateMachine):
    """A plan with its history, and which due times of which tasks must come while the clock goes forward."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.world = World(Path(self.directory.name))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(plan_module, "now", lambda: self.world.now)
        self.tasks: dict[str, int] = {}  # seconds, by label
        self.paused: set[str] = set()  # labels; SITE for all

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.world.plan.close()
            assert self.world.history.close(PATIENCE)
            self.patch.undo()
            self.directory.cleanup()

    def adopt(self) -> None:
        tasks = [task(label, Interval(every, 0.0)) for label, every in self.tasks.items()]
        self.world.adopt(*tasks)

    @rule(label=labels, every=st.sampled_from([5, 10, 60, 900]))
    def declare(self, label: str, every: int) -> None:
        self.tasks[label] = every
        self.adopt()

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        del self.tasks[data.draw(st.sampled_from(sorted(self.tasks)))]
        self.adopt()

    @rule(label=labels | st.just(SITE))
    def pause(self, label: str) -> None:
        if label == SITE or label in self.tasks:
            self.world.pause(label and f"app.{label}")
            self.paused.add(label)

    @precondition(lambda self: self.paused)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        label = data.draw(st.sampled_from(sorted(self.paused)))
        self.world.plan.unpause(label and f"app.{label}")
        self.paused.discard(label)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule(steps=st.integers(1, 60))
    def advance(self, steps: int) -> None:
        begun, end = self.world.now, self.world.now + timedelta(seconds=5 * steps)
        expected = [
            (label, begun + timedelta(seconds=second))
            for label, every in self.tasks.items()
            for second in range(1, 5 * steps + 1)
            if not self.paused & {label, SITE} and (begun.timestamp() + second) % every == 0
        ]
        assert sorted(self.world.advance(seconds=5 * steps)) == sorted(expected)
        assert self.world.now == end


class CapacityMachine(RuleBasedStateMachine):
    """A capacity, and the ages of all runs."""

    @initialize(parallel=st.integers(1, 4), total=st.integers(1, 6), slow_after=st.sampled_from([0.0, 1.0, 5.0]))
    def begin(self, parallel: int, total: int, slow_after: float) -> None:
        self.now = 100.0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "monotonic", lambda: self.now)
        self.capacity = Capacity(parallel=parallel, total=total, slow_after=slow_after)
        self.alive: list[LiveRun] = []

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()

    def expected_room(self) -> int:
        young = sum(live.began > self.now - self.capacity.slow_after for live in self.alive)
        return max(0, min(self.capacity.parallel - young, self.capacity.total - len(self.alive)))

    @precondition(lambda self: self.expected_room())
    @rule()
    def start(self) -> None:
        live = live_run(new_entry(0), 1, NOON)
        live.began = self.now
        self.alive.append(live)
        self.capacity.started(live)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.capacity.ended(self.alive.pop(data.draw(st.integers(0, len(self.alive) - 1))))

    @rule(passed=st.sampled_from([0.1, 0.5, 1.0, 10.0]))
    def time_passes(self, passed: float) -> None:
        self.now += passed

    @rule()
    def waiting_makes_room(self) -> None:
        before, rest = self.capacity.room(), self.capacity.next_room()
        if rest is not None and not before:
            self.now += rest
            assert self.capacity.room() > 0 or rest == 0.0

    @invariant()
    def has_the_room_that_is_left(self) -> None:
        if hasattr(self, "capacity"):
            assert self.capacity.alive == len(self.alive)
            assert self.capacity.room() == self.expected_room()


TestAgenda = AgendaMachine.TestCase
TestPlan = PlanMachine.TestCase
TestCapacity = CapacityMachine.TestCase
