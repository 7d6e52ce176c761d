"""Run a program of a site apart from who typed the command.

It is in a session of its own, and has no terminal but one of its own: else it could type into that of root's shell, or
read it. And however long it runs and whatever it writes, nobody is kept waiting and no memory is filled.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ..errors import ConfigurationError, LinodError
from .accounts import Account
from .terminal import STANDARD, Terminal

LARGEST = 1 << 20  # bytes that are kept of what it writes, the last ones
CHUNK = 1 << 16
# What comes from a terminal or a service manager. SIGTSTP is not among them: no shell could let the program go on.
PASSED_ON = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a program said until it ended."""

    exit_code: int
    text: str
    errors: str

    @property
    def last_words(self) -> str:
        """The last line of its errors."""
        return (self.errors.strip().splitlines() or [""])[-1]


def run(command: Sequence[str], account: Account, environment: Mapping[str, str], directory: str) -> int:
    """Run a program before our terminal and with our streams. Returns its exit code as a shell has it."""
    terminal = Terminal(account) if any(map(os.isatty, STANDARD.values())) else None
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGWINCH and terminal:
            terminal.resize()
        elif process:
            signal_group(process, number)
        else:
            early.append(number)

    for one in PASSED_ON:
        if signal.getsignal(one) is not signal.SIG_IGN:  # as below nohup
            signal.signal(one, pass_on)
    process = start(command, account, environment, directory, **(terminal.streams() if terminal else {}))
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    for number in early:
        signal_group(process, number)
    if terminal:
        terminal.relay(process)
        terminal.close()
    code = process.wait()
    return code if code >= 0 else 128 - code


def listen(
    command: Sequence[str], account: Account, environment: Mapping[str, str], directory: str, patience: float
) -> Answer:
    """Run a program and catch what it says until it ends; what it leaves behind is killed. Raises LinodError."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(command, account, environment, directory, **streams) as process:
        try:
            text, errors = hear(process, patience)
        except TimeoutError:
            raise LinodError(f"{command[0]} has not ended within {patience:g} s.") from None
        finally:
            signal_group(process, signal.SIGKILL)
    return Answer(exit_code=process.returncode, text=text, errors=errors)


def start(
    command: Sequence[str], account: Account, environment: Mapping[str, str], directory: str, **streams: Any
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, env=environment, cwd=directory, start_new_session=True, **account.of_child(), **streams
        )
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or command[0]} cannot be used by {account.name}: {error.strerror}."
        ) from None


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal a process that was not waited for yet, and all that stayed in its group."""
    with suppress(OSError):
        os.killpg(process.pid, number)


def hear(process: subprocess.Popen[bytes], patience: float) -> list[str]:
    """Its output and its errors; raises TimeoutError. Its own end counts, for others may go on to hold its streams."""
    assert process.stdout and process.stderr
    said = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    deadline = time.monotonic() + patience
    end, ended = os.pidfd_open(process.pid), False
    try:
        with selectors.DefaultSelector() as selector:
            for fd in (end, *said):
                selector.register(fd, selectors.EVENT_READ)
            while ready := selector.select(0 if ended else max(deadline - time.monotonic(), 0)):
                for key, _events in ready:
                    if key.fd == end:
                        ended = True
                        selector.unregister(end)
                    elif data := os.read(key.fd, CHUNK):
                        said[key.fd] += data
                        del said[key.fd][:-LARGEST]
                    else:
                        selector.unregister(key.fd)
                if time.monotonic() > deadline:
                    break
    finally:
        os.close(end)
    if not ended:
        raise TimeoutError
    return [text.decode(errors="replace") for text in said.values()]
