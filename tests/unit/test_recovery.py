"""What a new daemon does about claims that the last one left."""

from __future__ import annotations

import io
import select
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from sqlite3 import Connection, OperationalError

import pytest

from linod.archive import FILE, Archive, connect
from linod.conf import Settings
from linod.daemon import plan as plan_module
from linod.daemon import recovery as recovery_module
from linod.daemon.agenda import Entry, LiveRun
from linod.daemon.alerting import Alerting
from linod.daemon.clock import Timers
from linod.daemon.history import SqliteHistory
from linod.daemon.historyfile import HistoryFile
from linod.daemon.marks import MARKS, SHARED, Marks
from linod.daemon.pauses import SITE, make_pause
from linod.daemon.plan import Plan
from linod.daemon.recovery import Recovery
from linod.daemon.reporter import Reporter, TextSink
from linod.daemon.running import Running
from linod.daemon.statements import resuming
from linod.runs import Outcome, Run, Trigger
from linod.schedules import Interval, WallClock
from linod.task import Policies, Task
from linod.wire import Ended

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PATIENCE = 10.0


class World:
    """A site without workers: what is due waits. The clock is the test's."""

    def __init__(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.state, self.boot, self.tasks = NOON, state, "boot", list[Task]()
        for module in (plan_module, recovery_module):
            monkeypatch.setattr(module, "now", lambda: self.now)

    def start(self, before_it_is_loaded: Callable[[], None] = lambda: None) -> None:
        self.history = SqliteHistory(self.state, Settings())
        reporter, past = Reporter(TextSink(io.StringIO())), self.history.past()
        timers = Timers()
        self.plan = Plan(self.history, reporter, self.boot, once=False)
        self.plan.resume(past)
        before_it_is_loaded()
        self.plan.adopt(self.tasks, past)
        self.running = Running(self.plan, self.history, timers, reporter, Alerting(self.history, timers, reporter))
        self.running.resume(past)
        Recovery(past, self.plan, self.running, self.history, reporter, self.boot, once=False).account()
        self.turn()

    def turn(self) -> None:
        """As the loop does it, with a disk that answers at once."""
        self.plan.claim_ahead()
        while self.plan._unconfirmed:
            self.history.turn_finished()
            assert select.select([self.history], [], [], PATIENCE)[0]
            self.plan.take_answers()
        while due := self.plan.fallen_due():
            for live in due:
                self.running.decide(live)
        self.history.turn_finished()

    def until(self, instant: datetime) -> None:
        while self.now < instant:
            self.now = min(instant, self.now + timedelta(seconds=5))
            self.turn()

    def end(self) -> None:
        """All that was said to history is written, and nothing more is done: so a kill leaves it at the latest."""
        self.history.turn_finished()
        assert self.history.close(PATIENCE)

    def drain(self) -> None:
        self.plan.close()
        self.end()

    @property
    def entry(self) -> Entry:
        [entry] = self.plan.entries.values()
        return entry

    @property
    def waiting(self) -> list[LiveRun]:
        return list(self.entry.waiting)

    def recorded(self) -> list[Run]:
        """All records, when what was said to history is written."""
        written = list[str]()
        self.history.when_written(written.append)
        self.history.turn_finished()
        while not written:
            assert select.select([self.history], [], [], PATIENCE)[0]
            self.plan.take_answers()
        assert written == [""]
        with Archive(self.state) as archive:
            return [*archive.runs(), *archive.unfinished()]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    yield world
    world.end()


def hourly(**policies: object) -> Task:
    return Task(id="app.t", label="t", text="", schedule=Interval(3600, 0.0), policies=Policies(**policies))  # type: ignore[arg-type]


def wait_while_the_next_is_skipped(world: World, task: Task) -> None:
    """Its run of 13:00 waits, and so that of 14:00 is skipped."""
    world.tasks = [task]
    world.start()
    world.until(NOON + 2 * HOUR)
    [live] = world.waiting
    assert live.run.due == NOON + HOUR
    [skip] = [run for run in world.recorded() if run.outcome]
    assert (skip.due, skip.reason) == (NOON + 2 * HOUR, "the previous run has not started yet")


@pytest.mark.parametrize("end", [World.end, World.drain])
@pytest.mark.claim("P7")
def test_a_run_that_waited_while_the_next_one_was_skipped_is_caught_up(world: World, end) -> None:
    wait_while_the_next_is_skipped(world, hourly())
    before = world.waiting[0].run.id
    end(world)
    world.start()
    [live] = world.waiting
    assert (live.run.due, live.run.trigger, live.run.dues) == (NOON + HOUR, Trigger.CATCH_UP, 1)
    assert live.run.id == before, "at no moment is its due time without a record"


@pytest.mark.claim("P7")
def test_so_it_is_when_the_host_was_restarted_after_an_orderly_stop(world: World) -> None:
    wait_while_the_next_is_skipped(world, hourly())
    world.drain()
    world.boot = "another"
    world.start()
    assert [live.run.due for live in world.waiting] == [NOON + HOUR]


def lose_marks(world: World) -> None:
    """As by a daemon that died as soon as it had begun, in a container whose memory is not kept."""
    Marks(world.state / MARKS)
    info = world.state.stat()
    for path in SHARED.glob(f"linod-{info.st_dev}-{info.st_ino}-*"):
        path.unlink()


@pytest.mark.claim("P7")
def test_so_it_is_where_marks_are_gone_after_an_orderly_stop(world: World) -> None:
    wait_while_the_next_is_skipped(world, hourly())
    world.drain()
    lose_marks(world)
    world.start()
    assert [live.run.due for live in world.waiting] == [NOON + HOUR]


def test_where_marks_are_gone_without_one_it_counts_as_begun(world: World) -> None:
    wait_while_the_next_is_skipped(world, hourly())
    world.end()
    lose_marks(world)
    world.start()
    assert not world.waiting
    assert {run.due: run.outcome for run in world.recorded()}[NOON + HOUR] is Outcome.LOST


def test_one_that_was_handed_on_and_is_marked_has_begun(world: World) -> None:
    """By a daemon that could not write, and was killed."""
    wait_while_the_next_is_skipped(world, hourly())
    run = world.waiting[0].run
    world.drain()
    Marks(world.state / MARKS).set(run)
    world.start()
    assert not world.waiting
    assert {run.due: run.outcome for run in world.recorded()}[NOON + HOUR] is Outcome.LOST


def test_the_due_times_that_passed_meanwhile_are_seen_to_as_well(world: World) -> None:
    wait_while_the_next_is_skipped(world, hourly())
    world.end()
    world.now += 3 * HOUR
    world.start()
    assert [live.run.due for live in world.waiting] == [NOON + HOUR]
    skips = [(run.due, run.dues) for run in world.recorded() if run.outcome is Outcome.SKIPPED]
    assert sorted(skips) == [(NOON + 2 * HOUR, 1), (NOON + 5 * HOUR, 3)]


def test_it_is_recorded_as_skipped_where_its_task_wants_no_catch_up(world: World) -> None:
    wait_while_the_next_is_skipped(world, hourly(catch_up="none"))
    world.end()
    world.start()
    assert not world.waiting
    skips = {run.due: run.reason for run in world.recorded()}
    assert skips[NOON + HOUR] == "no daemon ran, and the task wants no catch-up"


def test_it_is_recorded_as_skipped_when_its_task_is_paused(world: World) -> None:
    wait_while_the_next_is_skipped(world, hourly())
    world.plan.pause(make_pause(None, task="app.t", reason="", by="root", now=world.now))
    assert not world.waiting
    assert {run.due: run.reason for run in world.recorded()}[NOON + HOUR] == "its task is paused"


def test_it_is_recorded_as_skipped_when_its_task_was_paused_and_resumed_while_no_daemon_ran(world: World) -> None:
    wait_while_the_next_is_skipped(world, hourly())
    world.drain()
    world.now += HOUR / 2
    with closing(connect(world.state / FILE)) as db:
        for statement, values in resuming("app.t", world.now):
            db.execute(statement, values)
    world.start()
    assert not world.waiting
    assert {run.due: run.reason for run in world.recorded()}[NOON + HOUR] == (
        "its task was paused or declared otherwise meanwhile"
    )


def test_it_is_recorded_as_skipped_when_its_task_is_declared_otherwise(world: World) -> None:
    wait_while_the_next_is_skipped(world, hourly())
    other = Task(id="app.t", label="t", text="", schedule=WallClock((time(20),), zone="UTC"))
    world.plan.adopt([other], None)
    assert not world.waiting
    assert {run.due: run.reason for run in world.recorded()}[NOON + HOUR] == "its task is declared otherwise now"


@pytest.mark.claim("P17")
def test_a_due_time_that_came_late_stays_when_later_ones_were_overslept(world: World) -> None:
    world.tasks = [hourly()]
    world.start()
    world.until(NOON + HOUR - timedelta(seconds=5))
    world.now += 5 * HOUR  # stopped as a whole, as by SIGSTOP
    world.turn()
    assert [live.run.due for live in world.waiting] == [NOON + HOUR]
    world.end()
    world.start()
    assert [live.run.due for live in world.waiting] == [NOON + HOUR]
    skips = [(run.due, run.dues, run.reason) for run in world.recorded() if run.outcome]
    assert skips == [(NOON + 5 * HOUR, 4, "the daemon could not run then")]


def test_one_that_began_does_not_hide_one_that_waited_before_it(world: World) -> None:
    world.tasks = [hourly(overlap="allow")]
    world.start()
    world.until(NOON + 2 * HOUR)
    first, second = world.waiting
    world.history.mark_started(second.run)
    world.end()
    world.start()
    assert [live.run.due for live in world.waiting] == [first.run.due]
    assert {run.due: run.outcome for run in world.recorded()}[second.run.due] is Outcome.LOST


def test_a_clock_set_back_a_little_does_not_forget_what_was_already_due(world: World) -> None:
    world.tasks = [hourly()]
    world.start()
    world.until(NOON + HOUR - timedelta(seconds=15))
    world.now += timedelta(seconds=5)
    world.plan.claim_ahead()
    world.now = NOON + HOUR + timedelta(seconds=3)
    assert world.plan.fallen_due() == [], "history has not answered yet"
    world.now -= timedelta(seconds=1)
    world.plan.clock_was_set(timedelta(seconds=-1))
    world.turn()
    assert [live.run.due for live in world.waiting] == [NOON + HOUR]


def wait_while_the_clock_is_set_back(world: World, task: Task) -> None:
    """Its run of 13:00 waits, and then it is 12:15 again."""
    world.tasks = [task]
    world.start()
    world.until(NOON + HOUR)
    world.now -= 3 * HOUR / 4
    world.plan.clock_was_set(-3 * HOUR / 4)
    world.turn()
    assert [live.run.due for live in world.waiting] == [NOON + HOUR]


@pytest.mark.parametrize("end", [World.end, World.drain])
@pytest.mark.parametrize("schedule", [Interval(3600, 0.0), WallClock((time(13),), zone="UTC")])
@pytest.mark.claim("P7", "P16")
def test_a_run_that_waited_while_the_clock_was_set_back_is_caught_up(world: World, end, schedule) -> None:
    wait_while_the_clock_is_set_back(world, replace(hourly(), schedule=schedule))
    before = world.waiting[0].run.id
    end(world)
    world.start()
    assert [(live.run.id, live.run.due, live.run.dues) for live in world.waiting] == [(before, NOON + HOUR, 1)]


def test_the_daemon_may_be_killed_once_more_before_it_runs(world: World) -> None:
    wait_while_the_clock_is_set_back(world, hourly())
    for _ in range(2):
        world.end()
        world.start()
        assert [live.run.due for live in world.waiting] == [NOON + HOUR]


def test_a_run_that_was_handed_on_before_the_clock_was_set_back_is_caught_up(world: World) -> None:
    world.tasks = [hourly()]
    world.start()
    world.until(NOON + HOUR)
    world.drain()
    world.now -= HOUR / 2
    world.start()
    assert [live.run.due for live in world.waiting] == [NOON + HOUR]


def test_a_run_that_waited_while_the_clock_was_set_back_is_recorded_when_its_task_is_paused(world: World) -> None:
    wait_while_the_clock_is_set_back(world, hourly())
    world.plan.pause(make_pause(None, task="app.t", reason="", by="root", now=world.now))
    assert {run.due: run.reason for run in world.recorded()}[NOON + HOUR] == "its task is paused"


def miss_five_and_set_the_clock_back_by_two(world: World, task: Task) -> None:
    """They are caught up by a daemon that is killed, and the next one starts at 15:00 instead of 17:00."""
    world.tasks = [task]
    world.start()
    world.end()
    world.now += 5 * HOUR
    world.start()
    world.end()
    world.now -= 2 * HOUR
    world.start()


def test_what_many_due_times_were_missed_for_is_not_missed_again_when_the_clock_is_set_back(world: World) -> None:
    miss_five_and_set_the_clock_back_by_two(world, hourly())
    assert [(live.run.due, live.run.dues) for live in world.waiting] == [(NOON + 5 * HOUR, 5)]


def let_go_by_pause(world: World) -> None:
    world.plan.pause(make_pause(None, task="app.t", reason="", by="root", now=world.now))


def let_go_by_declaration(world: World) -> None:
    world.plan.adopt([replace(hourly(), schedule=WallClock((time(20),), zone="UTC"))], None)


def let_go_by_clock(world: World) -> None:
    world.now -= 3 * HOUR
    world.plan.clock_was_set(-3 * HOUR)


@pytest.mark.parametrize("let_go", [let_go_by_pause, let_go_by_declaration, let_go_by_clock])
@pytest.mark.parametrize("claimed", [True, False])
@pytest.mark.claim("P1", "P17")
def test_what_went_by_while_the_daemon_was_stopped_is_accounted_for_before_a_task_is_let_go(
    world: World, let_go, claimed
) -> None:
    world.tasks = [hourly()]
    world.start()
    world.until(NOON + HOUR - timedelta(seconds=5 if claimed else 60))
    world.now += 2 * HOUR  # stopped as a whole; then somebody's request is the first thing it sees
    let_go(world)
    world.turn()
    dues = {run.due: run.dues for run in world.recorded() if NOON < run.due <= NOON + 2 * HOUR}
    assert dues == ({NOON + HOUR: 1, NOON + 2 * HOUR: 1} if claimed else {NOON + 2 * HOUR: 2})


@pytest.mark.parametrize("let_go", [let_go_by_pause, let_go_by_declaration, let_go_by_clock])
@pytest.mark.claim("P1", "P17")
def test_what_went_by_while_a_daemon_was_stopping_is_accounted_for_before_a_task_is_let_go(
    world: World, let_go
) -> None:
    """As where the last run of a task that goes wrong makes the site pause it."""
    world.tasks = [hourly()]
    world.start()
    world.until(NOON + HOUR - timedelta(seconds=5))
    world.plan.close()
    world.now += 2 * HOUR
    let_go(world)
    let_go(world)
    assert [(run.due, run.dues) for run in world.recorded()] == [(NOON + 2 * HOUR, 2)]


def test_due_times_that_went_by_before_the_clock_was_set_back_a_little_are_accounted_for_once(world: World) -> None:
    world.tasks = [hourly()]
    world.start()
    world.until(NOON + HOUR - timedelta(seconds=5))
    world.now += 2 * HOUR
    world.now -= timedelta(seconds=2)
    world.plan.clock_was_set(timedelta(seconds=-2))
    world.turn()
    dues = [(run.due, run.dues) for run in world.recorded() if run.due <= NOON + 2 * HOUR]
    assert dues == [(NOON + 2 * HOUR, 1), (NOON + HOUR, 1)]


def test_a_lost_run_of_another_declaration_does_not_account_for_due_times_of_this_one(world: World) -> None:
    world.tasks = [hourly()]
    world.start()
    world.until(NOON + HOUR)
    live = world.entry.waiting.popleft()
    live.run.started = world.now
    world.entry.alive.add(live)
    world.plan.account(live.entry, live.run)
    world.now -= HOUR
    world.plan.clock_was_set(-HOUR)
    world.tasks = [replace(hourly(), schedule=Interval(60, 7.0))]
    world.plan.adopt(world.tasks, None)
    world.end()
    world.now += timedelta(minutes=10)
    world.start()
    assert [(live.run.due, live.run.dues) for live in world.waiting] == [(NOON + timedelta(minutes=9, seconds=7), 10)]


def test_a_repetition_does_not_account_for_due_times_of_another_declaration(world: World) -> None:
    world.tasks = [hourly()]
    world.start()
    live = world.plan.claim(world.entry, NOON + HOUR, at=NOON, trigger=Trigger.RERUN)
    live.run.started = NOON
    world.plan.account(world.entry, live.run)
    world.end()
    world.now += timedelta(minutes=10)
    world.tasks = [replace(hourly(), schedule=Interval(300, 0.0))]
    world.start()
    world.end()
    world.now += timedelta(minutes=10)
    world.start()
    assert [live.run.dues for live in world.waiting] == [2]


def begin_to_look(world: World) -> None:
    world.start()


def resume_a_pause(world: World) -> None:
    world.plan.unpause("app.t")


def rename_it(world: World) -> None:
    world.plan.adopt([replace(hourly(renamed_from="app.t"), id="app.u")], None)


@pytest.mark.parametrize("look", [begin_to_look, resume_a_pause, rename_it])
@pytest.mark.parametrize("looks", range(12))
@pytest.mark.claim("P1")
def test_a_due_time_that_comes_while_the_daemon_looks_at_the_clock_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch, look, looks: int
) -> None:
    """Each look finds it a little later; the due time is between two of them."""
    world.tasks = [hourly()]
    world.start()
    if look is begin_to_look:
        world.end()
    if look is resume_a_pause:
        world.plan.pause(make_pause(None, task="app.t", reason="", by="root", now=world.now))
    moment = timedelta(milliseconds=1)
    world.now = NOON + HOUR - looks * moment - moment / 2

    def later() -> datetime:
        world.now += moment
        return world.now

    for module in (plan_module, recovery_module):
        monkeypatch.setattr(module, "now", later)
    look(world)
    world.turn()
    world.until(NOON + HOUR + timedelta(minutes=1))
    counted = sum(run.dues for run in world.recorded() if run.due == NOON + HOUR)
    # What somebody resumes in the next instant does not count until then.
    assert counted == (0 if look is resume_a_pause and not looks else 1)


def test_of_many_that_wait_none_is_forgotten_when_some_of_them_lie_ahead(world: World) -> None:
    miss_five_and_set_the_clock_back_by_two(world, hourly(catch_up="all"))
    assert [live.run.due for live in world.waiting] == [NOON + hours * HOUR for hours in range(1, 6)]


def test_a_run_that_replaces_one_that_waits_begins_in_its_place(world: World) -> None:
    other = Task(id="app.u", label="u", text="", schedule=WallClock((time(13, 10),), zone="UTC"))
    world.tasks = [hourly(overlap="replace"), other]
    world.start()
    world.until(NOON + 2 * HOUR)
    waiting = [(live.task.label, live.run.due) for live in world.running.waiting if not live.dropped]
    assert waiting == [("t", NOON + 2 * HOUR), ("u", NOON + 7 * HOUR / 6)]


def fail(world: World, live: LiveRun) -> None:
    """A run that waited began, and went wrong."""
    live.entry.waiting.remove(live)
    live.run.started = live.run.ended = world.now
    live.run.outcome, live.run.reason = Outcome.FAILED, "it could not"
    world.plan.account(live.entry, live.run)


@pytest.mark.claim("H5")
def test_a_task_that_failed_and_was_started_after_all_that_history_knows_is_planned(world: World) -> None:
    world.tasks = [hourly()]
    world.start()
    world.until(NOON + HOUR)
    fail(world, world.waiting[0])
    world.end()
    marks = Marks(world.state / MARKS)
    marks.set(Run(id=9, task="app.t", due=NOON + 2 * HOUR, lap=0, boot="boot"))
    marks.close()
    world.now += 2 * HOUR
    world.start()
    assert [live.run.due for live in world.waiting] == [NOON + 3 * HOUR]


@pytest.mark.parametrize("repeated", [True, False])
@pytest.mark.claim("P5", "P20")
def test_a_failure_is_not_tried_again_when_what_came_after_it_was_lost(world: World, repeated: bool) -> None:
    world.tasks = [hourly(retries=2, retry_delay=4000.0)]
    world.start()
    world.until(NOON + HOUR)
    live = world.waiting[0]
    fail(world, live)
    if repeated:
        world.plan.again(world.entry, live.run, Trigger.RETRY)
    world.until(NOON + 3 * HOUR / 2 if repeated else NOON + 2 * HOUR)
    world.history.mark_started(world.waiting[0].run)
    world.end()
    world.start()
    assert [run.outcome for run in world.recorded()] == [Outcome.LOST, Outcome.FAILED]
    assert world.entry.retry is None


@pytest.mark.parametrize("down", [HOUR / 2, 5 * HOUR])
@pytest.mark.claim("P20")
def test_a_failure_is_tried_again_after_a_downtime_unless_its_task_was_due_meanwhile(
    world: World, down: timedelta
) -> None:
    world.tasks = [hourly(retries=1, catch_up="none")]
    world.start()
    world.until(NOON + HOUR)
    fail(world, world.waiting[0])
    world.end()
    world.now += down
    world.start()
    assert (world.entry.retry is not None) == (down < HOUR)


@pytest.mark.parametrize("paused", ["app.t", SITE])
@pytest.mark.claim("P12")
def test_what_is_resumed_before_the_site_is_loaded_has_missed_nothing(world: World, paused: str) -> None:
    world.tasks = [hourly()]
    world.start()
    world.plan.pause(make_pause(None, task=paused, reason="", by="root", now=world.now))
    world.end()
    world.now += 5 * HOUR / 2
    world.start(lambda: world.plan.unpause(paused))
    assert not world.waiting
    world.end()
    world.now += HOUR
    world.start()
    assert [(live.run.due, live.run.dues) for live in world.waiting] == [(NOON + 3 * HOUR, 1)]


@pytest.mark.parametrize("end", [World.end, World.drain])
@pytest.mark.claim("P1", "P7")
def test_what_waited_of_a_task_that_is_declared_no_more_is_recorded_as_skipped(world: World, end) -> None:
    world.tasks = [hourly()]
    world.start()
    world.until(NOON + HOUR)
    before = world.waiting[0].run.id
    end(world)
    world.tasks = []
    world.start()
    reason = "its task is declared no more"
    assert [(run.id, run.outcome, run.reason) for run in world.recorded()] == [(before, Outcome.SKIPPED, reason)]


@pytest.mark.claim("P16", "P20")
def test_a_due_time_that_comes_again_as_the_clock_was_set_back_is_retried_as_well(world: World) -> None:
    world.tasks = [hourly()]
    world.start()
    world.until(NOON + HOUR)
    first = world.waiting[0]
    fail(world, first)
    world.now -= HOUR / 2
    world.plan.clock_was_set(-HOUR / 2)
    world.plan.again(world.entry, first.run, Trigger.RETRY)
    world.turn()
    fail(world, world.waiting[0])
    world.until(NOON + HOUR)
    second = world.waiting[0]
    fail(world, second)
    world.plan.again(world.entry, second.run, Trigger.RETRY)
    world.turn()
    assert [(live.run.due, live.run.attempt) for live in world.waiting] == [(NOON + HOUR, 2)]


def begin(world: World, live: LiveRun) -> None:
    """A run that waited is begun, and goes on."""
    live.entry.waiting.remove(live)
    live.run.started = world.now
    live.entry.alive.add(live)
    world.plan.account(live.entry, live.run)


@pytest.mark.parametrize("at_a_start", [True, False])
@pytest.mark.claim("P24")
def test_a_task_that_takes_the_name_of_one_that_had_the_same_due_times_is_written(
    world: World, at_a_start: bool
) -> None:
    """`recorded` asserts that history has no trouble."""
    former, other = (replace(hourly(), id=id, label=id) for id in ("app.former", "app.t"))
    named = replace(hourly(renamed_from="app.former"), id="app.t")
    world.tasks = [former, other]
    world.start()
    world.until(NOON + HOUR)
    goes_on, fails = (entry.waiting[0] for entry in world.plan.entries.values())
    begin(world, goes_on)
    fail(world, fails)
    world.plan.adopt([former], None)
    world.recorded()
    world.tasks = [named]
    if at_a_start:
        world.end()
        world.start()
        ended = Outcome.LOST
    else:
        world.plan.adopt(world.tasks, None)
        goes_on.run.outcome = ended = Outcome.SUCCEEDED
        world.history.save(goes_on.run)
    assert {run.id: run.outcome for run in world.recorded()} == {fails.run.id: Outcome.FAILED, goes_on.run.id: ended}


def set_back_in_a_daemon(world: World) -> None:
    world.now -= 5 * HOUR
    world.plan.clock_was_set(-5 * HOUR)


def set_back_while_none_runs(world: World) -> None:
    world.end()
    world.now -= 5 * HOUR
    world.start()


@pytest.mark.parametrize("set_back", [set_back_in_a_daemon, set_back_while_none_runs])
@pytest.mark.claim("P7", "P10", "P16")
def test_a_task_that_was_new_when_the_clock_was_set_back_is_caught_up_by_the_new_time(world: World, set_back) -> None:
    world.tasks = [hourly()]
    world.start()
    set_back(world)
    world.until(NOON - 4 * HOUR)
    world.end()
    world.start()
    assert [live.run.due for live in world.waiting] == [NOON - 4 * HOUR]
    begin(world, world.waiting[0])
    world.end()
    world.now += 2 * HOUR
    world.start()
    assert [(live.run.due, live.run.dues) for live in world.waiting] == [(NOON - 2 * HOUR, 2)]


class Hands:
    """Workers that take any run."""

    def idle(self) -> int:
        return 9

    def begin(self, live: LiveRun) -> bool:
        return True


def redeclare_and_begin(world: World, **policies: object) -> list[int]:
    """What goes on of those that wait when their task has other policies."""
    world.running.workers = Hands()  # type: ignore[assignment]
    world.tasks = [hourly(**policies)]
    world.plan.adopt(world.tasks, None)
    world.running.begin_waiting()
    return list(world.running.live)


@pytest.mark.claim("P13")
def test_what_waits_together_begins_one_after_the_other_when_its_task_allows_that_no_more(world: World) -> None:
    world.tasks = [hourly(overlap="allow")]
    world.start()
    world.until(NOON + 3 * HOUR)
    waiting = [live.run.id for live in world.waiting]
    assert len(waiting) == 3
    for run in waiting:
        assert redeclare_and_begin(world, overlap="skip") == [run]
        reasons = {world.running._why_it_waits(live) for live in world.waiting}
        assert reasons <= {"its previous run is still going on"}
        world.running.run_ended(world.running.live[run], Ended(run=run, outcome=Outcome.SUCCEEDED))


@pytest.mark.claim("P13")
def test_what_waits_in_a_queue_begins_where_its_task_allows_others_beside_it_now(world: World) -> None:
    world.tasks = [hourly(overlap="queue")]
    world.start()
    world.until(NOON + 2 * HOUR)
    first, second = (live.run.id for live in world.waiting)
    assert redeclare_and_begin(world, overlap="queue") == [first]
    redeclare_and_begin(world, overlap="allow")
    world.until(NOON + 3 * HOUR)
    world.running.begin_waiting()
    third = list(world.running.live)[-1]
    world.running.run_ended(world.running.live[first], Ended(run=first, outcome=Outcome.SUCCEEDED))
    world.running.begin_waiting()
    assert list(world.running.live) == [third, second]


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.claim("P1", "P7")
def test_what_waited_by_a_clock_that_was_far_ahead_begins_and_does_not_hide_what_is_seen_to(
    world: World, begins: bool
) -> None:
    """Then it would all be missed again at the next start."""
    world.now += 48 * HOUR
    world.tasks = [hourly(overlap="queue")]
    world.start()
    world.until(NOON + 49 * HOUR)
    [ahead] = world.waiting
    world.now = NOON
    world.plan.clock_was_set(-49 * HOUR)
    world.turn()
    if begins:
        begin(world, ahead)
    world.until(NOON + HOUR)
    begin(world, world.waiting[-1])
    world.end()
    world.start()
    assert [live.run.id for live in world.waiting] == ([] if begins else [ahead.run.id])
    assert [run.due for run in world.recorded()] == [NOON + HOUR, NOON + 49 * HOUR]


@pytest.mark.claim("P21")
def test_a_task_that_is_declared_no_more_is_not_paused_by_the_failure_of_its_last_run(world: World) -> None:
    """It would be paused when it is declared again."""
    world.tasks = [hourly()]
    world.start()
    world.running.use(Settings(pause_after=1))
    world.until(NOON + HOUR)
    run = world.waiting[0].run.id
    assert redeclare_and_begin(world) == [run]
    world.plan.adopt([], None)
    world.running.run_ended(world.running.live[run], Ended(run=run, outcome=Outcome.FAILED, reason="it could not"))
    assert not world.plan.pauses


@pytest.mark.claim("H5")
def test_a_history_from_before_a_rename_leads_to_no_second_run(world: World) -> None:
    world.tasks = [hourly()]
    world.start()
    world.end()
    marks = Marks(world.state / MARKS)
    marks.set(Run(id=9, task="app.new", due=NOON + 2 * HOUR, lap=0, boot="boot"))
    marks.close()
    world.tasks = [replace(hourly(renamed_from="app.t"), id="app.new")]
    world.now += 5 * HOUR / 2
    world.start()
    assert not world.waiting


@pytest.mark.claim("P6", "H8")
def test_a_repetition_that_was_started_while_nothing_could_be_written_is_not_started_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run that kills the daemon would do so as long as the disk is full."""

    def is_full(file: HistoryFile, *, durable: bool) -> Connection:
        raise OperationalError("database or disk is full")

    world.tasks = [hourly(rerun_lost=True)]
    world.start()
    world.until(NOON + HOUR)
    world.history.mark_started(world.waiting[0].run)
    world.end()
    with monkeypatch.context() as patch:
        patch.setattr(HistoryFile, "begin", is_full)
        world.start()
        [live] = world.waiting
        assert live.run.trigger is Trigger.RERUN
        world.history.mark_started(live.run)
        assert not world.history.close(PATIENCE)
    world.start()
    assert not world.waiting


@pytest.mark.claim("P7")
def test_what_waited_while_a_later_time_was_seen_to_is_caught_up_though_the_clock_was_set_back_since(
    world: World,
) -> None:
    twice = WallClock((time(13), time(13, 30)), zone="UTC")
    world.tasks = [replace(hourly(), schedule=twice)]
    world.start()
    world.until(NOON + 3 * HOUR / 2)
    before = world.waiting[0].run.id
    world.end()
    world.now = NOON
    world.start()
    assert [(live.run.id, live.run.due) for live in world.waiting] == [(before, NOON + HOUR)]
