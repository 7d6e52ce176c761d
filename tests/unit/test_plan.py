"""The plan under a clock that jumps, a daemon that sleeps, and tasks that change."""

from __future__ import annotations

import io
import select
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from linod.archive import PauseRecord
from linod.conf import Settings
from linod.daemon import plan as plan_module
from linod.daemon.agenda import LiveRun
from linod.daemon.alerts import Known, Trouble
from linod.daemon.history import SqliteHistory
from linod.daemon.pauses import SITE, make_pause
from linod.daemon.plan import Plan
from linod.daemon.reporter import Reporter, TextSink, short_clock
from linod.daemon.statements import knowing
from linod.runs import Trigger
from linod.schedules import Interval, WallClock
from linod.task import Policies, Task
from linod.words import clock

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PATIENCE = 10.0


class World:
    """A plan with a real history, and a clock that a test sets."""

    def __init__(self, state: Path) -> None:
        self.now, self.state = NOON, state
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

    def answer(self) -> None:
        """Let history write what it was told, and answer."""
        self.history.turn_finished()
        assert select.select([self.history], [], [], PATIENCE)[0]
        self.plan.take_answers()

    def pause(self, task: str = SITE, reason: str = "") -> PauseRecord:
        pause = make_pause(self.plan.pauses.get(task), task=task, reason=reason, by="root", now=self.now)
        self.plan.pause(pause)
        return pause

    def restart(self, tasks: list[Task] | None = None) -> None:
        """Another daemon takes over what this one has written, with other tasks if some are given."""
        tasks = tasks or [entry.task for entry in self.plan.entries.values()]
        self.plan.close()
        self.history.turn_finished()
        assert self.history.close(PATIENCE)
        self.history = SqliteHistory(self.state, Settings())
        self.plan = Plan(self.history, Reporter(TextSink(self.said)), "boot", once=False)
        self.past = self.history.past()
        self.plan.resume(self.past)
        self.plan.adopt(tasks, self.past)
        for entry in self.plan.entries.values():
            self.plan.plan_from(entry, self.now)

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


@pytest.mark.claim("P16")
def test_an_interval_goes_on_at_once_after_the_clock_was_set_back(world: World) -> None:
    world.adopt(every(60))
    assert len(world.advance(minutes=30)) == 30
    world.set_clock(hours=-1)
    assert len(world.advance(minutes=10)) == 10


@pytest.mark.claim("P16")
def test_a_daily_time_is_not_run_again_after_the_clock_was_set_back(world: World) -> None:
    world.adopt(daily(13))
    assert world.advance(hours=2) == [("daily", NOON + timedelta(hours=1))]
    world.set_clock(hours=-1, minutes=-30)
    assert world.advance(hours=5) == []
    assert world.advance(hours=24) == [("daily", NOON + timedelta(hours=25))]


@pytest.mark.parametrize("before", [timedelta(seconds=5), timedelta(minutes=30)], ids=["claimed", "not claimed"])
@pytest.mark.claim("P16")
def test_a_daily_time_that_the_clock_jumps_over_is_run(world: World, before: timedelta) -> None:
    world.adopt(daily(13))
    world.advance(hours=1, seconds=-before.total_seconds())
    world.set_clock(hours=3)
    assert world.turn() == [("daily", NOON + timedelta(hours=1))]


@pytest.mark.claim("P17")
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


def test_a_task_that_has_only_moved_in_its_file_is_no_news(world: World) -> None:
    before = replace(every(60), source="app/tasks.py:7", overridden=("every: /etc/linod/shop.toml:3",))
    moved = replace(before, source="app/tasks.py:9", overridden=("every: /etc/linod/shop.toml:5",))
    world.adopt(before)
    changes = world.plan.adopt([daily(13), moved], None)
    assert (changes.new, changes.changed) == (["daily"], [])
    entry = world.plan.entries["app.often"]
    assert (entry.task.source, entry.position) == ("app/tasks.py:9", 1)


@pytest.mark.claim("P12")
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


def test_a_run_whose_claim_is_confirmed_just_when_it_falls_due_is_started_once(world: World) -> None:
    world.adopt(every(60))
    live = world.plan.claim(world.plan.entries["app.often"], NOON, at=NOON, trigger=Trigger.MANUAL)
    world.answer()
    assert world.plan.fallen_due() == [live]
    assert world.plan.fallen_due() == []


def test_a_due_time_whose_claim_is_not_confirmed_when_the_clock_is_set_back_is_not_forgotten(world: World) -> None:
    world.adopt(every(60))
    world.now += timedelta(seconds=55)
    world.plan.claim_ahead()
    world.now += timedelta(seconds=10)
    assert world.plan.fallen_due() == []
    world.set_clock(minutes=-30)
    world.answer()
    assert world.turn() == [("often", NOON + timedelta(minutes=1))]
    assert len(world.advance(minutes=10)) == 10


def test_a_due_time_that_is_cancelled_is_not_planned_again(world: World) -> None:
    world.adopt(every(60))
    world.now += timedelta(seconds=55)
    world.plan.claim_ahead()
    entry = world.plan.entries["app.often"]
    assert entry.next
    world.plan.cancel(entry.next, "not now")
    world.pause()
    world.plan.unpause(SITE)
    assert world.advance(minutes=1) == []
    assert world.advance(minutes=1) == [("often", NOON + timedelta(minutes=2))]


def test_a_claim_that_is_refused_is_not_made_again(world: World) -> None:
    world.adopt(every(60))
    entry, due = world.plan.entries["app.often"], NOON + timedelta(minutes=1)
    world.plan.claim(entry, due, at=due, trigger=Trigger.MANUAL)
    world.answer()
    world.now += timedelta(seconds=55)
    world.plan.claim_ahead()
    world.answer()
    assert entry.next is None
    assert entry.due == due + timedelta(minutes=1)


@pytest.mark.parametrize("ahead", [timedelta(days=2), timedelta(days=700)])
def test_what_was_recorded_by_a_clock_that_was_far_ahead_is_forgotten(world: World, ahead: timedelta) -> None:
    world.adopt(daily(13))
    right = world.now
    world.set_clock(days=ahead.days)
    world.adopt(daily(13), every(60))
    world.advance(hours=2)
    world.now = right
    world.plan.clock_was_set(-ahead)
    world.advance(hours=2)
    world.history.turn_finished()
    world.restart()
    known = {label: (entry.since, entry.accounted) for label, entry in world.plan.entries.items()}
    assert known["app.daily"] == (NOON, None)
    assert known["app.often"] == (NOON, None)


def test_a_due_time_that_has_not_begun_when_its_task_is_redeclared_is_not_accounted_for(world: World) -> None:
    world.adopt(daily(13))
    assert world.advance(hours=1) == [("daily", NOON + timedelta(hours=1))]  # and waits for a lock, say
    world.plan.adopt([replace(daily(13), source="app/tasks.py:9")], None)
    world.restart()
    assert world.plan.entries["app.daily"].task.source == "app/tasks.py:9"
    assert world.plan.entries["app.daily"].accounted is None


# Pauses


def test_a_task_that_is_paused_is_not_due_and_others_are(world: World) -> None:
    world.adopt(every(60), daily(13))
    world.advance(minutes=5)
    world.pause("app.often")
    assert world.advance(hours=2) == [("daily", NOON + timedelta(hours=1))]


def test_a_site_that_is_paused_has_nothing_due(world: World) -> None:
    world.adopt(every(60), daily(13))
    world.pause()
    assert world.advance(hours=2) == []


def test_what_was_claimed_is_withdrawn_by_a_pause(world: World) -> None:
    world.adopt(every(60))
    world.advance(seconds=55)
    assert not world.plan.is_empty()
    world.pause("app.often")
    assert world.plan.is_empty()
    assert world.advance(minutes=5) == []


def test_a_claim_that_is_not_written_yet_is_withdrawn_by_a_pause(world: World) -> None:
    world.adopt(every(60))
    world.now += timedelta(seconds=55)
    world.plan.claim_ahead()
    world.pause()
    assert world.plan.is_empty()


@pytest.mark.parametrize("trigger", [Trigger.RETRY, Trigger.RERUN])
def test_a_further_attempt_that_has_not_begun_is_withdrawn_by_a_pause(world: World, trigger: Trigger) -> None:
    world.adopt(daily(13))
    entry = world.plan.entries["app.daily"]
    world.plan.claim(entry, NOON, at=NOON + timedelta(minutes=1), trigger=trigger)
    waiting = world.plan.claim(entry, NOON - timedelta(days=1), at=NOON, trigger=trigger)
    world.turn()
    entry.waiting.append(waiting)
    world.pause("app.daily")
    assert waiting.dropped and not entry.waiting
    assert world.advance(minutes=5) == []
    world.restart()
    assert not world.history._file.ready().execute("SELECT * FROM runs").fetchall()


def test_what_a_person_asks_for_is_run_in_a_pause(world: World) -> None:
    world.adopt(every(60))
    entry = world.plan.entries["app.often"]
    before = world.plan.claim(entry, NOON, at=NOON, trigger=Trigger.MANUAL)
    world.pause()
    world.plan.claim(entry, NOON, at=NOON, trigger=Trigger.MANUAL)
    assert len(world.turn()) == 2
    assert not before.dropped


def test_after_a_pause_a_task_goes_on_without_what_was_due_meanwhile(world: World) -> None:
    world.adopt(every(60), daily(13))
    world.pause()
    world.advance(hours=2)
    world.plan.unpause(SITE)
    assert world.advance(minutes=2) == [("often", world.now - timedelta(minutes=1)), ("often", world.now)]
    assert world.advance(hours=24)[-1][0] == "often"
    assert {entry.since for entry in world.plan.entries.values()} == {NOON + timedelta(hours=2)}


def test_a_task_is_due_once_however_often_it_is_paused_and_resumed(world: World) -> None:
    world.adopt(every(60), daily(13))
    for _ in range(20):
        for task in ("app.often", SITE):
            world.pause(task)
            world.plan.unpause(task)
    assert world.advance(minutes=2) == [("often", NOON + timedelta(minutes=1)), ("often", NOON + timedelta(minutes=2))]
    assert world.advance(hours=2).count(("daily", NOON + timedelta(hours=1))) == 1


def test_a_task_stays_paused_when_its_site_is_resumed(world: World) -> None:
    world.adopt(every(60))
    world.pause("app.often")
    world.pause()
    world.plan.unpause(SITE)
    assert world.advance(minutes=2) == []
    world.plan.unpause("app.often")
    assert len(world.advance(minutes=2)) == 2


def test_a_pause_survives_a_restart(world: World) -> None:
    world.adopt(every(60), daily(13))
    pause = world.pause("app.often", "the disk is full")
    world.advance(minutes=10)
    world.restart()
    assert world.plan.pauses == {"app.often": pause}
    assert world.advance(hours=1) == [("daily", NOON + timedelta(hours=1))]
    world.plan.unpause("app.often")
    world.restart()
    assert world.plan.pauses == {}
    assert world.plan.entries["app.often"].since == NOON + timedelta(hours=1, minutes=10)


def test_after_a_pause_failures_are_counted_anew(world: World) -> None:
    world.adopt(every(60))
    entry = world.plan.entries["app.often"]
    entry.failures, entry.failing_since = 3, NOON
    world.pause("app.often")
    world.plan.unpause("app.often")
    assert (entry.failures, entry.failing_since) == (0, None)


def test_a_second_pause_keeps_the_time_and_takes_the_new_reason(world: World) -> None:
    world.adopt(every(60))
    world.pause("app.often", "a reason")
    world.advance(minutes=10)
    pause = world.pause("app.often", "a better one")
    assert (pause.since, pause.reason) == (NOON, "a better one")


@pytest.mark.parametrize("change", ["declared anew", "with another schedule", "under another name"])
def test_a_task_that_is_paused_stays_so_however_its_declaration_changes(world: World, change: str) -> None:
    world.adopt(every(60))
    world.pause("app.often")
    if change == "declared anew":
        world.adopt(daily(13))
        world.adopt(every(60), daily(13))
    elif change == "with another schedule":
        world.adopt(task("often", Interval(30, 0.0)))
    else:
        world.adopt(task("renamed", Interval(60, 0.0), renamed_from="app.often"))
        assert set(world.plan.pauses) == {"app.renamed"}
        world.restart()
        assert set(world.plan.pauses) == {"app.renamed"}
    assert world.advance(minutes=5) == []


@pytest.mark.parametrize("restarted", [False, True])
def test_what_people_know_of_a_task_is_kept_under_its_new_name(world: World, restarted: bool) -> None:
    renames: list[tuple[str, str]] = []
    world.plan.renamed = lambda *names: renames.append(names)
    world.adopt(every(60))
    world.history.write_together([knowing(Known(task="app.often", trouble=Trouble.FAILING, since=NOON))])
    renamed = task("renamed", Interval(60, 0.0), renamed_from="app.often")
    if restarted:
        world.restart([renamed])
    else:
        world.adopt(renamed)
        assert renames == [("app.often", "app.renamed")]
        world.restart()
    assert [known.task for known in world.past.alerts.known] == ["app.renamed"]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_task_that_is_still_there_keeps_its_name(world: World, restarted: bool) -> None:
    renames: list[tuple[str, str]] = []
    world.plan.renamed = lambda *names: renames.append(names)
    world.adopt(every(60))
    since = world.now
    world.advance(minutes=10)
    both = [every(60), task("other", Interval(60, 0.0), renamed_from="app.often")]
    if restarted:
        world.restart(both)
    else:
        world.adopt(*both)
    assert not renames
    assert [world.plan.entries[task.id].since for task in both] == [since, world.now]


def test_a_clock_that_is_set_does_not_end_a_pause(world: World) -> None:
    world.adopt(every(60), daily(13))
    world.pause()
    world.set_clock(hours=-2)
    assert world.advance(hours=4) == []
    world.set_clock(hours=2)
    assert world.advance(hours=4) == []


def test_a_task_that_is_new_in_a_paused_site_is_not_due(world: World) -> None:
    world.pause()
    world.adopt(every(60))
    assert world.advance(minutes=5) == []


# What comes next, in words


def test_the_next_due_time_is_told(world: World) -> None:
    assert world.plan.describe_next() == "Nothing is due."
    world.adopt(daily(13), every(60), task("off", Interval(1, 0.0), enabled=False))
    assert world.plan.describe_next() == f"Next: often at {short_clock(NOON + timedelta(minutes=1))}."
    world.advance(seconds=55)  # it is claimed now
    assert world.plan.describe_next() == f"Next: often at {short_clock(NOON + timedelta(minutes=1))}."


def test_a_paused_task_is_not_told_as_what_comes_next(world: World) -> None:
    world.adopt(daily(13), every(60))
    world.advance(seconds=55)
    world.pause("app.often")
    assert world.plan.describe_next() == f"Next: daily at {short_clock(NOON + timedelta(hours=1))}."
    world.pause("app.daily")
    assert world.plan.describe_next() == "Nothing is due."


def test_a_paused_site_is_told_with_its_reason(world: World) -> None:
    world.adopt(every(60))
    world.pause(SITE, "we move house")
    assert world.plan.describe_next() == f"The site is paused since {clock(NOON)} by root: we move house."


def test_a_task_that_is_gone_is_not_tried_again(world: World) -> None:
    """Its retry may have been claimed already."""
    world.adopt(every(60), daily(13))
    world.plan.claim(world.plan.entries["app.often"], NOON, at=NOON, trigger=Trigger.RETRY)
    world.adopt(daily(13))
    assert world.turn() == []


def test_some_tasks_are_amended_and_the_others_stay_as_they_are(world: World) -> None:
    world.adopt(every(60), daily(13), replace(daily(14), id="app.later", label="later"))
    since = world.plan.entries["app.often"].since
    world.advance(minutes=1)
    changes = world.plan.amend([daily(15), task("new", Interval(30, 0.0))], ["app.later"])
    assert (changes.new, changes.gone, changes.changed) == (["new"], ["later"], ["daily"])
    assert world.plan.entries["app.often"].since == since
    assert world.plan.entries["app.daily"].task.schedule == WallClock((time(15),), zone="UTC")
    assert ("new", NOON + timedelta(minutes=1, seconds=30)) in world.advance(minutes=1)
