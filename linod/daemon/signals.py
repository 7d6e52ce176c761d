"""Signals as events of the loop: their handlers do nothing, the kernel wakes the loop, the loop does the thinking."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

WANTED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Signals:
    """The signals that the daemon acts on."""

    def __init__(self) -> None:
        self._reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in WANTED:
            signal.signal(number, lambda *_arguments: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WANTED)

    def fileno(self) -> int:
        return self._reading

    def take(self) -> list[int]:
        """The signals that came, each kind once unless it asks for something again; children last."""
        numbers: list[int] = []
        with suppress(BlockingIOError):
            while data := os.read(self._reading, 512):
                numbers += data
        asking = [number for number in numbers if number in WANTED and number != signal.SIGCHLD]
        return asking + [signal.SIGCHLD] * (signal.SIGCHLD in numbers)

    def close(self) -> None:
        """Act on no more. Python, while it ends, would die of one that comes late, and the exit code would be lost."""
        for number in WANTED:
            if number != signal.SIGCHLD:
                signal.signal(number, signal.SIG_IGN)
