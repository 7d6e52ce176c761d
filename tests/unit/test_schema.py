"""Histories of other versions of linod: upgraded as a whole or left as they are, read by faces, or refused in words."""

import re
import signal
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from linod.archive import COLUMNS, FILE, STEPS, VERSION, Archive, connect, row_from_run
from linod.conf import Settings
from linod.daemon.history import SqliteHistory
from linod.errors import HistoryError
from linod.runs import Outcome, Run

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
# The steps that files out there were made with. One that is among them never changes; a new one is added here.
WRITTEN = (2250126484, 1417972011, 1604552967, 2186798793, 3021524138)
OLD = range(1, VERSION)
RUNS = [
    Run(id=1, task="app.work", due=NOON, started=NOON, ended=NOON, outcome=Outcome.SUCCEEDED, output="x" * 1000),
    Run(id=2, task="app.work", due=NOON.replace(hour=13), started=NOON, ended=NOON, outcome=Outcome.FAILED),
    Run(id=3, task="app.work", due=NOON.replace(hour=14)),
]


def make(state: Path, version: int) -> None:
    """A history as that version of the schema has it."""
    with closing(sqlite3.connect(state / FILE, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript("".join(STEPS[:version]))
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("INSERT INTO tasks VALUES ('app.work', 0, '{}', 7, 8)")
        if version >= 2:
            db.execute("INSERT INTO pauses VALUES ('app.work', 9, 'broken', 'root')")
        places = ", ".join("?" * len(COLUMNS))
        db.executemany(f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({places})", map(row_from_run, RUNS))


def everything(path: Path) -> list[str]:
    """What is in a file, by whatever version it was made: its schema and its rows."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return [str(db.execute("PRAGMA user_version").fetchone()), *sorted(db.iterdump())]


def uncounted(dump: list[str]) -> list[str]:
    """Without what is counted only while runs are written."""
    return [line for line in dump if not line.startswith(('INSERT INTO "durations"', 'INSERT INTO "lateness"'))]


def test_a_step_that_files_were_made_with_never_changes() -> None:
    assert tuple(zlib.crc32(" ".join(step.split()).encode()) for step in STEPS) == WRITTEN
    assert len(STEPS) == VERSION


@pytest.mark.claim("H11")
@pytest.mark.parametrize("version", OLD)
def test_a_file_of_each_earlier_version_becomes_one_of_ours_and_keeps_what_it_has(tmp_path: Path, version: int) -> None:
    (tmp_path / "new").mkdir()
    make(tmp_path, version)
    make(tmp_path / "new", VERSION)
    if version < 2:
        with closing(sqlite3.connect(tmp_path / "new" / FILE)) as db:
            db.execute("DELETE FROM pauses")
            db.commit()
    history = SqliteHistory(tmp_path, Settings())
    past = history.past()
    assert (list(past.tasks), past.last_id, [run.id for run in past.unfinished]) == (["app.work"], 3, [3])
    assert list(past.pauses) == (["app.work"] if version >= 2 else [])
    assert history.close(10)
    assert uncounted(everything(tmp_path / FILE)) == uncounted(everything(tmp_path / "new" / FILE))


@pytest.mark.claim("H11")
@pytest.mark.parametrize("version", [*OLD, VERSION])
def test_faces_read_each_version(tmp_path: Path, version: int) -> None:
    make(tmp_path, version)
    before = everything(tmp_path / FILE)
    with Archive(tmp_path) as archive:
        assert archive.runs() == RUNS[1::-1]
        assert archive.runs(task="app.work", bad=True, since=NOON) == [RUNS[1]]
        assert archive.unfinished() == [RUNS[2]]
        assert (archive.run(1), archive.last_run("app.work"), archive.last_attempt("app.work")) == (
            RUNS[0],
            RUNS[1],
            RUNS[1],
        )
        assert archive.last_starts() == {"app.work": NOON}
        assert [row["id"] for row in archive.tasks()] == archive.tasks_that_ran() == ["app.work"]
        assert list(archive.pauses()) == (["app.work"] if version >= 2 else [])
        assert archive.failures_since(NOON) == {"app.work": 1}
        assert archive.streak("app.work").count == 1
    assert everything(tmp_path / FILE) == before


@pytest.mark.claim("H11")
def test_a_newer_version_is_refused_in_words_by_the_daemon_and_by_faces(tmp_path: Path) -> None:
    make(tmp_path, VERSION)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = everything(tmp_path / FILE)
    said = re.escape(
        f"{tmp_path / FILE} was written by a newer linod (schema {VERSION + 1}, this one knows {VERSION})."
        " Install that version again, or put the file aside to begin a new history."
    )
    with pytest.raises(HistoryError, match=said):
        SqliteHistory(tmp_path, Settings())
    with pytest.raises(HistoryError, match=said):
        Archive(tmp_path)
    assert everything(tmp_path / FILE) == before


# In the middle of an upgrade, with the new tables there and not yet committed.
KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from linod import archive

path = Path(sys.argv[1])
db = sqlite3.connect(path, isolation_level=None)
db.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
archive.STEPS = (*archive.STEPS[:-1], archive.STEPS[-1] + "SELECT die();")
archive.prepare(db, path)
"""

FULL = """
import resource, sqlite3, sys
from pathlib import Path
from linod.archive import connect

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    connect(Path(sys.argv[1]))
except sqlite3.OperationalError:
    sys.exit(3)
"""


@pytest.mark.claim("H11")
@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize(("program", "code"), [(KILLED, -signal.SIGKILL), (FULL, 3)], ids=["killed", "full disk"])
def test_an_upgrade_that_cannot_be_finished_leaves_the_file_as_it_was(
    tmp_path: Path, version: int, program: str, code: int
) -> None:
    make(tmp_path, version)
    before = everything(tmp_path / FILE)
    ended = subprocess.run([sys.executable, "-c", program, tmp_path / FILE], cwd=ROOT, timeout=20, capture_output=True)
    assert ended.returncode == code, ended.stderr
    assert everything(tmp_path / FILE) == before
    connect(tmp_path / FILE).close()
    with Archive(tmp_path) as archive:
        assert archive.runs() == RUNS[1::-1]
