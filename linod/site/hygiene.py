"""What a worker puts back in order between two runs, so that one task cannot disturb the next."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import locale
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from typing import Any

from .secrets import masked

RESTORED_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGCHLD,
    signal.SIGPIPE,
)
# The dictionary of bytes behind os.environ. To go through os.environ itself took longer than all the rest of a run.
ENVIRONMENT: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]


class Surroundings:
    """The process as a worker found it: directory, umask, signals, environment, locale, streams, logging, threads."""

    def __init__(self) -> None:
        self.directory = os.getcwd()
        self.umask = get_umask()
        self.environment = dict(ENVIRONMENT)
        self.signals = {number: _signal.getsignal(number) for number in RESTORED_SIGNALS}
        self.tzname = time.tzname
        self.locale = locale.setlocale(locale.LC_ALL)
        self.socket_timeout = socket.getdefaulttimeout()
        self.streams = sys.stdin, sys.stdout, sys.stderr
        self.loggers = Loggers()
        self.threads = threading.active_count()
        self.identity = identity()

    def restore(self) -> str:
        """Put everything back. The reason to use this process no more, or nothing."""
        try:
            self._restore_process()
            self._restore_python()
            self.loggers.restore()
            restore_django()
            now = identity()
        except Exception as error:
            return masked(f"its surroundings could not be restored ({type(error).__name__}: {error})")
        if now != self.identity:
            return "the task changed what cannot be put back: its user, its priority, or where its output goes"
        if threading.active_count() > self.threads:
            return "a thread of the task is still alive"
        if has_living_child():
            return "a child of the task is still alive"
        return ""

    def _restore_process(self) -> None:
        os.chdir(self.directory)
        os.umask(self.umask)
        self._restore_environment()
        if time.tzname != self.tzname:
            time.tzset()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number, handler in self.signals.items():
            # The public function turns each number into an enumeration's member, which takes ten times as long.
            if _signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    def _restore_environment(self) -> None:
        if self.environment == ENVIRONMENT:
            return
        for name in ENVIRONMENT.keys() - self.environment.keys():
            del os.environb[name]
        for name, value in self.environment.items() - ENVIRONMENT.items():
            os.environb[name] = value

    def _restore_python(self) -> None:
        if locale.setlocale(locale.LC_ALL) != self.locale:
            locale.setlocale(locale.LC_ALL, self.locale)
        socket.setdefaulttimeout(self.socket_timeout)
        sys.stdin, sys.stdout, sys.stderr = self.streams
        for stream in filter(None, self.streams[1:]):
            stream.flush()  # raises if the task has closed it


class Loggers:
    """How logging was configured."""

    def __init__(self) -> None:
        root = logging.getLogger()
        self.disabled = root.manager.disable
        known = [logger for logger in root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
        self.states = [(logger, state_of(logger), list(logger.handlers)) for logger in [root, *known]]

    def restore(self) -> None:
        for logger, state, handlers in self.states:
            if state_of(logger) != state:
                logger.propagate, logger.disabled, level = state
                logger.setLevel(level)
            if logger.handlers != handlers:
                logger.handlers[:] = handlers
        if logging.root.manager.disable != self.disabled:
            logging.disable(self.disabled)


def state_of(logger: logging.Logger) -> tuple[bool, bool, int]:
    return logger.propagate, logger.disabled, logger.level


def identity() -> tuple[object, ...]:
    """What a process without privileges cannot put back once it is changed."""
    output = [(info.st_dev, info.st_ino) for info in (os.fstat(1), os.fstat(2))]
    return os.getresuid(), os.getresgid(), os.getpriority(os.PRIO_PROCESS, 0), output


def get_umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def has_living_child() -> bool:
    """Whether a process that the task started is still alive; those that have ended are reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def restore_django() -> None:
    """Language, time zone and database connections as they are at the end of a web request."""
    from django.utils import timezone, translation

    translation.deactivate()
    timezone.deactivate()
    leave_connections()


def leave_connections() -> None:
    """End what transactions the task left open, and close connections that the site doesn't want kept."""
    from django.db import connections

    for connection in connections.all():
        if connection.connection is None:
            continue
        connection.queries_log.clear()
        if connection.in_atomic_block or not connection.get_autocommit():
            give_up(connection)
        else:
            connection.close_if_unusable_or_obsolete()


def meet_connections() -> None:
    """Close connections that did not survive the time since the last run, as when the server was restarted."""
    from django.db import connections

    for connection in connections.all():
        if connection.connection is not None and not connection.is_usable():
            give_up(connection)


def give_up(connection: Any) -> None:
    """Forget a connection with all that is open on it; the server rolls back."""
    connection.in_atomic_block = False
    connection.savepoint_ids = []
    connection.needs_rollback = False
    connection.run_on_commit = []
    try:
        connection.close()
    except Exception as error:  # the server may be gone, and closing says so
        warnings.warn(f"closing a database connection: {error}", stacklevel=1)
        connection.connection = None
