"""The judge finds what is wrong, and nothing else."""

from datetime import UTC, datetime, time, timedelta

import pytest

from linod.daemon.plan import HANDED_ON
from linod.runs import Outcome, Run, Trigger
from linod.schedules.calendar import Calendar
from linod.schedules.elapsed import Interval
from linod.task import Policies
from tests.chaos.judge import Case, judge
from tests.chaos.ledger import Line
from tests.chaos.model import Model

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
TEN = Interval(10, phase=0.0)


def at(seconds):
    return NOON + timedelta(seconds=seconds)


def run(id, due, outcome=Outcome.SUCCEEDED, **fields):
    """A run of the task, due so many seconds after noon, that begins at once and takes a second."""
    if outcome not in (Outcome.SKIPPED, None):
        fields = {"started": at(due), "ended": at(due + 1), "duration": 1.0, **fields}
    fields = {"boot": "this one", "pid": 7, **fields}
    return Run(id=id, task="ping", due=at(due), outcome=outcome, reason=str(outcome), **fields)


def lines(*runs):
    """What the task has written of these runs."""
    for run in runs:
        second = (run.started - NOON).total_seconds()
        yield Line("begin", run.id, run.task, run.pid, run.started.timestamp(), second)
        yield Line("end", run.id, run.task, run.pid, run.started.timestamp() + 1, second + 1)


def wanting(schedule=TEN):
    """A model in which the task is wanted from just before noon on."""
    return wanting_from(-1, schedule)


def wanting_from(second, schedule=TEN):
    model = Model()
    observe(model, {"ping": schedule}, second)
    return model


def observe(model, wanted, second):
    """From this second on, these are wanted."""
    model.observe(wanted, since=at(second), now=at(second), monotonic=second)


def verdict(runs, ledger=None, model=None, now=35, upset=(), **policies):
    """What the judge says after a drain at this second: the sentences."""
    begun = [run for run in runs if run.started]
    case = Case(
        runs=runs,
        lines=list(lines(*begun) if ledger is None else ledger),
        model=model or wanting(),
        policies={"ping": Policies(**policies)},
        since=at(now),
        now=at(now),
        upset=list(upset),
    )
    return [broken.sentence for broken in judge(case)]


GOOD = [run(1, 0), run(2, 10), run(3, 20), run(4, 30)]


def test_nothing_is_wrong_where_nothing_is():
    assert verdict(GOOD) == []


# The ledger and the history


def test_a_run_that_begins_twice():
    assert verdict(GOOD, [*lines(*GOOD), *lines(GOOD[0])]) == ["run 1 has begun 2 times"]


def test_a_run_that_history_does_not_know():
    assert "run 9 has begun, and history does not know it" in verdict(GOOD, lines(*GOOD, run(9, 30)))


@pytest.mark.parametrize(
    "outcome, written",
    [
        (Outcome.SKIPPED, 2),
        (Outcome.SUCCEEDED, 1),
        (Outcome.SUCCEEDED, 0),
        (Outcome.FAILED, 1),
        (None, 1),
        (None, 0),
    ],
)
def test_an_outcome_that_a_run_did_not_have(outcome, written):
    told = run(4, 30, outcome)
    [wrong] = verdict([*GOOD[:3], told], [*lines(*GOOD[:3]), *list(lines(GOOD[3]))[:written]], retries=0)
    assert wrong == f"run 4 has {('not begun', 'begun', 'ended')[written]}, and its outcome is {outcome}"


def test_a_number_may_be_given_again_when_its_record_is_lost_with_history():
    assert verdict([run(1, -10, Outcome.SKIPPED), *GOOD], model=wanting_from(-11)) == []


def test_a_claim_may_be_handed_on_to_the_next_daemon():
    assert verdict([*GOOD[:3], run(4, 30, None, boot=HANDED_ON)]) == []


def test_a_run_beside_another():
    beside = Line("overlap", 2, "ping", 7, 0.0, 0.0)
    assert verdict(GOOD, [*lines(*GOOD), beside]) == ["run 2 has begun while another run of its task was alive"]


# Due times


def test_a_due_time_that_is_not_accounted_for():
    assert verdict(GOOD[:1] + GOOD[2:]) == [
        "1 due times from 2026-11-27 12:00:10.000000 on are accounted for 0 times rather than 1"
    ]


def test_due_times_that_are_accounted_for_twice():
    assert verdict([*GOOD, run(5, 20, Outcome.SKIPPED, dues=2)]) == [
        "2 due times from 2026-11-27 12:00:10.000000 on are accounted for 2 times rather than 1"
    ]


def test_a_record_stands_for_as_many_due_times_as_it_says():
    assert verdict([run(1, 0), run(2, 30, Outcome.SKIPPED, dues=3)]) == []


def test_a_due_time_that_there_is_not():
    assert verdict([*GOOD, run(5, 12)]) == ["run 5 is for a due time of no schedule"]


def test_nothing_is_missed_while_a_task_is_not_wanted():
    model = wanting()
    observe(model, {}, 8)
    observe(model, {"ping": TEN}, 22)
    assert verdict([GOOD[0], GOOD[3]], model=model) == []
    assert verdict(GOOD[3:], model=model) == [
        "1 due times from 2026-11-27 12:00:00.000000 on are accounted for 0 times rather than 1"
    ]


def test_intervals_come_again_when_the_clock_is_set_back():
    model = wanting()
    model.clock_was_set(before=at(65), after=at(5))
    again = [run(id, due, lap=1) for id, due in zip(range(9, 16), range(10, 71, 10), strict=True)]
    first = [run(1 + due // 10, due) for due in range(0, 61, 10)]
    assert verdict(first + again, model=model, now=75) == []
    assert verdict(first + again[:4] + again[5:], model=model, now=75) == [
        "1 due times from 2026-11-27 12:00:50.000000 on are accounted for 1 times rather than 2"
    ]


def test_a_time_on_the_wall_does_not_come_again():
    schedule = Calendar(unit="days", first=NOON.date(), at=time(13, 0, 20), zone="Europe/Brussels")
    model = wanting(schedule)
    model.clock_was_set(before=at(40), after=at(5))
    assert verdict([run(1, 20)], model=model) == []
    [wrong] = verdict([run(1, 20), run(2, 20, lap=1)], model=model)
    assert wrong.endswith("accounted for 2 times rather than 1")


def test_what_the_clock_was_set_forward_over_is_due():
    model = wanting()
    model.clock_was_set(before=at(12), after=at(32))
    assert verdict([run(1, 0), run(2, 10), run(3, 30, Outcome.SKIPPED, dues=2)], model=model, now=45) == [
        "1 due times from 2026-11-27 12:00:40.000000 on are accounted for 0 times rather than 1"
    ]


# Repetitions

LOST = run(4, 30, Outcome.LOST)
RERUN = run(5, 30, trigger=Trigger.RERUN, attempt=2)
FAILED = run(4, 30, Outcome.FAILED)
RETRY = run(5, 30, trigger=Trigger.RETRY, attempt=2, started=at(41))
OTHERS = GOOD[:3]


def test_a_lost_run_is_repeated_where_that_is_safe():
    assert verdict([*OTHERS, LOST, RERUN], rerun_lost=True) == []
    assert verdict([*OTHERS, LOST], rerun_lost=False) == []


def test_a_lost_run_of_a_task_that_is_gone_is_not_repeated():
    model = wanting()
    observe(model, {}, 32)
    assert verdict([*OTHERS, LOST], model=model, rerun_lost=True) == []


@pytest.mark.parametrize("runs, safe", [([LOST], True), ([LOST, RERUN], False), ([FAILED, RERUN], True)])
def test_a_repetition_too_few_or_too_many(runs, safe):
    [wrong] = verdict([*OTHERS, *runs], rerun_lost=safe)
    assert wrong.endswith("repetitions")


def test_a_retry_comes_after_its_delay():
    assert verdict([*OTHERS, FAILED, RETRY], retries=1, retry_delay=10) == []
    assert verdict([*OTHERS, FAILED, RETRY], retries=1, retry_delay=11) == ["run 5 is a retry that came too early"]
    assert verdict([*OTHERS, FAILED, RETRY], retries=0) == ["run 5 is a retry of nothing"]


def test_what_failed_is_tried_again():
    model = wanting(Interval(600, phase=30.0))
    assert verdict([FAILED], model=model, now=200, retries=1) == ["run 4 was failed, and is not tried again"]
    assert verdict([FAILED], model=model, now=200, retries=1, upset=[40]) == []
