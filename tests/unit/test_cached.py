"""Whether a site must be loaded at all is told by its history alone, as its next daemon would decide."""

from __future__ import annotations

import io
import os
import sqlite3
import tempfile
from contextlib import closing
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linod.archive import FILE, PauseRecord
from linod.conf import Settings
from linod.daemon import plan as plan_module
from linod.daemon import recovery as recovery_module
from linod.daemon.alerting import Alerting
from linod.daemon.cached import what_is_due
from linod.daemon.clock import Timers
from linod.daemon.history import SqliteHistory
from linod.daemon.plan import Plan
from linod.daemon.recovery import Recovery
from linod.daemon.reporter import Reporter, TextSink
from linod.daemon.running import Running
from linod.runs import Outcome, Run
from linod.schedules import Interval, WallClock
from linod.task import Policies, Task

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PATIENCE = 10.0


def task(label: str = "t", schedule: Interval | WallClock | None = None, **policies: Any) -> Task:
    schedule = schedule or Interval(3600, 0.0)
    return Task(id=f"app.{label}", label=label, text="", schedule=schedule, policies=Policies(**policies))


def write(state: Path, *known: tuple[Task, datetime, datetime | None], runs: Any = (), pauses: Any = ()) -> Path:
    """A history as an earlier daemon has left it."""
    history = SqliteHistory(state, Settings())
    history.past()
    for position, (task, since, accounted) in enumerate(known):
        history.know(task, position, since, accounted)
    for run in runs:
        history.save(run)
    for pause in pauses:
        history.pause(PauseRecord(task=pause, since=NOON, reason="", by="root"))
    assert history.close(PATIENCE)
    return state


@pytest.mark.parametrize("damage", ["UPDATE tasks SET since = 'soon'", "DROP TABLE runs", None])
def test_a_history_that_cannot_be_read_is_a_reason_to_start_a_daemon(tmp_path: Path, damage: str | None) -> None:
    """It is the daemon that puts it aside; were it not started, the site would never run again."""
    write(tmp_path, (task(), NOON, NOON))
    if damage:
        with closing(sqlite3.connect(tmp_path / FILE)) as db:
            db.execute(damage)
            db.commit()
    else:
        (tmp_path / FILE).write_text("This is no database. " * 1000)
    assert what_is_due(tmp_path, NOON)
    history = SqliteHistory(tmp_path, Settings())
    assert history.past().tasks == {}
    assert history.close(PATIENCE)


def failed(at: datetime, **fields: Any) -> Run:
    values = {"id": 1, "task": "app.t", "due": at, "started": at, "ended": at, "outcome": Outcome.FAILED}
    return Run(**values | fields)


def test_a_site_that_was_never_loaded_must_be(tmp_path: Path) -> None:
    assert what_is_due(tmp_path, NOON) == "no daemon has loaded this site yet"
    assert not list(tmp_path.iterdir())
    assert what_is_due(write(tmp_path), NOON) == "no daemon has loaded this site yet"


def test_a_due_time_that_has_come_must_be_seen_to(tmp_path: Path) -> None:
    write(tmp_path, (task(), NOON, NOON))
    assert what_is_due(tmp_path, NOON + timedelta(minutes=59)) == ""
    assert what_is_due(tmp_path, NOON + HOUR) == "t is due"


def test_a_frequent_task_is_due_as_well(tmp_path: Path) -> None:
    write(tmp_path, (task("often", Interval(10, 0.0)), NOON, NOON))
    assert what_is_due(tmp_path, NOON + timedelta(seconds=10)) == "often is due"


def test_a_run_without_an_end_must_be_settled(tmp_path: Path) -> None:
    write(tmp_path, (task(), NOON, NOON), runs=[failed(NOON, ended=None, outcome=None)])
    assert what_is_due(tmp_path, NOON) == "a run has no end"


@pytest.mark.parametrize("accounted", [None, NOON + 9000 * HOUR])
def test_what_was_recorded_by_a_clock_that_was_far_ahead_must_be_seen_to_once(
    tmp_path: Path, accounted: datetime | None
) -> None:
    write(tmp_path, (task(), NOON + 8000 * HOUR if accounted is None else NOON - HOUR, accounted))
    assert what_is_due(tmp_path, NOON) == "t was recorded by a clock that was far ahead"
    what_recovery_does(tmp_path, [task()], NOON)
    # With the later record, the run that is due now was claimed, and is left to whoever comes next.
    assert what_is_due(tmp_path, NOON + timedelta(minutes=1)) == ("a run has no end" if accounted else "")
    assert what_is_due(tmp_path, NOON + HOUR) == ("a run has no end" if accounted else "t is due")


def test_a_run_that_failed_is_tried_again_when_its_time_has_come(tmp_path: Path) -> None:
    write(tmp_path, (task(retries=1, retry_delay=60), NOON - HOUR, NOON), runs=[failed(NOON)])
    assert what_is_due(tmp_path, NOON + timedelta(seconds=59)) == ""
    assert what_is_due(tmp_path, NOON + timedelta(seconds=75)) == "t is tried again"


def test_a_run_that_failed_before_a_pause_is_not_tried_again(tmp_path: Path) -> None:
    write(tmp_path, (task(retries=1), NOON + timedelta(seconds=1), NOON), runs=[failed(NOON)])
    assert what_is_due(tmp_path, NOON + timedelta(minutes=10)) == ""


@pytest.mark.parametrize("paused", ["", "app.t"])
def test_what_is_paused_is_not_due(tmp_path: Path, paused: str) -> None:
    write(tmp_path, (task(), NOON, NOON), pauses=[paused])
    assert what_is_due(tmp_path, NOON + HOUR) == ""


def test_a_disabled_task_is_not_due(tmp_path: Path) -> None:
    write(tmp_path, (task(enabled=False), NOON, NOON))
    assert what_is_due(tmp_path, NOON + HOUR) == ""


def test_a_task_that_cannot_be_read_wants_the_site_loaded(tmp_path: Path) -> None:
    history = SqliteHistory(tmp_path, Settings())
    history.past()
    history._put_statement("INSERT INTO tasks VALUES ('app.t', 0, '{}', 0, NULL)", ())
    assert history.close(PATIENCE)
    assert what_is_due(tmp_path, NOON) == "app.t was written by another version of linod"


def test_looking_leaves_no_trace(tmp_path: Path) -> None:
    write(tmp_path, (task(), NOON, NOON))
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    tmp_path.chmod(0o500)
    assert what_is_due(tmp_path, NOON + HOUR)
    tmp_path.chmod(0o700)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def what_recovery_does(state: Path, tasks: list[Task], instant: datetime) -> bool:
    """Whether a daemon that runs what is due, and then ends, would have anything to run or settle."""
    history = SqliteHistory(state, Settings())
    with (
        patch.object(plan_module, "now", lambda: instant),
        patch.object(recovery_module, "now", lambda: instant),
    ):
        reporter, timers, past = Reporter(TextSink(io.StringIO())), Timers(), history.past()
        plan = Plan(history, reporter, "boot", once=True)
        plan.resume(past)
        plan.adopt(tasks, past)
        running = Running(plan, history, timers, reporter, Alerting(history, timers, reporter))
        Recovery(past, plan, running, history, reporter, "boot", once=True).account()
        timers.run_due()
        acts = bool(past.unfinished) or not plan.is_empty()
        plan.close()
    assert history.close(PATIENCE)
    return acts


schedules = st.sampled_from(
    [Interval(10, 0.0), Interval(3600, 7.0), WallClock((time(12),), zone="UTC"), WallClock((time(20),), zone="UTC")]
)
minutes = st.integers(-3000, 200).map(lambda number: NOON + timedelta(minutes=number))
policies = st.fixed_dictionaries(
    {
        "catch_up": st.sampled_from(["once", "none", "all"]),
        "enabled": st.sampled_from([True, True, True, False]),
        "retries": st.integers(0, 2),
        "retry_delay": st.sampled_from([0, 60, 3600]),
        "rerun_lost": st.booleans(),
    }
)
outcomes = st.sampled_from([*Outcome, None])


@st.composite
def sites(draw: st.DrawFn) -> tuple[Any, ...]:
    known, runs, pauses = [], [], []
    for number in range(draw(st.integers(1, 3))):
        one = task(f"t{number}", draw(schedules), **draw(policies))
        known.append((one, draw(minutes), draw(st.none() | minutes)))
        for attempt in range(draw(st.integers(0, 2))):
            at, outcome = draw(minutes), draw(outcomes)
            ended = None if outcome in (None, Outcome.LOST) else at
            id = len(runs) + 1
            runs.append(failed(at, id=id, task=one.id, attempt=attempt + 1, outcome=outcome, ended=ended, boot="boot"))
        if draw(st.integers(0, 4)) == 0:
            pauses.append(draw(st.sampled_from(["", one.id])))
    return known, runs, pauses


@settings(max_examples=100)
@given(sites(), st.integers(0, 300).map(lambda number: NOON + timedelta(minutes=number)))
def test_history_alone_says_what_the_next_daemon_would_do(site: tuple[Any, ...], instant: datetime) -> None:
    known, runs, pauses = site
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as directory:
        state = write(Path(directory), *known, runs=runs, pauses=set(pauses))
        told = what_is_due(state, instant)
        assert bool(told) == what_recovery_does(state, [task for task, *_ in known], instant), told
