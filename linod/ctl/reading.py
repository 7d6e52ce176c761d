"""Let SQLite read the history of a site in a process of its own, which is waited for only so long.

SQLite opens several files by their names, and its user may lay anything under these, also in the instant after they
were seen to be files. Who opens a pipe waits for ever; but a process that does so can be ended.

What SQLite makes or opens beside a database as root it gives to its owner. So the child has only that one's rights.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from ..archive import PATIENCE, Look
from ..errors import HistoryError
from ..linux import die_with_parent

WITHIN = PATIENCE + 2.0  # seconds for an answer: SQLite gives up before
GONE_WITHIN = 1.0  # seconds for its end: while the kernel waits for a disk no signal ends it
AT_ONCE = 50  # rows


class LookApart:
    """A history that is open for reading in a child."""

    def __init__(self, path: Path) -> None:
        self._path = path
        parent = os.getpid()
        ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            serve(theirs, path, parent)
        theirs.close()
        self._channel = ours
        self._channel.settimeout(WITHIN)
        self._answers = ours.makefile("rb")
        try:
            self._hear()
        except BaseException:
            self.close()
            raise

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """The rows of a statement; raises sqlite3.Error or HistoryError."""
        cursor, rows = self._ask(statement, values)
        yield from rows
        while len(rows) == AT_ONCE:
            _, rows = self._ask(cursor)
            yield from rows

    def close(self) -> None:
        end = os.pidfd_open(self._pid)
        os.kill(self._pid, signal.SIGKILL)
        select.select([end], [], [], GONE_WITHIN)
        os.waitpid(self._pid, os.WNOHANG)
        os.close(end)
        self._answers.close()
        self._channel.close()

    def _ask(self, *question: Any) -> Any:
        with suppress(BrokenPipeError):  # it has died, as is seen when there is no answer
            self._channel.sendall(pickle.dumps(question))
        return self._hear()

    def _hear(self) -> Any:
        try:
            value, error, code = Plain(self._answers).load()
        except TimeoutError:
            raise HistoryError(
                f"The history {self._path} cannot be read within {WITHIN:g} s.",
                f"See what its user has laid there: ls -l {self._path.parent}",
            ) from None
        except (EOFError, ConnectionError, pickle.UnpicklingError):
            raise HistoryError(f"The process that should read the history {self._path} has died.") from None
        if error:
            problem = sqlite3.OperationalError(error)
            problem.sqlite_errorcode = code
            raise problem
        return value


class Plain(pickle.Unpickler):
    """Takes numbers, texts and what holds them, and nothing that would be executed."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} is no value of a row")


def serve(channel: socket.socket, path: Path, parent: int) -> NoReturn:
    """In the child: answer until it is ended, and never return into the code of the command."""
    try:
        become_owner(path.parent)
        die_with_parent(parent)  # a change of rights forgets that
        answer(channel, path)
    finally:
        os._exit(0)


def become_owner(path: Path) -> None:
    """Let root do no more than to whom a path belongs, unless a unit has taken the right for that from root."""
    if os.geteuid() == 0:
        with suppress(PermissionError):
            os.seteuid(path.stat().st_uid)


def answer(channel: socket.socket, path: Path) -> None:
    """Say that it is open. Then, to a statement say the number of its cursor and its first rows; to a number, more."""
    questions, cursors = channel.makefile("rb"), list[Iterator[Any]]()
    question: tuple[Any, ...] = ()
    while True:
        try:
            match question:
                case ():
                    look, value = Look(path), None
                case (int(cursor),):
                    value = cursor, list(islice(cursors[cursor], AT_ONCE))
                case (statement, values):
                    cursors.append(look.rows(statement, values))
                    value = len(cursors) - 1, list(islice(cursors[-1], AT_ONCE))
            message = value, "", 0
        except sqlite3.Error as error:
            message = None, str(error), error.sqlite_errorcode
        channel.sendall(pickle.dumps(message))
        question = pickle.load(questions)
