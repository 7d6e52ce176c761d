"""A history that another user has filled is read by root as well: it is told what is wrong with it, soon."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from linod import archive
from linod.archive import COLUMNS, FILE, Archive, connect, row_from_run
from linod.bar import line_of
from linod.errors import HistoryError
from linod.runs import Outcome, Run

TABLES = "runs", "pauses"
HOLDS = "holds what linod has not written"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A history with a run and a pause, whose tables take anything."""
    due = datetime(2026, 11, 24, 20, tzinfo=UTC)
    run = Run(id=1, task="app.work", due=due, started=due, outcome=Outcome.FAILED, duration=1.0)
    with closing(connect(tmp_path / FILE)) as db:
        db.execute(
            f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})", row_from_run(run)
        )
        db.execute("INSERT INTO pauses VALUES ('', 0, '', '')")
        for table in TABLES:
            db.execute(f"CREATE TABLE other AS SELECT * FROM {table}")
            db.execute(f"DROP TABLE {table}")
            db.execute(f"ALTER TABLE other RENAME TO {table}")
    return tmp_path


@contextmanager
def changed(state: Path, script: str) -> Iterator[Archive]:
    with closing(sqlite3.connect(state / FILE)) as db:
        db.executescript(script)
    with Archive(state) as found:
        yield found


@pytest.mark.claim("S6")
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("value", ["x'ff'", "9e999", "1e300", str(2**62), str(-(2**62)), "'x'", "''", "NULL"])
def test_a_run_has_what_linod_has_written_or_it_is_told(state: Path, column: str, value: str) -> None:
    with changed(state, f"UPDATE runs SET {column} = {value}") as found:
        try:
            [run] = found.runs()
        except (HistoryError, ValueError) as error:
            assert HOLDS in str(error) or column in ("started", "outcome")  # then it is none that has happened
            return
    for instant in (run.due, run.started, run.ended):
        assert instant is None or instant.year < 9001
    assert all(type(getattr(run, name)) in (str, int) for name in ("id", "task", "reason", "output", "dues"))
    assert run.duration is None or run.duration < float("inf")


@pytest.mark.parametrize(
    "change",
    [
        *(f"{name} = {value}" for name in ("task", "reason", "by") for value in ("x'ff'", "NULL", "1e300")),
        "since = 'x'",
    ],
)
def test_a_pause_as_well(state: Path, change: str) -> None:
    free = "CREATE TABLE free AS SELECT * FROM pauses; DROP TABLE pauses; "
    blank = "CREATE TABLE pauses (task, since, reason, by); INSERT INTO pauses SELECT * FROM free; "
    script = f"{free}{blank}UPDATE pauses SET {change}"
    with changed(state, script) as found, pytest.raises(HistoryError, match=HOLDS):
        found.pauses()


@pytest.mark.parametrize("values", ["outcome = 'x'", "started = 'x'", f"started = {2**62}"])
def test_failures_in_a_row_as_well(state: Path, values: str) -> None:
    with changed(state, f"UPDATE runs SET {values}") as found, pytest.raises(HistoryError, match=HOLDS):
        found.streak("app.work")


ENDLESS = """
DROP TABLE runs;
CREATE VIEW runs AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
    SELECT 1 AS started, NULL AS outcome, 'x' AS task, i AS id FROM n;
"""


@pytest.mark.claim("S5")
def test_a_view_without_end_is_given_up(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PATIENCE", 0.2)
    with changed(state, ENDLESS) as found, pytest.raises(HistoryError, match="interrupted"):
        found.tasks_that_ran()


@pytest.mark.claim("S5")
def test_a_value_that_would_fill_the_memory_is_not_read(state: Path) -> None:
    script = "UPDATE runs SET output = zeroblob(100000000)"
    with changed(state, script) as found, pytest.raises(HistoryError, match="too big"):
        found.runs()


def test_a_bar_of_no_number_is_none() -> None:
    for done, total in ((float("nan"), 1.0), (1.0, float("nan")), (float("inf"), float("inf"))):
        assert "#" not in line_of(done, total, "x")
