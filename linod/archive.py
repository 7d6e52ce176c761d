"""The history of a site as a file: its schema, and how everybody but the daemon reads it.

One SQLite database in write-ahead mode. The daemon is its only writer; the faces open it read-only, also while the
daemon writes, without loading Django.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .errors import HistoryError
from .instants import from_micros, to_micros
from .runs import Outcome, Run, Trigger
from .state import give_to_owner, why_unreadable

FILE = "history.sqlite3"
VERSION = 2
PATIENCE = 10.0  # seconds to wait for another connection's lock

SCHEMA = """
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
"""

PAUSES = """
CREATE TABLE pauses (
    task TEXT PRIMARY KEY,            -- its id; empty: the whole site
    since INTEGER NOT NULL,
    reason TEXT NOT NULL,
    by TEXT NOT NULL                  -- who has paused it
);
"""

# What brings a history from each version to the next; the first one makes a new file.
STEPS = (SCHEMA, PAUSES)

COLUMNS = tuple(field.name for field in fields(Run))
INSTANTS = ("due", "started", "ended")
TEXTS = ("reason", "traceback", "output")
values_of = attrgetter(*COLUMNS)
INSTANTS_AT = [COLUMNS.index(name) for name in INSTANTS]
TEXTS_AT = [COLUMNS.index(name) for name in TEXTS]


def connect(path: Path) -> sqlite3.Connection:
    """Open the history for writing, making or upgrading it; raises HistoryError or sqlite3.Error."""
    db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    give_to_owner(path)
    try:
        prepare(db, path)
    except BaseException:
        db.close()
        raise
    return db


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Set a writing connection up, and make or upgrade the tables."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA cache_size = -512")  # KiB; the default would grow to 2 MiB, and the daemon only appends
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise HistoryError(
            f"{path} was written by a newer linod (schema {version}, this one knows {VERSION}).",
            "Install that version again, or put the file aside to begin a new history.",
        )
    if version < VERSION:
        steps = "".join(STEPS[version:])
        db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;")


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open the history for reading only, whether its daemon is up, was stopped or was killed."""
    # Without its -wal file nobody writes, and a reader who may not write could not make one.
    immutable = "" if os.path.exists(f"{path}-wal") else "&immutable=1"
    db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro{immutable}", uri=True, timeout=PATIENCE)
    db.execute("SELECT count(*) FROM sqlite_schema")
    return db


@dataclass(frozen=True, kw_only=True)
class PauseRecord:
    """Why a task, or the whole site where `task` is empty, is paused."""

    task: str
    since: datetime
    reason: str
    by: str


class Archive:
    """The history of one site, read by a face. An empty one where no daemon has run yet."""

    def __init__(self, state: Path) -> None:
        self.path = state / FILE
        self._db: sqlite3.Connection | None = None
        self._version = 0
        try:
            self.path.stat()
        except FileNotFoundError:
            return
        except PermissionError:
            raise HistoryError("The history cannot be read.", why_unreadable(self.path)) from None
        try:
            self._db = connect_read_only(self.path)
            self._version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if not self._version:
                self._db = None  # its first daemon is making it at this moment
        except sqlite3.Error as error:
            if not os.access(self.path, os.R_OK):
                raise HistoryError("The history cannot be read.", why_unreadable(self.path)) from None
            raise HistoryError(f"The history {self.path} cannot be read: {error}.") from None

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._db is not None:
            self._db.close()

    def last_starts(self) -> dict[str, datetime]:
        """When each task was last started, by its id."""
        rows = self._rows("SELECT task, max(started) FROM runs WHERE started IS NOT NULL GROUP BY task")
        return {task: from_micros(started) for task, started in rows}

    def tasks(self) -> list[dict[str, Any]]:
        """What the daemon knows of each task, in the order of declaration, as the columns of the table."""
        rows = self._rows("SELECT id, task, since, accounted FROM tasks ORDER BY position")
        return [dict(zip(("id", "task", "since", "accounted"), row, strict=True)) for row in rows]

    def pauses(self) -> dict[str, PauseRecord]:
        """What is paused: by the task's id, or by an empty text for the whole site."""
        if self._version < 2:
            return {}
        rows = self._rows("SELECT task, since, reason, by FROM pauses")
        return {
            task: PauseRecord(task=task, since=from_micros(since), reason=reason, by=by)
            for task, since, reason, by in rows
        }

    def runs(self, *, task: str | None = None, bad: bool = False, limit: int = 50) -> list[Run]:
        """The latest runs, the newest first; `bad` ones only, if wished. Claims that never began are left out."""
        where, values = ["(started IS NOT NULL OR outcome IS NOT NULL)"], []
        if task is not None:
            where.append("task = ?")
            values.append(task)
        if bad:
            where.append("outcome IN ('failed', 'timed_out', 'crashed', 'lost')")
        rows = self._rows(
            f"SELECT {', '.join(COLUMNS)} FROM runs WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?",
            [*values, limit],
        )
        return [run_from_row(row) for row in rows]

    def run(self, id: int) -> Run | None:
        """One run, whole."""
        rows = self._rows(f"SELECT {', '.join(COLUMNS)} FROM runs WHERE id = ?", [id])
        return next(map(run_from_row, rows), None)

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> Iterable[Any]:
        if self._db is None:
            return []
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise HistoryError(f"The history {self.path} cannot be read: {error}.") from None


def row_from_run(run: Run) -> list[Any]:
    """The values of a run's columns, in the order of COLUMNS."""
    values = list(values_of(run))
    for index in INSTANTS_AT:
        if values[index] is not None:
            values[index] = to_micros(values[index])
    for index in TEXTS_AT:
        if values[index]:
            values[index] = storable(values[index])
    return values


def storable(text: str) -> str:
    """A text as SQLite can keep it: it ends one at a NUL, and gives no row back whose text is not Unicode."""
    text = text.replace("\0", "\N{SYMBOL FOR NULL}")
    # Python makes surrogates of bytes that it could not decode, as in the name of a file.
    return text.encode("utf-8", "backslashreplace").decode()


def run_from_row(row: Sequence[Any]) -> Run:
    values = dict(zip(COLUMNS, row, strict=True))
    for name in INSTANTS:
        if values[name] is not None:
            values[name] = from_micros(values[name])
    values["trigger"] = Trigger(values["trigger"])
    values["outcome"] = values["outcome"] and Outcome(values["outcome"])
    return Run(**values)
