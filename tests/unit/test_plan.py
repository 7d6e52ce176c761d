"""The plan under a clock that jumps, a daemon that sleeps, and tasks that change."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from linod.conf import Settings
from linod.daemon import plan as plan_module
from linod.daemon.agenda import LiveRun
from linod.daemon.history import SqliteHistory
from linod.daemon.plan import Plan
from linod.daemon.reporter import Reporter, TextSink
from linod.schedules import Interval, WallClock
from linod.task import Policies, Task

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PATIENCE = 10.0


class World:
    """A plan with a real history, and a clock that a test sets."""

    def __init__(self, state: Path) -> None:
        self.now = NOON
        self.history = SqliteHistory(state, Settings())
        self.said = io.StringIO()
        self.plan = Plan(self.history, Reporter(TextSink(self.said)), "boot", once=False)
        self.plan.resume(self.history.past())

    def adopt(self, *tasks: Task) -> None:
        self.plan.adopt(list(tasks), None)

    def advance(self, **distance: float) -> list[tuple[str, datetime]]:
        """Let time pass in small steps, as a loop that is awake would see it; what was due meanwhile."""
        end, started = self.now + timedelta(**distance), []
        while self.now < end:
            self.now = min(end, self.now + timedelta(seconds=5))
            started += self.turn()
        return started

    def turn(self) -> list[tuple[str, datetime]]:
        self.plan.claim_ahead()
        for live in self.plan._unconfirmed.values():  # as if the disk had answered at once
            live.confirmed = True
        return [(live.task.label, live.run.due) for live in self.fallen()]

    def fallen(self) -> Iterator[LiveRun]:
        while due := self.plan.fallen_due():
            yield from due

    def set_clock(self, **distance: float) -> None:
        self.now += timedelta(**distance)
        self.plan.clock_was_set(timedelta(**distance))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path)
    monkeypatch.setattr(plan_module, "now", lambda: world.now)
    yield world
    world.plan.close()
    assert world.history.close(PATIENCE)


def task(label: str, schedule: Interval | WallClock, **policies: object) -> Task:
    return Task(id=f"app.{label}", label=label, text="", schedule=schedule, policies=Policies(**policies))  # type: ignore[arg-type]


def every(seconds: float) -> Task:
    return task("often", Interval(seconds, 0.0))


def daily(hour: int) -> Task:
    return task("daily", WallClock((time(hour),), zone="UTC"))


def test_an_interval_goes_on_at_once_after_the_clock_was_set_back(world: World) -> None:
    world.adopt(every(60))
    assert len(world.advance(minutes=30)) == 30
    world.set_clock(hours=-1)
    assert len(world.advance(minutes=10)) == 10


def test_a_daily_time_is_not_run_again_after_the_clock_was_set_back(world: World) -> None:
    world.adopt(daily(13))
    assert world.advance(hours=2) == [("daily", NOON + timedelta(hours=1))]
    world.set_clock(hours=-1, minutes=-30)
    assert world.advance(hours=5) == []
    assert world.advance(hours=24) == [("daily", NOON + timedelta(hours=25))]


@pytest.mark.parametrize("before", [timedelta(seconds=5), timedelta(minutes=30)], ids=["claimed", "not claimed"])
def test_a_daily_time_that_the_clock_jumps_over_is_run(world: World, before: timedelta) -> None:
    world.adopt(daily(13))
    world.advance(hours=1, seconds=-before.total_seconds())
    world.set_clock(hours=3)
    assert world.turn() == [("daily", NOON + timedelta(hours=1))]


def test_due_times_that_were_slept_through_are_one_run_and_one_skip(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.adopt(every(60))
    world.advance(seconds=55)
    said: list[int] = []
    skip = world.plan.skip_unclaimed

    def note(entry: object, due: datetime, dues: int, reason: str, **how: object) -> None:
        said.append(dues)
        skip(entry, due, dues, reason, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(world.plan, "skip_unclaimed", note)
    world.now += timedelta(minutes=10)
    assert world.turn() == [("often", NOON + timedelta(minutes=1))]
    assert said == [9]
    assert world.advance(minutes=1) == [("often", NOON + timedelta(minutes=11))]


def test_a_task_that_is_gone_starts_no_more(world: World) -> None:
    world.adopt(every(60), daily(13))
    world.advance(seconds=55)
    changes = world.plan.adopt([daily(13)], None)
    assert changes.gone == ["often"]
    assert world.advance(minutes=5) == []


def test_a_task_with_another_schedule_is_due_by_that_one(world: World) -> None:
    world.adopt(every(60))
    world.advance(seconds=55)
    assert world.plan.adopt([every(600)], None).changed == ["often"]
    assert world.advance(minutes=15) == [("often", NOON + timedelta(minutes=10))]


def test_a_disabled_task_is_never_due(world: World) -> None:
    world.adopt(task("off", Interval(60, 0.0), enabled=False))
    assert world.advance(minutes=5) == []


def test_the_first_of_many_does_not_wait_for_the_last(world: World) -> None:
    world.adopt(*(task(f"t{number}", Interval(3600, 0.0)) for number in range(500)))
    world.advance(minutes=59, seconds=55)
    world.now = NOON + timedelta(hours=1)
    world.plan.claim_ahead()
    for live in world.plan._unconfirmed.values():
        live.confirmed = True
    first = world.plan.fallen_due()
    assert 0 < len(first) < 500
    assert len(first) + sum(1 for _ in world.fallen()) == 500
