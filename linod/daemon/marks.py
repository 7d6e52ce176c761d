"""Which runs were started, in a file that survives the daemon: a mark is a write to memory.

The kernel keeps the page when a process dies, however it dies. When the kernel itself dies, marks mean nothing.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from ..state import give_to_owner

MARKS = "starts"
MARK_SLOTS = 4096


class Marks:
    """A ring of run ids in a file that is mapped into memory: written by a memory access, kept by the kernel."""

    def __init__(self, path: Path) -> None:
        size = MARK_SLOTS * 8
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
        give_to_owner(path)
        try:
            os.posix_fallocate(fd, 0, size)  # a hole could not be filled on a full disk, and that is a SIGBUS
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def set(self, id: int) -> None:
        struct.pack_into("<q", self._map, id % MARK_SLOTS * 8, id)

    def clear(self, id: int) -> None:
        struct.pack_into("<q", self._map, id % MARK_SLOTS * 8, 0)

    def has(self, id: int) -> bool:
        return bool(struct.unpack_from("<q", self._map, id % MARK_SLOTS * 8)[0] == id)

    def highest(self) -> int:
        """The highest id that was ever marked: it must not be given again."""
        return int(max(struct.unpack(f"<{MARK_SLOTS}q", self._map)))
