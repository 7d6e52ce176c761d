"""A terminal of its own for a program of a site, shown on that of whoever typed the command.

What has a terminal open may go on to read it when the command is over: the next password that root types, for one. So
no program of a site gets that of a person. It gets another, which is gone when the program has ended.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from typing import Any

from .accounts import Account

CHUNK = 1 << 16
STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


class Terminal:
    """The master's end of the other terminal, and the descriptors of the person's."""

    def __init__(self, account: Account) -> None:
        self.ours, self.theirs = pty.openpty()
        os.set_blocking(self.ours, False)
        self._typed: int | None = 0 if is_typed_into() else None
        self._gone = False  # hung up, because the program's session is over or wants no terminal
        self._shown = next(fd for fd in (1, 2, 0) if os.isatty(fd))
        if not account.is_me:
            os.fchown(self.theirs, account.uid, -1)  # it may open it by its name
        self.resize()

    def streams(self) -> dict[str, Any]:
        """What a child is given in the place of the person's terminal: this one, or nothing to read."""
        found: dict[str, Any] = {name: self.theirs for name, fd in STANDARD.items() if os.isatty(fd)}
        if self._typed is None and "stdin" in found:
            found["stdin"] = subprocess.DEVNULL
        return {**found, "preexec_fn": self.take}

    def take(self) -> None:
        """In the child, which begins a session: let this be its terminal."""
        ioctl(self.theirs, termios.TIOCSCTTY, 0)

    def resize(self) -> None:
        """Give it the size that the person's has now."""
        with suppress(OSError):
            ioctl(self.theirs, termios.TIOCSWINSZ, ioctl(self._shown, termios.TIOCGWINSZ, bytes(8)))

    def relay(self, process: subprocess.Popen[bytes]) -> None:
        """Pass on what is typed and what is shown, until the process has ended."""
        end = os.pidfd_open(process.pid)
        typed = b""
        try:
            with self.person_types():
                while True:
                    reading = [end] if self._gone else [end, self.ours]
                    reading += [] if self._typed is None or typed else [self._typed]
                    readable, writable, _ = select.select(reading, [self.ours] if typed else [], [])
                    if self._typed in readable:
                        typed = self.read_typed()
                    if self.ours in writable:
                        typed = self.type(typed)
                    if self.ours in readable:
                        self.show()
                    elif end in readable:
                        return
        finally:
            os.close(end)

    def read_typed(self) -> bytes:
        """What the person has typed; nothing any more where the person is gone."""
        assert self._typed is not None
        with suppress(OSError):
            if data := os.read(self._typed, CHUNK):
                return data
        self._typed = None
        return b""

    def type(self, text: bytes) -> bytes:
        """Pass some of it on; returns the rest."""
        try:
            return text[os.write(self.ours, text) :]
        except BlockingIOError:
            return text
        except OSError:
            return b""  # nobody will read it

    def show(self) -> None:
        """Show what the program has written."""
        try:
            data = os.read(self.ours, CHUNK)
        except OSError:
            self._gone = True
            return
        while data:
            data = data[os.write(self._shown, data) :]

    @contextmanager
    def person_types(self) -> Iterator[None]:
        """Each key goes to the other terminal at once, which then decides what it means."""
        if self._typed is None:
            made = termios.tcgetattr(self.theirs)
            made[tty.OFLAG] &= ~termios.OPOST  # the person's does that
            termios.tcsetattr(self.theirs, termios.TCSANOW, made)
            yield
            return
        before = termios.tcgetattr(self._typed)
        termios.tcsetattr(self.theirs, termios.TCSANOW, before)
        tty.setraw(self._typed, termios.TCSADRAIN)
        try:
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)

    def close(self) -> None:
        """What still has it open is told that it is gone."""
        os.close(self.ours)
        os.close(self.theirs)


def is_typed_into() -> bool:
    """Whether what is typed is meant for this command: not where a pager reads it, nor in the background."""
    if not (os.isatty(0) and os.isatty(1)):
        return False
    with suppress(OSError):
        return os.tcgetpgrp(0) == os.getpgrp()
    return True  # it is no terminal of our session, and so has no background
