"""The wall clock of a world: the kernel's, plus an offset that a fault may change at any moment.

Nobody may set the clock of the machine that runs the tests, and a time namespace moves only clocks that nobody can
set. So a small library (clock.c) is preloaded into all processes of the world. It does what the kernel does, but for
one thing, which is done here: a timer of the wall clock fires when that clock is set. (With libfaketime 0.9.10, timers
sleep on.) What the kernel itself stamps, as the times of files, stays the machine's time.
"""

import ctypes
import mmap
import os
import struct
import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

SOURCE = Path(__file__).parent / "clock.c"
PIDFD_GETFD = 438  # the number of the system call, the same on all architectures
AT_ONCE = struct.pack("4q", 0, 0, 0, 1)  # an itimerspec: in a nanosecond, once

libc = ctypes.CDLL(None, use_errno=True)


class Clock:
    """A wall clock that can be set; `start` is what it shows at first, None: what the kernel's shows."""

    def __init__(self, directory, start=None):
        library, file = Path(directory, "clock.so"), Path(directory, "clock")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True)
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(file)}
        if start is not None:
            self.move(start - self.now())

    @property
    def ahead(self):
        """By how much it is ahead of the kernel's."""
        return timedelta(microseconds=struct.unpack("q", self._map[:])[0] // 1000)

    def now(self):
        return datetime.now(UTC) + self.ahead

    def move(self, by, pid=None):
        """Set it forward, or back where `by` is negative; the daemon, if its pid is given, is woken by that."""
        nanoseconds = (self.ahead + by) // timedelta(microseconds=1) * 1000
        self._map[:] = struct.pack("q", nanoseconds)
        if pid is not None:
            fire_timers(pid)


def fire_timers(pid):
    """Fire the timers of a process, as the kernel fires those that shall notice when its clock is set."""
    with suppress(ProcessLookupError, FileNotFoundError):
        process = os.pidfd_open(pid)
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                with suppress(FileNotFoundError):
                    if os.readlink(f"/proc/{pid}/fd/{name}") == "anon_inode:[timerfd]":
                        fire_timer(process, int(name))
        finally:
            os.close(process)


def fire_timer(process, number):
    timer = libc.syscall(PIDFD_GETFD, process, number, 0)
    if timer >= 0:
        libc.timerfd_settime(timer, 0, AT_ONCE, None)
        os.close(timer)
