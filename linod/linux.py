"""The few things linod needs of the Linux kernel that Python's standard library doesn't offer.

Used by the daemon (subreaper, clock timer) and by the site's processes (death signal, names).
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from datetime import datetime
from functools import cache
from pathlib import Path

try:
    from setproctitle import setproctitle as set_title
except ImportError:
    set_title = None

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_TFD_TIMER_ABSTIME = 1
_TFD_TIMER_CANCEL_ON_SET = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> int:
    """Call a function of the C library; raises OSError where it returns -1."""
    result: int = getattr(_libc, name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends; leaves at once where it has ended already."""
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends."""
    _call("prctl", _PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str, title: str) -> None:
    """Set the names that others see: the kernel's 15 bytes, and the whole title that `ps` shows."""
    if set_title is not None:
        set_title(title)
    else:
        overwrite_arguments(title)
    _call("prctl", _PR_SET_NAME, name.encode()[:15])


def overwrite_arguments(title: str) -> None:
    """Write a title over the arguments with which this process was started, as far as they have room for it.

    For sites that lack setproctitle. Python has its own copy of the arguments.
    """
    start, end = arguments_in_memory()
    room = end - start
    if room > 1:
        ctypes.memmove(start, title.encode()[: room - 1].ljust(room, b"\0"), room)


@cache
def arguments_in_memory() -> tuple[int, int]:
    """Where the kernel reads the arguments of this process, and of those that it forks."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[48 - 3]), int(fields[49 - 3])


def boot_id() -> str:
    """A different text after each boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def uptime() -> float:
    """Seconds since the host booted."""
    return float(Path("/proc/uptime").read_text().split()[0])


def birth(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None where there is no such process.

    With the pid it names one process for ever: the kernel gives pids again, but not in the same tick.
    """
    return _stat_field(pid, 22)


def session(pid: int) -> int | None:
    """The session a process belongs to."""
    return _stat_field(pid, 6)


def _stat_field(pid: int, number: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command's name, in parentheses, may itself hold spaces and parentheses.
    return int(stat.rpartition(b")")[2].split()[number - 3])


def has_locked(pid: int, file: os.stat_result) -> bool:
    """Whether a process has locked a file by flock(2). Raises OSError where this user may not know, or it has ended."""
    descriptors = [entry for entry in os.scandir(f"/proc/{pid}/fd") if os.path.samestat(entry.stat(), file)]
    return any("FLOCK" in Path(f"/proc/{pid}/fdinfo/{one.name}").read_text() for one in descriptors)


def processes() -> list[int]:
    """The pids of all processes that can be seen."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        for thread in threads:
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    except OSError:
        pass  # it has ended: its children have another parent now
    return found


def descendants(pid: int) -> list[int]:
    """All processes below one, whatever sessions and groups they moved to; the nearest first."""
    found = children(pid)
    for child in found:
        found += children(child)
    return found


class WallClockTimer:
    """A file descriptor that becomes readable at an instant of the wall clock, or when somebody sets that clock.

    It fires on time after a suspend too, unlike a sleep.
    """

    def __init__(self) -> None:
        self._fd = _call("timerfd_create", 0, os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def set(self, instant: datetime | None) -> None:
        """Wake at this instant (aware); None: only when the clock is set."""
        if instant is None:
            seconds, nanoseconds = 0x7FFF_FFFF_FFFF, 0
        else:
            # At least one nanosecond: zero would disarm it.
            stamp = max(instant.timestamp(), 1.0)
            seconds, nanoseconds = int(stamp), int(stamp % 1 * 1e9)
        value = struct.pack("4q", 0, 0, seconds, nanoseconds)
        _call("timerfd_settime", self._fd, _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET, value, None)

    def clock_was_set(self) -> bool:
        """Take the event; True if the clock was set, False if the instant came."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return False
        except OSError:
            return True  # ECANCELED
        return False

    def close(self) -> None:
        os.close(self._fd)
