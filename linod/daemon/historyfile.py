"""The file of history as its writer has it: opened, watched, and made anew where somebody has harmed it.

Only the daemon writes there. So if the file is another than the daemon has left, it is looked at before the next
transaction: what is damaged is put aside, and what was taken away is written anew from the connection, which still
reads it.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from ..archive import PATIENCE, connect, is_damage
from ..state import make_again
from .clock import now

SUFFIXES = ("", "-wal", "-shm")
T = TypeVar("T")
Stat = tuple[int, int, int, int] | None
Look = tuple[Stat, ...]


class Harm(StrEnum):
    """What somebody, or a disk, has done to the file."""

    DAMAGED = "damaged"
    GONE = "gone"
    REPLACED = "replaced"
    LOST = "lost"  # gone, and with it the copy that was being made of it


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """That the file was made anew."""

    harm: Harm
    path: Path
    reason: str = ""  # what SQLite says
    aside: str = ""  # where the file is that was in its place
    running: bool = True  # the daemon was running, and remembers what it needs

    @property
    def is_whole(self) -> bool:
        """Whether all that was in the former one is in the new one."""
        return self.harm in (Harm.GONE, Harm.REPLACED)


class HistoryFile:
    """The writing connection to the history of a site."""

    def __init__(self, path: Path, keep_lock: Callable[[], None]) -> None:
        self.path = path
        self._keep_lock = keep_lock
        self.renewals = deque[Renewal]()  # those that nobody has taken yet; any thread may
        self._running = False
        self._rescued: Path | None = None  # all that was in a file that was taken away
        self._db: sqlite3.Connection | None = None
        self._seen: Look = ()
        self.ready()

    def begins(self) -> None:
        """All was read that a daemon must know from before: from now on it remembers that by itself."""
        self._running = True

    def ready(self) -> sqlite3.Connection:
        """The connection to the file that is there now; raises HistoryError, sqlite3.Error or OSError."""
        try:
            if self._db is None:
                return self._open()
            return self._db if self.is_as_left() else self._look_closer(self._db)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return self.begin_anew(str(error))

    def read(self, reader: Callable[[sqlite3.Connection], T]) -> T:
        """What a function reads; from a new file where this one turns out to be damaged."""
        try:
            return reader(self.ready())
        except sqlite3.OperationalError:
            raise
        except (sqlite3.DatabaseError, TypeError, ValueError, OverflowError) as error:
            return reader(self.begin_anew(str(error)))

    def begin(self, *, durable: bool) -> sqlite3.Connection:
        """Begin a transaction; `durable`: its end waits until all is on the disk itself."""
        while True:
            db = self.ready()
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            if self.is_as_left():
                return db
            db.execute("ROLLBACK")  # somebody has written there while we waited

    def is_as_left(self) -> bool:
        """Whether nobody else has written there."""
        return look(self.path) == self._seen

    def written(self) -> None:
        """Remember how the file is left, after each transaction; but not that it was taken away meanwhile."""
        there = look(self.path)
        if all(before is None or is_same(before, after) for before, after in zip(self._seen, there, strict=True)):
            self._seen = there

    def begin_anew(self, reason: str) -> sqlite3.Connection:
        """Put the file aside, for it is damaged, and begin another one."""
        self._forget_rescued()
        self.close()
        self._note(Harm.DAMAGED, self._put_aside(Harm.DAMAGED), reason)
        return self._open()

    def close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._running:
            make_again(self.path.parent)
        if self._rescued is not None:
            self._put_in_place(self._rescued)
        before = look_at(str(self.path))
        db = connect(self.path)
        try:
            require_whole(db)
            there = look(self.path)
            stayed = there[0] is not None and (before is None or is_same(before, there[0]))
            if not stayed or (self._rescued is not None and not self.path.samefile(self._rescued)):
                raise sqlite3.OperationalError("the file was taken away again")
        except BaseException:
            db.close()
            raise
        self._forget_rescued()
        self._db, self._seen = db, there
        return db

    def _look_closer(self, db: sqlite3.Connection) -> sqlite3.Connection:
        """Somebody else was there."""
        there, before = look(self.path), self._seen
        if not is_same(there[0], before[0]):
            return self._write_again(db, Harm.GONE if there[0] is None else Harm.REPLACED)
        if not is_same(there[1], before[1]):
            return self._write_again(db)
        look_afresh(self.path)
        db.execute("PRAGMA shrink_memory")  # what it has read before is not what is there now
        db.execute("PRAGMA wal_checkpoint")  # what is in the file itself cannot be lost with the log beside it
        self.written()
        return db

    def _write_again(self, db: sqlite3.Connection, harm: Harm | None = None) -> sqlite3.Connection:
        """The file or its log was taken away, but the connection still has it: write all of it into a new one."""
        make_again(self.path.parent)
        self._keep_lock()
        new = self.path.with_name(f"{self.path.name}.new")
        new.unlink(missing_ok=True)
        copy(db, new)
        aside = self._put_aside(harm) if harm is Harm.REPLACED else ""
        self.close()  # before the new one has their place: it removes the files of these names beside it
        self._rescued = new
        if harm is not None:
            self._note(harm, aside)
        else:
            self.path.unlink(missing_ok=True)
        return self._open()

    def _put_in_place(self, rescued: Path) -> None:
        """A link rather than a new name, for nothing is lost if somebody takes that away before it is open."""
        try:
            if self.path.exists() and not self.path.samefile(rescued):
                self._put_aside(Harm.REPLACED)
            with suppress(FileExistsError):
                os.link(rescued, self.path)
        except FileNotFoundError:
            if rescued.exists():
                raise  # only what was in its place is gone: the next try finds that free
            self._rescued = None
            self._note(Harm.LOST, "")

    def _forget_rescued(self) -> None:
        if self._rescued is not None:
            self._rescued.unlink(missing_ok=True)
            self._rescued = None

    def _note(self, harm: Harm, aside: str, reason: str = "") -> None:
        self.renewals.append(Renewal(harm=harm, path=self.path, reason=reason, aside=aside, running=self._running))

    def _put_aside(self, harm: Harm) -> str:
        """Give the file another name, and return that."""
        aside = free_name(f"{self.path}.{harm}-{now():%Y%m%dT%H%M%S}")
        for suffix in SUFFIXES:
            with suppress(FileNotFoundError):
                os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")
        return aside


def look_afresh(path: Path) -> None:
    """Look for damage with the eyes of another connection, which has read nothing before and makes no file."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=PATIENCE)) as db:
        require_whole(db)


def require_whole(db: sqlite3.Connection) -> None:
    """Raises sqlite3.DatabaseError where the file is damaged, in 0.2 s for 100 MB."""
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(" ".join(found.split()))
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if missing := {"tasks", "runs"} - names:
        raise damaged(f"it has no table {min(missing)}")


def damaged(reason: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def copy(db: sqlite3.Connection, path: Path) -> None:
    """Write all that a connection sees into a new file."""
    target = sqlite3.connect(path)
    try:
        db.backup(target)
    finally:
        target.close()


def is_same(one: Stat, other: Stat) -> bool:
    """Whether it is the same file, whatever is in it."""
    return one is not None and other is not None and one[:2] == other[:2]


def look(path: Path) -> Look:
    """What the file and its write-ahead log are like; who writes there, changes it."""
    return tuple(look_at(f"{path}{suffix}") for suffix in ("", "-wal"))


def look_at(path: str) -> Stat:
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def free_name(name: str) -> str:
    """The name, or one with a number where that is taken."""
    number, free = 1, name
    while any(os.path.lexists(f"{free}{suffix}") for suffix in SUFFIXES):
        number += 1
        free = f"{name}-{number}"
    return free
