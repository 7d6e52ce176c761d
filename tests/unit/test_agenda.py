"""What is planned, what may run at the same time, and the deadlines of the loop."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linod.daemon.agenda import Agenda, Capacity, Entry, LiveRun
from linod.daemon.clock import Timers, WallClock, monotonic, now
from linod.runs import Run
from linod.schedules import Interval
from linod.task import Task

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def entry(label: str = "work") -> Entry:
    task = Task(id=f"app.{label}", label=label, text="", schedule=Interval(10, phase=0.0))
    return Entry(task=task, position=0, since=NOON, accounted=None)


def live_run(seconds: float = 0, began: float = 0.0) -> LiveRun:
    at = NOON + timedelta(seconds=seconds)
    return LiveRun(run=Run(id=1, task="app.work", due=at), entry=entry(), at=at, began=began)


# The agenda


@given(st.lists(st.integers(0, 100)), st.integers(0, 100))
def test_due_times_are_taken_in_their_order_up_to_an_instant(seconds: list[int], limit: int) -> None:
    agenda = Agenda()
    for each in seconds:
        agenda.plan(NOON + timedelta(seconds=each), entry())
    until = NOON + timedelta(seconds=limit)
    taken = [due for due, _ in agenda.take_due_times(until)]
    assert taken == sorted(NOON + timedelta(seconds=each) for each in seconds if each <= limit)
    rest = [NOON + timedelta(seconds=each) for each in seconds if each > limit]
    assert agenda.next_due_time() == min(rest, default=None)


def test_what_is_due_at_the_same_instant_keeps_its_order() -> None:
    agenda = Agenda()
    entries = [entry(label) for label in "cab"]
    for each in entries:
        agenda.plan(NOON, each)
    assert [each for _, each in agenda.take_due_times(NOON)] == entries


def test_claimed_runs_start_at_their_instant() -> None:
    agenda = Agenda()
    late, early = live_run(20), live_run(10)
    agenda.claimed(late)
    agenda.claimed(early)
    assert agenda.next_start() == early.at
    assert agenda.take_claimed(NOON, 9) == []
    assert agenda.take_claimed(early.at, 9) == [early]
    assert agenda.drop_claimed() == [late]
    assert agenda.next_start() is None


def test_what_is_dropped_is_forgotten() -> None:
    agenda = Agenda()
    agenda.plan(NOON, entry())
    agenda.drop_due_times()
    assert agenda.next_due_time() is None
    assert agenda.take_due_times(NOON) == []


# How much at the same time


def test_room_is_for_so_many_young_runs() -> None:
    capacity = Capacity(parallel=4, total=64, slow_after=60)
    runs = [live_run(began=monotonic()) for _ in range(4)]
    for number, live in enumerate(runs):
        assert capacity.room() == 4 - number
        capacity.started(live)
    assert capacity.room() == 0
    capacity.ended(runs[1])
    assert (capacity.room(), capacity.alive) == (1, 3)


def test_a_dozen_slow_runs_are_no_queue_for_others() -> None:
    capacity = Capacity(parallel=4, total=64, slow_after=60)
    for _ in range(12):
        capacity.started(live_run(began=monotonic() - 60))
    assert capacity.alive == 12
    assert capacity.room() == 4


def test_the_limit_of_all_runs_holds_whatever_their_age() -> None:
    capacity = Capacity(parallel=4, total=6, slow_after=60)
    slow = [live_run(began=monotonic() - 60) for _ in range(5)]
    for live in slow:
        capacity.started(live)
    assert capacity.room() == 1
    capacity.started(live_run(began=monotonic()))
    assert capacity.room() == 0
    assert capacity.next_room() is None, "only an end makes room"
    capacity.ended(slow[0])
    assert capacity.room() == 1


def test_there_is_room_again_when_a_young_run_grows_old() -> None:
    capacity = Capacity(parallel=1, total=64, slow_after=0.4)
    capacity.started(live_run(began=monotonic()))
    wait = capacity.next_room()
    assert wait is not None and 0 < wait <= 0.4
    time.sleep(wait)
    assert capacity.room() == 1
    assert capacity.next_room() is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.booleans())))
def test_room_is_never_miscounted(steps: list[tuple[bool, int, bool]]) -> None:
    capacity = Capacity(parallel=3, total=8, slow_after=60)
    alive: list[tuple[LiveRun, bool]] = []
    for start, index, slow in steps:
        if start:
            # In the order in which they began, as the loop does it: an old one is never behind a young one.
            slow = slow and all(was_slow for _, was_slow in alive)
            live = live_run(began=monotonic() - (60 if slow else 0))
            capacity.started(live)
            alive.append((live, slow))
        elif alive:
            live, _ = alive.pop(index % len(alive))
            capacity.ended(live)
        young = sum(not slow for _, slow in alive)
        assert capacity.room() == max(0, min(3 - young, 8 - len(alive)))
        assert capacity.alive == len(alive)


# Deadlines


@pytest.fixture
def timers() -> Timers:
    return Timers()


def run_all(timers: Timers) -> None:
    """Run timers until none is left, as the loop does."""
    end = monotonic() + 10
    while (wait := timers.next()) is not None:
        assert monotonic() < end
        time.sleep(min(wait, 0.05))
        timers.run_due()


def test_callbacks_come_in_the_order_of_their_deadlines(timers: Timers) -> None:
    came: list[str] = []
    for seconds, name in ((-1, "last"), (-3, "second"), (-2, "third"), (-4, "first")):
        timers.after(seconds, lambda name=name: came.append(name))  # type: ignore[misc]
    run_all(timers)
    assert came == ["first", "second", "third", "last"]


def test_no_callback_comes_early(timers: Timers) -> None:
    began = monotonic()
    came: list[float] = []
    timers.after(0.3, lambda: came.append(monotonic()))
    timers.run_due()
    assert not came
    run_all(timers)
    assert came[0] >= began + 0.3


def test_a_cancelled_timer_never_comes(timers: Timers) -> None:
    came: list[str] = []
    timer = timers.after(0, lambda: came.append("wrong"))
    timers.after(0, lambda: came.append("right"))
    timers.cancel(timer)
    timers.cancel(timer)
    timers.cancel(None)
    run_all(timers)
    assert came == ["right"]


def test_a_timer_that_has_come_can_be_cancelled_without_harm(timers: Timers) -> None:
    came: list[str] = []
    timer = timers.after(0, lambda: came.append("once"))
    run_all(timers)
    timers.cancel(timer)
    timers.after(0, lambda: came.append("again"))
    run_all(timers)
    assert came == ["once", "again"]


def test_a_callback_may_cancel_another_that_is_due_as_well(timers: Timers) -> None:
    came: list[str] = []
    first = timers.after(0, lambda: (came.append("first"), timers.cancel(second)))
    second = timers.after(0, lambda: (came.append("second"), timers.cancel(first)))
    run_all(timers)
    assert came == ["first"]


def test_a_callback_that_sets_a_timer_does_not_hold_the_loop(timers: Timers) -> None:
    came: list[int] = []

    def again() -> None:
        came.append(1)
        if len(came) < 1000:
            timers.after(0, again)

    timers.after(0, again)
    timers.run_due()
    assert len(came) < 10, "what is set meanwhile waits for the next turn"
    run_all(timers)
    assert len(came) == 1000


def test_a_heap_of_cancelled_timers_is_cleared(timers: Timers) -> None:
    kept = timers.after(3600, lambda: None)
    for _ in range(10_000):
        timers.cancel(timers.after(3600, lambda: None))
    assert len(timers._heap) < 200
    wait = timers.next()
    assert wait is not None and 3599 < wait <= 3600
    timers.cancel(kept)
    assert timers.next() is None
    assert timers._cancelled == 0


@given(st.lists(st.tuples(st.sampled_from(["set", "cancel"]), st.integers(0, 50)), max_size=300))
def test_timers_that_are_left_are_those_that_were_not_cancelled(steps: list[tuple[str, int]]) -> None:
    timers, left, came = Timers(), [], []
    serial = 0
    for step, index in steps:
        if step == "set":
            serial += 1
            callback: Callable[[], None] = lambda serial=serial: came.append(serial)  # type: ignore[misc] # noqa: E731
            left.append((serial, timers.after(-index, callback)))
        elif left:
            timers.cancel(left.pop(index % len(left))[1])
    timers.run_due()
    assert sorted(came) == sorted(serial for serial, _ in left)
    assert timers.next() is None and timers._cancelled == 0


# The wall clock


def test_the_wall_clock_wakes_at_an_instant() -> None:
    import select

    clock = WallClock()
    assert not select.select([clock], [], [], 0)[0]
    instant = now() + timedelta(milliseconds=30)
    clock.wake_at(instant)
    assert select.select([clock], [], [], 5)[0]
    assert instant <= now() < instant + timedelta(seconds=2)
    clock.acknowledge()
    assert not select.select([clock], [], [], 0)[0]
    clock.wake_at(now() - timedelta(days=1))
    assert select.select([clock], [], [], 5)[0], "an instant that has passed wakes at once"


def test_a_clock_that_runs_on_has_not_jumped() -> None:
    clock = WallClock()
    assert clock.jump() is None
    clock._offset -= 3600  # as if it had been an hour behind
    moved = clock.jump()
    assert moved is not None and abs(moved - timedelta(hours=1)) < timedelta(seconds=1)
    assert clock.jump() is None
