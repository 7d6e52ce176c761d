"""Totals of runs, kept by a real history: they only grow, and count each run once."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any

import pytest

from linod.archive import COLUMNS, COUNTED, FILE, STEPS, Archive, connect, row_from_run
from linod.conf import Settings
from linod.daemon.history import SqliteHistory
from linod.runs import Outcome, Run, Trigger
from linod.schedules import Interval
from linod.task import Policies, Task
from linod.totals import DURATIONS, LATENESS

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TASK = "app.work"
PATIENCE = 10.0


def run(id: int, *, late: float = 0.0, took: float | None = 1.5, **fields: Any) -> Run:
    """A run that succeeded, unless the fields say otherwise."""
    due = NOON + timedelta(seconds=10 * id)
    started = due + timedelta(seconds=late)
    ended = started + timedelta(seconds=took or 0)
    values = {"due": due, "started": started, "ended": ended, "duration": took, "outcome": Outcome.SUCCEEDED}
    return Run(id=id, **({"task": TASK} | values | fields))


def claim(id: int) -> Run:
    return run(id, started=None, ended=None, outcome=None, took=None)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[SqliteHistory]:
    history = SqliteHistory(tmp_path, Settings(keep_days=1, keep_failures_days=1))
    history.past()
    yield history
    assert history.close(PATIENCE)


def write(history: SqliteHistory, *runs: Run) -> None:
    """Save runs, and wait until they are on the disk."""
    for one in runs:
        history.save(one)
    settle(history)


def prune(history: SqliteHistory) -> None:
    """All steps of it."""
    assert all(history.prune())


def settle(history: SqliteHistory) -> None:
    written: list[str] = []
    history.when_written(written.append)
    history.turn_finished()
    until(lambda: history.answers() == [] and written)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def counts(state: Path, task: str = TASK) -> dict[str, int]:
    with Archive(state) as archive:
        return {outcome.value: total.runs for (_task, outcome), total in archive.totals([task]).items()}


def test_a_run_is_counted_once_though_it_is_written_at_each_step(history: SqliteHistory, tmp_path: Path) -> None:
    history.claim(claim(1), durable=False)
    settle(history)
    write(history, run(1, ended=None, outcome=None, took=None))
    assert counts(tmp_path) == {}
    write(history, run(1))
    write(history, run(1, output="its last words came later"))
    assert counts(tmp_path) == {"succeeded": 1}


def test_a_run_that_is_written_only_when_it_is_over_is_counted(history: SqliteHistory, tmp_path: Path) -> None:
    write(history, run(1), run(2, outcome=Outcome.FAILED), run(3, started=None, took=None, outcome=Outcome.SKIPPED))
    assert counts(tmp_path) == {"succeeded": 1, "failed": 1, "skipped": 1}


def test_a_claim_that_is_withdrawn_or_refused_is_not_counted(history: SqliteHistory, tmp_path: Path) -> None:
    history.claim(claim(1), durable=False)
    settle(history)
    history.withdraw(claim(1))
    write(history, run(2), run(3, due=run(2).due))  # the due time of run 3 is that of another one
    assert counts(tmp_path) == {"succeeded": 1}


def test_what_was_written_in_vain_is_counted_when_it_is_written(history: SqliteHistory, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE, timeout=PATIENCE)) as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON lateness BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        history.save(run(1))
        history.turn_finished()
        until(lambda: history.trouble)
        assert counts(tmp_path) == {}
        db.execute("DROP TRIGGER full")
    until(lambda: not history.trouble)
    assert counts(tmp_path) == {"succeeded": 1}


def test_totals_do_not_shrink_when_history_forgets_runs(history: SqliteHistory, tmp_path: Path) -> None:
    history.know(task(), 0, NOON, None)
    write(history, *(run(id) for id in range(1, 101)))
    prune(history)
    with Archive(tmp_path) as archive:
        assert len(archive.runs()) < 100
    assert counts(tmp_path) == {"succeeded": 100}


def test_totals_go_with_the_last_that_is_known_of_a_task(history: SqliteHistory, tmp_path: Path) -> None:
    history.know(task(), 0, NOON, None)
    write(history, run(1))
    history.forget(TASK)
    settle(history)
    prune(history)
    assert counts(tmp_path) == {"succeeded": 1}  # its run is still there
    with closing(sqlite3.connect(tmp_path / FILE, timeout=PATIENCE)) as db, db:
        db.execute("DELETE FROM runs")
    prune(history)
    assert counts(tmp_path) == {}
    with Archive(tmp_path) as archive:
        assert sum(archive.durations([TASK])[TASK].runs) == 0


def test_a_task_keeps_its_totals_under_another_name(history: SqliteHistory, tmp_path: Path) -> None:
    write(history, run(1), run(2, outcome=Outcome.CRASHED))
    history.rename(TASK, "app.labour")
    settle(history)
    assert counts(tmp_path) == {}
    assert counts(tmp_path, "app.labour") == {"succeeded": 1, "crashed": 1}


def test_durations_are_counted_below_their_bounds(history: SqliteHistory, tmp_path: Path) -> None:
    took = (0.0, 0.01, 0.011, 59.0, 5000.0)
    write(history, *(run(id, took=seconds) for id, seconds in enumerate(took, start=1)), run(9, took=None))
    with Archive(tmp_path) as archive:
        spread = archive.durations([TASK])[TASK]
    bounds = (*DURATIONS, inf)
    assert {bound: n for bound, n in zip(bounds, spread.runs, strict=True) if n} == {0.01: 2, 0.1: 1, 60: 1, inf: 1}
    assert spread.seconds == pytest.approx(sum(took))


def test_only_what_a_schedule_starts_can_be_late(history: SqliteHistory, tmp_path: Path) -> None:
    others = [run(id, late=5000, trigger=trigger) for id, trigger in enumerate(Trigger, start=10) if id > 10]
    write(history, run(1, late=0.0005), run(2, late=0.5), run(3, late=3600), run(4, late=-1), *others)
    with Archive(tmp_path) as archive:
        spread = archive.lateness()
    bounds = (*LATENESS, inf)
    assert {bound: n for bound, n in zip(bounds, spread.runs, strict=True) if n} == {0.001: 2, 1: 1, inf: 1}
    assert spread.seconds == pytest.approx(3600.5005)


def test_the_latest_of_an_outcome_is_known_when_its_run_is_forgotten(history: SqliteHistory, tmp_path: Path) -> None:
    write(history, run(2), run(1), run(3, outcome=Outcome.FAILED))
    prune(history)
    with Archive(tmp_path) as archive:
        totals = archive.totals([TASK])
    assert totals[TASK, Outcome.SUCCEEDED].latest == run(2).ended


def test_an_earlier_history_begins_with_the_runs_that_it_has(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        before = COUNTED - 1
        db.executescript("".join(STEPS[:before]) + f"PRAGMA user_version = {before};")
        marks = ", ".join("?" * len(COLUMNS))
        for one in (run(1), run(2), run(3, outcome=Outcome.LOST, ended=None, took=None), claim(4)):
            db.execute(f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({marks})", row_from_run(one))
        db.commit()
    assert counts(tmp_path) == {}
    connect(tmp_path / FILE).close()
    assert counts(tmp_path) == {"succeeded": 2, "lost": 1}
    with Archive(tmp_path) as archive:
        assert archive.totals([TASK])[TASK, Outcome.SUCCEEDED].latest == run(2).ended


def task() -> Task:
    return Task(id=TASK, label="work", text="", schedule=Interval(10, phase=0.0), policies=Policies())
