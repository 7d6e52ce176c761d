"""Processes that are or were below the daemon: how they ended, and which run a stray one belongs to."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from ..linux import birth, session

KILLED_WITHIN = 10.0  # seconds after a SIGKILL; who is there longer is kept by the kernel, which waits for a disk


def how_it_ended(status: int) -> str:
    """In words, from the status that waitpid gives."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGKILL:
            return "its process was killed (SIGKILL), by somebody or because memory was short"
        return f"its process died of {signal_name(number)}"
    return f"its process left with exit status {os.WEXITSTATUS(status)}"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"


def send_signal(pid: int, number: int) -> bool:
    """Signal a process. False where it has ended, or is another user's by now."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def signal_group(leader: int, number: int) -> bool:
    """Signal a process and its group. False where there is none."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        # The group comes with its session, which a worker that has just been forked has not made yet.
        return send_signal(leader, number)
    return True


def has_mark(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes() + b"\0"
    except OSError:
        return False


def writes_to(pid: int, inode: int) -> bool:
    for fd in (1, 2):
        with suppress(OSError):
            if os.stat(f"/proc/{pid}/fd/{fd}").st_ino == inode:
                return True
    return False


def end_leftovers(leader: int, born: int | None, pids: list[int]) -> int:
    """Kill what is left of a worker that died with its daemon: processes in its session. How many there were."""
    if birth(leader) not in (None, born):
        return 0  # the pid was given to another process since
    ended = 0
    for pid in pids:
        if session(pid) == leader:
            ended += send_signal(pid, signal.SIGKILL)
    return ended
