"""Pauses on the disk: kept by every version, made without a daemon, and left to the user of the site."""

from __future__ import annotations

import os
import select
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from linod.archive import FILE, Archive, PauseRecord, connect
from linod.conf import Settings
from linod.daemon import offline
from linod.daemon.history import SqliteHistory
from linod.daemon.lock import lock_site
from linod.daemon.pauses import LONGEST, make_pause, say_paused, say_resumed
from linod.errors import HistoryError, SiteLocked
from linod.names import UnknownTask
from linod.runs import Outcome
from linod.schedules import Interval
from linod.task import Task
from linod.words import clock

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
NOBODY = 65534
PATIENCE = 10.0
PAUSE = PauseRecord(task="app.t", since=NOON, reason="why", by="root")

# As the first version wrote it.
FIRST_SCHEMA = """
CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    task TEXT NOT NULL,               -- the task as JSON
    since INTEGER NOT NULL,           -- known, enabled, and with this very schedule since
    accounted INTEGER                 -- the latest due time that was started or skipped
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    due INTEGER NOT NULL,
    lap INTEGER NOT NULL,             -- how often the clock was set back before
    attempt INTEGER NOT NULL,
    trigger TEXT NOT NULL,
    dues INTEGER NOT NULL,
    boot TEXT NOT NULL,
    pid INTEGER,
    born INTEGER,
    started INTEGER,
    ended INTEGER,
    outcome TEXT,
    reason TEXT NOT NULL,
    traceback TEXT NOT NULL,
    output TEXT NOT NULL,
    output_bytes INTEGER NOT NULL,
    duration REAL,
    cpu REAL,
    peak_memory INTEGER
);
CREATE UNIQUE INDEX runs_once ON runs (task, due, attempt, lap);
CREATE INDEX runs_of_task ON runs (task, id);
CREATE INDEX runs_unfinished ON runs (id) WHERE outcome IS NULL;
PRAGMA user_version = 1;
"""
FIRST_TASK = """INSERT INTO tasks VALUES ('app.t', 0,
'{"id":"app.t","label":"t","text":"","schedule":{"kind":"interval","seconds":60,"phase":0.0},"policies":{},
"source":"","tags":[]}', 1795521600000000, 1795521660000000)"""
FIRST_RUN = """INSERT INTO runs VALUES (7, 'app.t', 1795521660000000, 0, 1, 'schedule', 1, 'boot', 12, 34,
1795521660000000, 1795521661000000, 'failed', 'why', 'where', 'what', 4, 1.0, 0.5, 1000)"""


def task(label: str = "t") -> Task:
    return Task(id=f"app.{label}", label=label, text="", schedule=Interval(60, 0.0))


@pytest.fixture
def history(tmp_path: Path) -> Iterator[SqliteHistory]:
    history = SqliteHistory(tmp_path, Settings())
    history.past()
    yield history
    history.close(PATIENCE)


def known(state: Path, *tasks: Task) -> Path:
    """A state directory in which a daemon has left these tasks."""
    history = SqliteHistory(state, Settings())
    history.past()
    for position, task in enumerate(tasks):
        history.know(task, position, NOON, None)
    assert history.close(PATIENCE)
    return state


def pauses(state: Path) -> dict[str, PauseRecord]:
    with Archive(state) as archive:
        return archive.pauses()


def since(state: Path) -> dict[str, int]:
    with Archive(state) as archive:
        return {task["id"]: task["since"] for task in archive.tasks()}


# Versions


def test_a_history_of_the_first_version_is_kept_whole(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / FILE)
    db.executescript(FIRST_SCHEMA)
    db.execute(FIRST_TASK)
    db.execute(FIRST_RUN)
    before = [db.execute(f"SELECT * FROM {table}").fetchall() for table in ("tasks", "runs")]
    db.commit()
    db.close()
    assert pauses(tmp_path) == {}, "a face reads it before a daemon has upgraded it"
    history = SqliteHistory(tmp_path, Settings())
    past = history.past()
    assert (past.last_id, set(past.tasks), past.pauses) == (7, {"app.t"}, {})
    assert past.last_runs["app.t"].outcome is Outcome.FAILED
    history.pause(PAUSE)
    assert history.close(PATIENCE)
    with connect(tmp_path / FILE) as db:
        assert [db.execute(f"SELECT * FROM {table}").fetchall() for table in ("tasks", "runs")] == before
    db.close()
    assert pauses(tmp_path) == {"app.t": PAUSE}


# With a daemon


def written(history: SqliteHistory) -> str:
    """Wait until all is written; the trouble, if there was any."""
    told: list[str] = []
    history.when_written(told.append)
    history.turn_finished()
    end = time.monotonic() + PATIENCE
    while not told and time.monotonic() < end:
        select.select([history], [], [], 0.1)
        history.answers()
    [trouble] = told
    return trouble


def test_a_pause_is_on_the_disk_when_that_is_told(history: SqliteHistory, tmp_path: Path) -> None:
    history.pause(PAUSE)
    assert written(history) == ""
    assert pauses(tmp_path) == {"app.t": PAUSE}
    history.resume("app.t", NOON)
    assert written(history) == ""
    assert pauses(tmp_path) == {}


def test_a_pause_that_cannot_be_written_is_told(history: SqliteHistory, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / FILE)
    other.execute("PRAGMA busy_timeout = 0")
    history._file.ready().execute("PRAGMA busy_timeout = 0")
    other.execute("BEGIN EXCLUSIVE")
    history.pause(PAUSE)
    assert "locked" in written(history)
    assert "locked" in written(history)
    other.rollback()
    other.close()
    history.close(PATIENCE)
    assert pauses(tmp_path) == {"app.t": PAUSE}


@pytest.mark.parametrize(("paused", "begun_anew"), [("app.a", {"app.a"}), ("", {"app.a", "app.b"})])
def test_who_was_paused_is_known_since_the_end_of_it(
    history: SqliteHistory, tmp_path: Path, paused: str, begun_anew: set[str]
) -> None:
    for position, label in enumerate("ab"):
        history.know(task(label), position, NOON, None)
    history.resume(paused, NOON + timedelta(hours=1))
    assert written(history) == ""
    times = since(tmp_path)
    assert {id for id, time in times.items() if time > min(times.values()) or len(begun_anew) == 2} == begun_anew


# Without a daemon


def test_a_task_is_paused_and_resumed_by_its_name(tmp_path: Path) -> None:
    known(tmp_path, task())
    before = since(tmp_path)
    assert offline.pause(tmp_path, "t", reason="why", by="luc") == "t is paused."
    [pause] = pauses(tmp_path).values()
    assert (pause.task, pause.reason, pause.by) == ("app.t", "why", "luc")
    assert since(tmp_path) == before
    assert offline.resume(tmp_path, "t") == "t is resumed."
    assert pauses(tmp_path) == {}
    assert since(tmp_path) != before
    assert offline.resume(tmp_path, "t") == "t is not paused."


def test_a_task_of_an_unknown_name_is_not_paused(tmp_path: Path) -> None:
    known(tmp_path, task("checkdata"))
    with pytest.raises(UnknownTask, match=r"Did you mean checkdata\?"):
        offline.pause(tmp_path, "checkdate", reason="", by="")
    assert pauses(tmp_path) == {}


def test_a_task_that_is_declared_no_more_can_be_resumed(tmp_path: Path) -> None:
    known(tmp_path)
    history = SqliteHistory(tmp_path, Settings())
    history.past()
    history.pause(PAUSE)
    assert history.close(PATIENCE)
    assert offline.resume(tmp_path, "app.t") == "app.t is resumed."


def test_a_site_is_paused_before_it_has_ever_been_loaded(tmp_path: Path) -> None:
    assert offline.pause(tmp_path, "", reason="", by="luc") == "The whole site is paused."
    assert set(pauses(tmp_path)) == {""}


def test_nothing_is_paused_where_there_is_no_state(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="There is no"):
        offline.pause(tmp_path / "gone", "", reason="", by="")


def test_a_site_that_is_locked_is_left_to_who_has_locked_it(tmp_path: Path) -> None:
    known(tmp_path)
    lock = lock_site(tmp_path)
    try:
        with pytest.raises(SiteLocked):
            offline.pause(tmp_path, "", reason="", by="")
    finally:
        os.close(lock)
    assert pauses(tmp_path) == {}


def test_a_pause_that_root_makes_belongs_to_the_user_of_the_site(tmp_path: Path) -> None:
    assert os.geteuid() == 0, "this test must be run by root"
    os.chown(tmp_path, NOBODY, NOBODY)
    offline.pause(tmp_path, "", reason="", by="root")
    found = {path.name: path.stat().st_uid for path in tmp_path.iterdir()}
    assert set(found.values()) == {NOBODY} and FILE in found


# Words


def test_a_reason_is_one_line_and_not_too_long() -> None:
    pause = make_pause(None, task="", reason="a\n\x1b[31mb\t" + "x" * 1000, by="r\0", now=NOON)
    assert pause.reason.startswith("a [31mb xxx") and len(pause.reason) == LONGEST
    assert pause.by == "r"


def test_who_pauses_twice_is_told_since_when() -> None:
    assert say_paused("t", PAUSE, None) == "t is paused."
    assert say_paused("t", PAUSE, PAUSE) == f"t has been paused since {clock(NOON)} by root: why."


def test_who_resumes_is_told_what_is_still_paused() -> None:
    assert say_resumed("", PAUSE, None) == "The whole site is resumed."
    assert say_resumed("", None, None) == "The whole site is not paused."
    site = f"but the whole site is paused since {clock(NOON)} by root: why."
    assert say_resumed("t", PAUSE, PAUSE) == f"t is resumed, {site}"
    assert say_resumed("t", None, PAUSE) == f"t is not paused, {site}"
