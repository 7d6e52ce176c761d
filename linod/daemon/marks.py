"""Which runs were started, in a file that survives the daemon: a mark is a write to memory.

The kernel keeps the page when a process dies, however it dies. When the kernel itself dies, a mark may be missing; one
that is there is true all the same. So marks also tell of starts that history lost: because its disk was full when the
daemon was killed, or because somebody has put an older file in its place.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import zlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..instants import from_micros, to_micros
from ..runs import Run, Trigger
from ..state import give_to_owner

MARKS = "starts"
MARK_SLOTS = 4096
ID = struct.Struct("<q")
START = struct.Struct("<qQ")  # due time in microseconds, and which task
STARTS_AT = MARK_SLOTS * ID.size  # the ids come first, and the rest is younger than the first version of linod
SIZE = STARTS_AT + MARK_SLOTS * START.size
UNKNOWN, NO_DUE_TIME = 0, -1


@dataclass(frozen=True, slots=True)
class Mark:
    """That a run was started."""

    id: int
    task: int  # see `sum_of`
    due: datetime | None  # None for a run that a person asked for
    known: bool = True  # False for what an earlier version of linod has marked: only the id is


class Marks:
    """A ring of started runs in a file that is mapped into memory: written by a memory access, kept by the kernel."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._swap = threading.Lock()
        self._map, self._file = map_file(path)

    def set(self, run: Run) -> None:
        due = NO_DUE_TIME if run.trigger is Trigger.MANUAL else to_micros(run.due)
        slot = run.id % MARK_SLOTS
        with self._swap:
            START.pack_into(self._map, STARTS_AT + slot * START.size, due, sum_of(run.task))
            ID.pack_into(self._map, slot * ID.size, run.id)

    def clear(self, id: int) -> None:
        with self._swap:
            ID.pack_into(self._map, id % MARK_SLOTS * ID.size, 0)

    def has(self, id: int) -> bool:
        return bool(ID.unpack_from(self._map, id % MARK_SLOTS * ID.size)[0] == id)

    def highest(self) -> int:
        """The highest id that was ever marked: it must not be given again."""
        return max(self._ids())

    def after(self, id: int) -> list[Mark]:
        """The runs that were started after one, in their order; those that were overwritten since are missing."""
        return [self._mark(later) for later in sorted(self._ids()) if later > id]

    def keep(self) -> None:
        """Make the file anew where somebody has taken it away. For the thread: it may wait for the disk."""
        if identity(self._path) == self._file:
            return
        new, file = map_file(self._path)
        new[:] = self._map[:]
        with self._swap:
            new[:] = self._map[:]  # once more, for what was marked meanwhile; now no page of it waits for the disk
            self._map, self._file = new, file

    def _ids(self) -> tuple[int, ...]:
        return struct.unpack_from(f"<{MARK_SLOTS}q", self._map)

    def _mark(self, id: int) -> Mark:
        due, task = START.unpack_from(self._map, STARTS_AT + id % MARK_SLOTS * START.size)
        if due in (UNKNOWN, NO_DUE_TIME):
            return Mark(id, task, None, known=due != UNKNOWN)
        return Mark(id, task, from_micros(due))


def map_file(path: Path) -> tuple[mmap.mmap, tuple[int, int]]:
    """The file in memory, and which one it is."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
    give_to_owner(path)
    try:
        os.posix_fallocate(fd, 0, SIZE)  # a hole could not be filled on a full disk, and that is a SIGBUS
        info = os.fstat(fd)
        return mmap.mmap(fd, SIZE), (info.st_dev, info.st_ino)
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
