"""What is decided about due times: pure functions, as a table."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linod.daemon.planner import (
    ALWAYS_GOES_ON,
    FORGIVEN,
    JUST_BOOTED,
    MOST_CAUGHT_UP,
    MOST_QUEUED,
    SPREAD,
    CatchUp,
    Replace,
    Skip,
    Start,
    Wait,
    catch_up,
    decide,
    delay_after_boot,
    next_due,
    reference,
    retry_delay,
)
from linod.runs import Outcome, Run
from linod.schedules import Cron, Interval, Schedule, Until, WallClock
from linod.task import RETRY_JITTER, Overlap, Policies, Task
from linod.task import CatchUp as CatchUpPolicy

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=seconds) for seconds in (1, 60, 3600, 86400))
HOURLY = Interval(3600, phase=600.0)
NIGHTLY = WallClock((time(20),), zone="Europe/Brussels")


def task(schedule: Schedule = HOURLY, **policies: object) -> Task:
    return Task(
        id="app.tasks.work", label="work", text="Every hour do work()", schedule=schedule, policies=Policies(**policies)
    )


# A run is due


@pytest.mark.parametrize(
    ("overlap", "alive", "waiting", "decision"),
    [
        ("skip", 0, 0, Start()),
        ("queue", 0, 0, Start()),
        ("allow", 0, 0, Start()),
        ("replace", 0, 0, Start()),
        ("skip", 1, 0, Skip("the previous run is still going on")),
        ("skip", 0, 1, Skip("the previous run has not started yet")),
        ("queue", 1, 0, Wait("the previous run is still going on")),
        ("queue", 1, MOST_QUEUED - 1, Wait("the previous run is still going on")),
        ("queue", 1, MOST_QUEUED, Skip(f"{MOST_QUEUED} runs are waiting already")),
        ("allow", 5, 5, Start()),
        ("replace", 1, 0, Replace()),
        ("replace", 0, 1, Replace()),
    ],
)
def test_a_run_that_is_due_starts_or_not(overlap: Overlap, alive: int, waiting: int, decision: object) -> None:
    assert decide(task(overlap=overlap), alive=alive, waiting=waiting) == decision


# Due times passed while no daemon ran

AT = datetime(2026, 11, 24, 11, 10, tzinfo=UTC)  # the last due time of HOURLY before noon


@pytest.mark.parametrize(
    ("policy", "hours", "plan"),
    [
        ("once", 0, CatchUp()),
        ("once", 1, CatchUp(runs=((AT, 1),))),
        ("once", 5, CatchUp(runs=((AT, 5),))),
        ("all", 1, CatchUp(runs=((AT, 1),))),
        ("all", 3, CatchUp(runs=((AT - 2 * HOUR, 1), (AT - HOUR, 1), (AT, 1)))),
        (
            "none",
            3,
            CatchUp(skipped=3, last_skipped=AT, reason="no daemon ran, and the task wants no catch-up"),
        ),
    ],
)
def test_missed_due_times_are_caught_up_as_the_task_wishes(policy: CatchUpPolicy, hours: int, plan: CatchUp) -> None:
    assert catch_up(task(catch_up=policy), AT - hours * HOUR, NOON) == plan


@pytest.mark.claim("P10")
def test_of_very_many_missed_due_times_the_last_hundred_are_caught_up() -> None:
    plan = catch_up(task(catch_up="all"), AT - 1000 * HOUR, NOON)
    assert len(plan.runs) == MOST_CAUGHT_UP
    assert (plan.skipped, plan.last_skipped) == (900, AT - 100 * HOUR)
    assert plan.reason == "no daemon ran; only the last 100 due times are caught up"


@pytest.mark.claim("P11")
def test_a_task_more_frequent_than_a_minute_just_goes_on_in_a_daemon_that_stays() -> None:
    often = task(Interval(ALWAYS_GOES_ON - 1, phase=0.0))
    plan = catch_up(often, NOON - HOUR, NOON)
    assert not plan.runs and plan.skipped == 61 and plan.matters_little
    assert catch_up(often, NOON - HOUR, NOON, resident=False).runs[0][1] == 61


def test_without_a_daemon_a_task_that_wants_no_catch_up_runs_in_the_pass_after_its_due_time() -> None:
    daily = task(WallClock((time(12),), zone="UTC"), catch_up="none")
    assert catch_up(daily, NOON - DAY, NOON + MINUTE, resident=False).runs == ((NOON, 1),)
    late = catch_up(daily, NOON - DAY, NOON + HOUR, resident=False)
    assert not late.runs and late.skipped == 1


def test_a_daily_task_that_was_missed_for_a_week_runs_once() -> None:
    [(due, dues)] = catch_up(task(NIGHTLY), NOON - 7 * DAY, NOON).runs
    assert due == datetime(2026, 11, 23, 20, tzinfo=ZoneInfo("Europe/Brussels"))
    assert dues == 7


def test_what_is_over_is_not_caught_up_twice() -> None:
    over = task(Until(HOURLY, NOON - 3 * HOUR))
    plan = catch_up(over, NOON - 5 * HOUR, NOON)
    assert plan.runs == ((AT - 3 * HOUR, 2),)
    assert catch_up(over, plan.runs[-1][0], NOON) == CatchUp()


SCHEDULES = st.one_of(
    st.builds(Interval, st.floats(30, 90000), phase=st.just(0.0)),
    st.builds(
        WallClock,
        st.lists(st.times().map(lambda at: at.replace(microsecond=0)), min_size=1, max_size=3).map(tuple),
        every=st.integers(1, 3),
        zone=st.sampled_from(["Europe/Brussels", "Australia/Lord_Howe", "UTC"]),
    ),
    st.sampled_from(["*/20 * * * *", "30 2 * * *", "0 0 1 * *"]).map(lambda text: Cron(text, zone="Europe/Brussels")),
)


@settings(max_examples=60)
@given(
    schedule=SCHEDULES,
    policy=st.sampled_from(["once", "none", "all"]),
    now=st.datetimes(datetime(2026, 3, 1), datetime(2026, 12, 1), timezones=st.just(UTC)),
    gap=st.timedeltas(timedelta(), timedelta(days=4)),
    resident=st.booleans(),
)
@pytest.mark.claim("P1")
def test_every_due_time_is_either_run_or_skipped(
    schedule: Schedule, policy: CatchUpPolicy, now: datetime, gap: timedelta, resident: bool
) -> None:
    after = now - gap
    missed = []
    due = schedule.next(after)
    while due is not None and due <= now:
        missed.append(due)
        due = schedule.next(due)
    plan = catch_up(task(schedule, catch_up=policy), after, now, resident=resident)
    assert sum(dues for _, dues in plan.runs) + plan.skipped == len(missed)
    # A run stands for the due times up to its own, the skip for the earliest ones.
    accounted = plan.skipped
    if plan.skipped:
        assert plan.last_skipped == missed[plan.skipped - 1]
        assert plan.reason
    for due, dues in plan.runs:
        accounted += dues
        assert due == missed[accounted - 1]
    # So that the next start finds nothing more to do.
    latest = max([due for due, _ in plan.runs] + ([plan.last_skipped] if plan.last_skipped else []), default=after)
    assert catch_up(task(schedule, catch_up=policy), latest, now, resident=resident) == CatchUp()


# From when on due times count

YESTERDAY, TOMORROW, NEXT_YEAR = NOON - DAY, NOON + DAY - SECOND, NOON + 365 * DAY


@pytest.mark.parametrize(
    ("since", "accounted", "after"),
    [
        (NOON, None, NOON),
        (YESTERDAY, None, YESTERDAY),
        (YESTERDAY, YESTERDAY + HOUR, YESTERDAY + HOUR),
        (NOON, YESTERDAY, NOON),  # a changed schedule: what was due before counts no more
        (YESTERDAY, TOMORROW, TOMORROW),  # the clock was set back a little
        (NEXT_YEAR, None, NOON),  # the clock was wrong by much
        (YESTERDAY, NEXT_YEAR, YESTERDAY),
        (NEXT_YEAR, YESTERDAY, YESTERDAY),
        (NEXT_YEAR, NEXT_YEAR, NOON),
    ],
)
def test_reference(since: datetime, accounted: datetime | None, after: datetime) -> None:
    assert reference(since=since, accounted=accounted, now=NOON) == after


@pytest.mark.parametrize(
    ("schedule", "accounted", "now", "due"),
    [
        (HOURLY, None, NOON, AT + HOUR),
        (HOURLY, AT, NOON, AT + HOUR),
        # Set forward: from now on.
        (HOURLY, AT - 5 * HOUR, NOON, AT + HOUR),
        # Set back: intervals go on at once,
        (HOURLY, AT + 3 * HOUR, NOON, AT + HOUR),
        (HOURLY, AT + 300 * DAY, NOON, AT + HOUR),
        # but not with what was accounted for while it was claimed and not yet due;
        (HOURLY, AT + HOUR, AT + HOUR - 5 * SECOND, AT + 2 * HOUR),
        # a time of day that was run already is not repeated,
        (NIGHTLY, NOON + 7 * HOUR, NOON, NOON + 31 * HOUR),
        (NIGHTLY, NOON + FORGIVEN, NOON, NOON + 31 * HOUR),
        # unless the record is from so far ahead that it must be wrong.
        (NIGHTLY, NOON + FORGIVEN + SECOND, NOON, NOON + 7 * HOUR),
        (Until(HOURLY, NOON), None, NOON, None),
    ],
)
def test_next_due(schedule: Schedule, accounted: datetime | None, now: datetime, due: datetime | None) -> None:
    assert next_due(task(schedule), accounted=accounted, now=now) == due


# After a boot


def test_catch_up_is_spread_over_a_minute_after_a_boot_only() -> None:
    tasks = [replace(task(), id=f"app.tasks.work{number}") for number in range(200)]
    delays = [delay_after_boot(each, uptime=10) for each in tasks]
    assert min(delays) < 0.1 * SPREAD and max(delays) > 0.9 * SPREAD
    assert all(0 <= delay < SPREAD for delay in delays)
    assert delays == [delay_after_boot(each, uptime=100) for each in tasks], "the same for each start"
    assert {delay_after_boot(each, uptime=JUST_BOOTED + 1) for each in tasks} == {0}


# After a run


@pytest.mark.parametrize(
    ("outcome", "attempt", "delay"),
    [
        (Outcome.SUCCEEDED, 1, None),
        (Outcome.FAILED, 1, 60),
        (Outcome.TIMED_OUT, 1, 60),
        (Outcome.CRASHED, 2, 120),
        (Outcome.FAILED, 3, None),
        (Outcome.CANCELLED, 1, None),
        (Outcome.SKIPPED, 1, None),
        (Outcome.LOST, 1, None),  # rerun_lost decides about that
    ],
)
def test_a_run_that_went_wrong_is_tried_again(outcome: Outcome, attempt: int, delay: float | None) -> None:
    run = Run(id=1, task="app.tasks.work", due=NOON, outcome=outcome, attempt=attempt)
    found = retry_delay(task(retries=2), run)
    if delay is None:
        assert found is None
    else:
        assert found is not None and delay <= found <= delay * (1 + RETRY_JITTER)


def test_tasks_that_fail_together_are_not_tried_again_together() -> None:
    runs = [Run(id=1, task=f"app.tasks.work{n}", due=NOON, outcome=Outcome.FAILED) for n in range(100)]
    delays = [retry_delay(task(retries=1), run) or 0.0 for run in runs]
    assert delays == [retry_delay(task(retries=1), run) for run in runs], "a daemon that is restarted keeps to them"
    quarters = {int((delay - 60) / (60 * RETRY_JITTER) * 4) for delay in delays}
    assert quarters == {0, 1, 2, 3}, "they are spread over all of the jitter"
