"""The history of a site as a file: its schema, and how everybody but the daemon reads it.

One SQLite database in write-ahead mode. The daemon is its only writer; the faces open it read-only, also while the
daemon writes, without loading Django.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol, get_args, get_type_hints
from urllib.parse import quote

from .errors import HistoryError
from .instants import from_micros, to_micros
from .runs import Outcome, Run, Trigger
from .state import give_to_owner, why_unreadable
from .totals import DURATIONS, LATENESS, Spread, Total
from .totals import SCHEMA as TOTALS

FILE = "history.sqlite3"
ASIDE = re.compile(re.escape(FILE) + r"\.(damaged|replaced)-[0-9T]+(-[0-9]+)?")
OPENED = ("", "-wal", "-shm", "-journal")  # by SQLite, after the name of the file
VERSION = 5
COUNTED = 4  # the version since which there are totals
PATIENCE = 10.0  # seconds to wait for another connection's lock, and for a statement of a face
# SQLite's codes for a file that is not, or not wholly, what it has written.
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
LARGEST = 64 << 20  # bytes of a value that a face reads

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

# When a run went wrong, for "how many in the last day" on fifty sites: few rows, and no need to look at the others.
WENT_WRONG = "outcome IN ('failed', 'timed_out', 'crashed', 'lost')"
WHEN = "coalesce(ended, started, due)"
FAILURES = f"CREATE INDEX runs_bad ON runs ({WHEN}, task) WHERE {WENT_WRONG};"

ALERTS = """
CREATE TABLE troubles (
    task TEXT NOT NULL,               -- its id
    trouble TEXT NOT NULL,            -- what people know of it: that it is failing, late or stuck
    since INTEGER NOT NULL,
    PRIMARY KEY (task, trouble)
);
CREATE TABLE untold (
    number INTEGER PRIMARY KEY,
    channels TEXT NOT NULL,           -- by which people are still to be told, with a blank between them
    alert TEXT NOT NULL               -- as JSON
);
CREATE TABLE told (
    channel TEXT PRIMARY KEY,
    since INTEGER NOT NULL,           -- when people were last told something by it
    number INTEGER NOT NULL           -- of the latest alert
);
"""

# What brings a history from each version to the next; the first one makes a new file.
STEPS = (SCHEMA, PAUSES, FAILURES, TOTALS, ALERTS)

COLUMNS = tuple(field.name for field in fields(Run))
INSTANTS = ("due", "started", "ended")
TEXTS = ("reason", "traceback", "output")
HAPPENED = "(started IS NOT NULL OR outcome IS NOT NULL)"
ATTEMPTS = "SELECT outcome, started, due FROM runs WHERE task = ? AND outcome <> 'skipped' ORDER BY id DESC LIMIT ?"
values_of = attrgetter(*COLUMNS)
INSTANTS_AT = [COLUMNS.index(name) for name in INSTANTS]
TEXTS_AT = [COLUMNS.index(name) for name in TEXTS]
# What a column holds for each type of a run's field.
STORED = {datetime: int, Trigger: str, Outcome: str}
KINDS = [tuple(STORED.get(kind, kind) for kind in get_args(hint) or (hint,)) for hint in get_type_hints(Run).values()]
LATEST = to_micros(datetime(9000, 1, 1, tzinfo=UTC))  # any zone can show it


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
    version = version_of(db, path)
    if version < VERSION:
        steps = "".join(STEPS[version:])
        db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;")


def version_of(db: sqlite3.Connection, path: Path) -> int:
    """The version of its schema, 0 where it has none yet; raises HistoryError for one that is not known yet."""
    return known_version(int(db.execute("PRAGMA user_version").fetchone()[0]), path)


def known_version(version: int, path: Path) -> int:
    """A version of the schema that this linod can read; raises HistoryError for any other."""
    if version > VERSION:
        raise HistoryError(
            f"{path} was written by a newer linod (schema {version}, this one knows {VERSION}).",
            "Install that version again, or put the file aside to begin a new history.",
        )
    return version


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open the history for reading only, whether its daemon is up, was stopped or was killed."""
    # Without its -wal file nobody writes, and a reader who may not write could not make one.
    immutable = "" if os.path.exists(f"{path}-wal") else "&immutable=1"
    db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro{immutable}", uri=True, timeout=PATIENCE)
    # It may be another user's, who has written anything there.
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
    db.execute("SELECT count(*) FROM sqlite_schema")
    return db


def require_files(path: Path) -> None:
    """Raises HistoryError where what SQLite would open is no file, and OSError where the history cannot be found.

    Root reads it as well, whatever the user of the site has put there: a pipe would keep it waiting for ever.
    """
    for ending in OPENED:
        try:
            mode = os.stat(f"{path}{ending}").st_mode
        except FileNotFoundError:
            if not ending:
                raise
            continue
        if not stat.S_ISREG(mode):
            raise HistoryError(f"The history {path}{ending} is no file.", "Put it aside to begin a new one.")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, and not a lock, a full disk or a right that is missing."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in DAMAGE or code == sqlite3.SQLITE_IOERR_SHORT_READ


def unreadable(path: Path, error: sqlite3.Error) -> HistoryError:
    """In words: what keeps a face from reading it."""
    hint = "It is damaged; its daemon puts it aside and begins another one." if is_damage(error) else ""
    return HistoryError(f"The history {path} cannot be read: {error}.", hint)


def put_aside(state: Path) -> list[Path]:
    """The files that a daemon has put aside because they were damaged or not its own; the oldest of a kind first."""
    try:
        return sorted(state / name for name in os.listdir(state) if ASIDE.fullmatch(name))
    except OSError:
        return []  # not there, or not for us to look at


@dataclass(frozen=True, kw_only=True)
class PauseRecord:
    """Why a task, or the whole site where `task` is empty, is paused."""

    task: str
    since: datetime
    reason: str
    by: str


@dataclass(frozen=True, kw_only=True)
class Streak:
    """How many of a task's last runs went wrong, one after the other, and when the first of them did."""

    count: int = 0
    since: datetime | None = None


class Rows(Protocol):
    """Where the rows of a history come from."""

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]: ...
    def close(self) -> None: ...


class Look:
    """A history that is open for reading. Raises sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        self._deadline = time.monotonic() + PATIENCE
        self._db = connect_read_only(path)
        # A view in the place of a table may have rows without end.
        self._db.set_progress_handler(lambda: time.monotonic() > self._deadline, 100_000)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        self._deadline = time.monotonic() + PATIENCE
        for row in self._db.execute(statement, values):  # noqa: UP028  # it would close a cursor of a closed file
            yield row

    def close(self) -> None:
        self._db.close()


class Archive:
    """The history of one site, read by a face. An empty one where no daemon has run yet."""

    def __init__(self, state: Path, look: Callable[[Path], Rows] = Look) -> None:
        self.path = state / FILE
        self._look: Rows | None = None
        self._version = 0
        try:
            require_files(self.path)
        except FileNotFoundError:
            return
        except PermissionError:
            raise HistoryError("The history cannot be read.", why_unreadable(self.path)) from None
        try:
            self._look = look(self.path)
            [(version,)] = self._look.rows("PRAGMA user_version")
            self._version = known_version(version, self.path)
        except sqlite3.Error as error:
            self.close()
            if not os.access(self.path, os.R_OK):
                raise HistoryError("The history cannot be read.", why_unreadable(self.path)) from None
            raise unreadable(self.path, error) from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        if self._look is not None:
            self._look.close()

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
        with self._only_ours():
            rows = [pause_from_row(row) for row in self._rows("SELECT task, since, reason, by FROM pauses")]
        return {pause.task: pause for pause in rows}

    def runs(
        self, *, task: str | None = None, bad: bool = False, since: datetime | None = None, limit: int = 50
    ) -> list[Run]:
        """The latest runs, the newest first; `bad` ones only, if wished. Claims that never began are left out."""
        where, values = [HAPPENED], list[Any]()
        if task is not None:
            where.append("task = ?")
            values.append(task)
        if bad:
            where.append(WENT_WRONG)
        if since is not None:
            where.append(f"{WHEN} >= ?")
            values.append(to_micros(since))
        return self._runs(f"WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?", [*values, limit])

    def unfinished(self) -> list[Run]:
        """The runs without an outcome: those that are going on, and claims that have not begun. The oldest first."""
        return self._runs("WHERE outcome IS NULL ORDER BY id")

    def last_run(self, task: str) -> Run | None:
        """The latest run of a task that has begun."""
        return next(iter(self._runs("WHERE task = ? AND started IS NOT NULL ORDER BY id DESC LIMIT 1", [task])), None)

    def last_attempt(self, task: str) -> Run | None:
        """The latest run of a task that was not skipped and is over."""
        return next(iter(self._runs("WHERE task = ? AND outcome <> 'skipped' ORDER BY id DESC LIMIT 1", [task])), None)

    def tasks_that_ran(self) -> list[str]:
        """The ids of all tasks that have runs, also those that are declared no more."""
        return [task for (task,) in self._rows("SELECT DISTINCT task FROM runs ORDER BY task")]

    def failures_since(self, instant: datetime) -> dict[str, int]:
        """How many runs of each task went wrong since an instant, by the tasks' ids."""
        # The plus keeps SQLite from an index that has the tasks in order, and all runs with them.
        statement = f"SELECT task, count(*) FROM runs WHERE {WENT_WRONG} AND {WHEN} >= ? GROUP BY +task"
        return dict(self._rows(statement, [to_micros(instant)]))

    def streak(self, task: str, limit: int = 10_000) -> Streak:
        """How many of a task's last runs went wrong in a row; counting stops at a limit."""
        with self._only_ours():
            return streak_in(self._rows(ATTEMPTS, [task, limit]))

    @property
    def counted(self) -> bool:
        """Whether there are totals: not in the history of a daemon of an earlier version."""
        return self._version >= COUNTED

    def totals(self, tasks: Collection[str]) -> dict[tuple[str, Outcome], Total]:
        """How many runs of these tasks had which outcome, also those that history has forgotten."""
        with self._only_ours():
            return {
                (task, Outcome(outcome)): Total(runs=whole(runs), latest=instant(latest))
                for task, outcome, runs, latest in self._counted("task, outcome, runs, latest FROM totals")
                if task in tasks
            }

    def durations(self, tasks: Collection[str]) -> dict[str, Spread]:
        """How long the runs of these tasks took."""
        found = {task: Spread(DURATIONS) for task in tasks}
        with self._only_ours():
            for task, bound, runs, seconds in self._counted("task, bound, runs, seconds FROM durations"):
                if task in found:
                    found[task].add(bound, whole(runs), seconds)
        return found

    def lateness(self) -> Spread:
        """How long after their due times the runs have started that a schedule started."""
        found = Spread(LATENESS)
        with self._only_ours():
            for bound, runs, seconds in self._counted("bound, runs, seconds FROM lateness"):
                found.add(bound, whole(runs), seconds)
        return found

    def run(self, id: int) -> Run | None:
        """One run, whole."""
        return next(iter(self._runs("WHERE id = ?", [id])), None)

    def _runs(self, condition: str, values: Sequence[Any] = ()) -> list[Run]:
        with self._only_ours():
            return list(map(run_from_row, self._rows(f"SELECT {', '.join(COLUMNS)} FROM runs {condition}", values)))

    def _counted(self, what: str) -> Iterator[Any]:
        return self._rows(f"SELECT {what}") if self.counted else iter(())

    @contextmanager
    def _only_ours(self) -> Iterator[None]:
        """Values of another kind are told."""
        try:
            yield
        except (TypeError, ValueError, OverflowError) as error:
            raise HistoryError(f"The history {self.path} holds what linod has not written: {error}.") from None

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        if self._look is None or not self._version:
            return  # or its first daemon is making it at this moment
        try:
            yield from self._look.rows(statement, values)
        except sqlite3.Error as error:
            raise unreadable(self.path, error) from None


def streak_of(db: sqlite3.Connection, task: str, limit: int = 10_000) -> Streak:
    """The same of a history that is open for writing."""
    return streak_in(db.execute(ATTEMPTS, (task, limit)))


def streak_in(rows: Iterator[Any]) -> Streak:
    """How many of these attempts, the newest first, went wrong in a row. One that was cancelled says nothing."""
    count, since = 0, None
    for outcome, started, due in rows:
        if Outcome(outcome) is Outcome.CANCELLED:
            continue
        if not Outcome(outcome).bad:
            break
        count, since = count + 1, started or due
    return Streak(count=count, since=None if since is None else instant(since))


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
    """Raises TypeError, ValueError or OverflowError for what linod has not written: SQLite keeps anything."""
    for value, kinds in zip(row, KINDS, strict=True):
        if not isinstance(value, kinds) or (isinstance(value, float) and not math.isfinite(value)):
            raise TypeError(f"a run has {value!r:.50}")
    values = dict(zip(COLUMNS, row, strict=True))
    for name in INSTANTS:
        if values[name] is not None:
            values[name] = instant(values[name])
    values["trigger"] = Trigger(values["trigger"])
    values["outcome"] = None if values["outcome"] is None else Outcome(values["outcome"])
    return Run(**values)


def pause_from_row(row: Sequence[Any]) -> PauseRecord:
    """The same for a pause."""
    task, since, reason, by = row
    if not all(isinstance(text, str) for text in (task, reason, by)):
        raise TypeError(f"a pause has {row!r:.50}")
    return PauseRecord(task=task, since=instant(since), reason=reason, by=by)


def whole(number: Any) -> int:
    """A number of runs."""
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"a number of runs is {number!r:.50}")
    return number


def instant(micros: int) -> datetime:
    """An instant that any zone can show."""
    if not 0 <= micros <= LATEST:
        raise OverflowError(f"an instant is {micros!r:.50}")
    return from_micros(micros)
