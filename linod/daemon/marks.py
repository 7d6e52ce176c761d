"""Which runs were started: marks in memory that the kernel keeps when the daemon dies, however it dies.

A mark is made in the loop, which never waits for a disk; a file on one that hangs, or is frozen for a snapshot, would
stop it even where it is mapped into memory. So while the daemon runs, the marks are in /dev/shm, and in the state
directory after an orderly end, or where there is no such place.

When the kernel itself dies, marks may be missing; one that is there is true all the same. So they also tell of starts
that history lost: because its disk was full when the daemon was killed, or because somebody has put an older file in
its place.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from pathlib import Path

from ..archive import LATEST
from ..instants import from_micros, to_micros
from ..runs import Run
from ..state import give_to_owner

MARKS = "starts"
MARK_SLOTS = 4096
ID = struct.Struct("<q")
START = struct.Struct("<qQ")  # due time in microseconds, and which task
STARTS_AT = MARK_SLOTS * ID.size  # the ids come first, and the rest is younger than the first version of linod
SIZE = STARTS_AT + MARK_SLOTS * START.size
TAIL = struct.Struct("<Q?")  # a number that no other file has, and whether a daemon has these marks in memory
UNKNOWN, NO_DUE_TIME = 0, -1
ENDLESS = 1 << 53  # an id that no site reaches, however many runs it has
SHARED = Path("/dev/shm")  # memory that outlives a process


@dataclass(frozen=True, slots=True)
class Mark:
    """That a run was started."""

    id: int
    task: int  # see `sum_of`
    due: datetime | None  # None for a run that a person asked for
    known: bool = True  # False for what an earlier version of linod has marked: only the id is


class Marks:
    """A ring of started runs: written by a memory access, kept by the kernel."""

    _map: mmap.mmap

    def __init__(self, path: Path) -> None:
        """`path`: the file for the time when no daemon runs; raises OSError where it cannot be made."""
        self._path = path
        self._lock = threading.Lock()  # the thread may put other marks in the place of those that the loop sets
        ring, self._cookie, in_use = read_saved(path)
        self._file = save(path, ring, self._cookie, in_use=in_use)
        self._live: Path | None = self._place()
        found = in_use and self._find(self._live)
        self.unsure = in_use and not found  # a daemon died, and its marks are gone
        if not found:
            self._make(ring)
        self._save(in_use=self._live is not None)

    def set(self, run: Run) -> None:
        due = to_micros(run.due) if run.trigger.is_first else NO_DUE_TIME
        slot, task = run.id % MARK_SLOTS, sum_of(run.task)
        with self._lock:
            START.pack_into(self._map, STARTS_AT + slot * START.size, due, task)
            ID.pack_into(self._map, slot * ID.size, run.id)

    def clear(self, id: int) -> None:
        with self._lock:
            ID.pack_into(self._map, id % MARK_SLOTS * ID.size, 0)

    def has(self, id: int) -> bool:
        return bool(ID.unpack_from(self._map, id % MARK_SLOTS * ID.size)[0] == id)

    def after(self, id: int) -> list[Mark]:
        """The runs that were started after one, in their order; those that were overwritten since are missing."""
        return sorted((mark for mark in self._marks() if mark.id > id), key=attrgetter("id"))

    def keep(self) -> None:
        """Make the file anew where somebody has taken it away. For the thread: it may wait for the disk."""
        if identity(self._path) == self._file:
            return
        if self._live is None:
            self._save(in_use=False)
            new = map_saved(self._path)
            with self._lock:
                new[:] = self._map[:]  # with what was marked while the file was made
                self._map = new
        else:
            self._cookie = draw()
            self._save(in_use=True)
            self._live = self._live.rename(self._place())

    def close(self) -> None:
        """At an orderly end: leave the marks in the file. For the thread, as well."""
        self._save(in_use=False)
        if self._live is not None:
            self._live.unlink(missing_ok=True)

    def _find(self, live: Path) -> bool:
        """Take up what a daemon that died has left in memory. False where that is gone, or not ours."""
        try:
            self._map = map_left(live, self._path.parent.stat())
        except OSError:
            return False
        return True

    def _make(self, ring: bytes) -> None:
        """Begin in memory, under a name that nobody knows yet: others can read the former one, and take it."""
        self._cookie = draw()
        self._live = self._place()
        try:
            self._map = map_new(self._live, self._path.parent.stat())
        except OSError:
            self._live, self._map = None, map_saved(self._path)
        self._map[:] = ring

    def _place(self) -> Path:
        """Where the marks are while the daemon runs. A copy of the state directory has another place."""
        info = self._path.parent.stat()
        return SHARED / f"linod-{info.st_dev}-{info.st_ino}-{self._cookie:016x}"

    def _save(self, *, in_use: bool) -> None:
        self._file = save(self._path, self._map[:], self._cookie, in_use=in_use)

    def _marks(self) -> Iterator[Mark]:
        """What linod can have written there: a file may hold anything."""
        ids = struct.unpack_from(f"<{MARK_SLOTS}q", self._map)
        for slot, (id, (due, task)) in enumerate(zip(ids, START.iter_unpack(self._map[STARTS_AT:]), strict=True)):
            if not 0 < id < ENDLESS or id % MARK_SLOTS != slot:
                continue
            if due in (UNKNOWN, NO_DUE_TIME):
                yield Mark(id, task, None, known=due != UNKNOWN)
            elif 0 < due <= LATEST:
                yield Mark(id, task, from_micros(due))


def draw() -> int:
    """A number that makes a name which nobody can guess."""
    return int.from_bytes(os.urandom(8))


def read_saved(path: Path) -> tuple[bytes, int, bool]:
    """The marks of a file, what makes it one of its kind, and whether its daemon has died."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return bytes(SIZE), 0, False
    try:
        saved = os.pread(fd, SIZE + TAIL.size, 0)
    finally:
        os.close(fd)
    cookie, in_use = TAIL.unpack(saved[SIZE:]) if len(saved) == SIZE + TAIL.size else (0, False)
    return saved[:SIZE].ljust(SIZE, b"\0"), cookie, in_use


def save(path: Path, ring: bytes, cookie: int, *, in_use: bool) -> tuple[int, int]:
    """Write the file; returns which one it is."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
    try:
        give_to_owner(path)
        os.posix_fallocate(fd, 0, SIZE + TAIL.size)  # there shall be room for it at the end, too
        os.pwrite(fd, ring + TAIL.pack(cookie, in_use), 0)
        info = os.fstat(fd)
        return info.st_dev, info.st_ino
    finally:
        os.close(fd)


def map_left(path: Path, owner: os.stat_result) -> mmap.mmap:
    """The marks in memory that a daemon has left. Raises OSError where they are gone, or may be another user's."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if not is_ours(os.fstat(fd), owner):
            raise PermissionError(errno.EPERM, "another user may have made or changed it", str(path))
        return mmap.mmap(fd, SIZE)
    finally:
        os.close(fd)


def map_new(path: Path, owner: os.stat_result) -> mmap.mmap:
    """New marks in memory, for the owner of the state directory. Raises OSError, also where something is there."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.geteuid() == 0:
            os.fchown(fd, owner.st_uid, owner.st_gid)
        os.posix_fallocate(fd, 0, SIZE)  # a hole could not be filled where memory is full, and that is a SIGBUS
        return mmap.mmap(fd, SIZE)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def is_ours(found: os.stat_result, owner: os.stat_result) -> bool:
    """Whether nobody else can have written there, nor can shorten it, which would be a SIGBUS."""
    users = (0, owner.st_uid) if os.geteuid() == 0 else (os.geteuid(),)
    only_they_write = found.st_uid in users and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(found.st_mode) and only_they_write and found.st_nlink == 1 and found.st_size == SIZE


def map_saved(path: Path) -> mmap.mmap:
    """The file itself, where there is no better place."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return mmap.mmap(fd, SIZE)
    finally:
        os.close(fd)


def identity(path: Path) -> tuple[int, int] | None:
    """Which file is there; None where none is."""
    try:
        info = path.stat()
    except FileNotFoundError:
        return None
    return info.st_dev, info.st_ino


def sum_of(task: str) -> int:
    """A task's id in 64 bits; two tasks of a site with the same ones are not to be expected."""
    data = task.encode(errors="surrogatepass")
    return zlib.crc32(data) << 32 | zlib.adler32(data)
