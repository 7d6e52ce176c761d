"""`--run`: one task, now, in this very process, so that its output, its questions and a debugger have the terminal.

It is recorded like any other run. Beside a daemon, that one is asked first and keeps the record; where none is running,
this process takes the site's lock and writes history itself.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from ..bar import Bar
from ..caller import hear, say, visit
from ..daemon.history import SqliteHistory
from ..daemon.lock import lock_site, require_no_other_lock
from ..errors import SiteLocked
from ..linux import birth, boot_id
from ..names import find_task
from ..progress import listen
from ..runs import Outcome, Run, Trigger
from ..site.call import Result, TerminableCaller
from ..site.load import Site
from ..state import make_state
from ..task import Declaration, Task
from ..wire import Begin, Ended, Refused, Visit, send

EXIT_CODES = {Outcome.SUCCEEDED: 0, Outcome.TIMED_OUT: 124, Outcome.CANCELLED: 130}
PATIENCE = 10.0  # seconds for the disk to take a record


class Record(Protocol):
    """Who keeps the record of the run."""

    def end(self, ended: Ended) -> None: ...


def run_task(site: Site, name: str, directory: Path) -> int:
    """Run a task of the site in a directory, and say how it ended. Returns the exit code that tells."""
    declaration = find(site, name)
    with recorded(site, declaration.task, directory) as (run, record):
        os.environ["LINOD_RUN"], os.environ["LINOD_TASK"] = str(run), declaration.task.label
        began = time.monotonic()
        bar = Bar()
        listen(bar.draw)
        result = TerminableCaller().call(declaration.function)
        listen(None)
        bar.clear()
        record.end(as_ended(run, result))
    say_how_it_ended(declaration.task, result, time.monotonic() - began)
    return EXIT_CODES.get(result.outcome, 1)


def find(site: Site, name: str) -> Declaration:
    """The task of that id, or of that function name where it is unique."""
    labels = {id: declaration.task.label for id, declaration in site.declarations.items()}
    return site.declarations[find_task(name, labels, hint="See --list for those there are.")]


@contextmanager
def recorded(site: Site, task: Task, directory: Path) -> Iterator[tuple[int, Record]]:
    """The run's number, and who keeps its record: the daemon if there is one, else this process."""
    state = make_state(directory)
    channel = visit(directory)
    if channel is not None:
        with channel:
            yield ask(channel, task), ToldDaemon(channel)
        return
    require_no_other_lock(directory, state)
    lock = lock_site(state)
    history = SqliteHistory(state, site.settings)
    try:
        yield from own_record(history, task)
    finally:
        history.close(PATIENCE)
        os.close(lock)


def ask(channel: socket.socket, task: Task) -> int:
    """Ask the daemon for leave to run a task. Returns the run's number; raises SiteLocked if it refuses."""
    say(channel, Visit(task=task.id, pid=os.getpid()))
    match hear(channel):
        case Begin(run=run):
            return run
        case Refused(reason=reason):
            raise SiteLocked(f"{task.label} cannot be run now: {reason}.", "Try again later.")
    raise SiteLocked("The daemon of this site has not understood us.", "Has it another version of linod?")


class ToldDaemon:
    """The daemon keeps the record."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def end(self, ended: Ended) -> None:
        try:
            send(self._channel, ended)
        except OSError:
            print("The daemon is gone: this run is not in its history.", file=sys.stderr)


def own_record(history: SqliteHistory, task: Task) -> Iterator[tuple[int, Record]]:
    """Keep the record ourselves."""
    past = history.past()
    now = datetime.now(UTC)
    run = Run(
        id=past.last_id + 1,
        task=task.id,
        due=now,
        lap=past.lap,
        trigger=Trigger.MANUAL,
        boot=boot_id(),
        pid=os.getpid(),
        born=birth(os.getpid()),
        started=now,
    )
    history.save(run)
    history.turn_finished()  # should we be killed, it is known that this run began
    yield run.id, OwnRecord(history, run)


class OwnRecord:
    """This process keeps the record."""

    def __init__(self, history: SqliteHistory, run: Run) -> None:
        self._history, self._run = history, run
        self._began = time.monotonic()

    def end(self, ended: Ended) -> None:
        run = self._run
        run.ended, run.duration = datetime.now(UTC), time.monotonic() - self._began
        run.outcome, run.reason, run.traceback = Outcome(ended.outcome), ended.reason, ended.traceback
        run.cpu, run.peak_memory = ended.cpu, ended.peak_memory
        self._history.save(run)


def as_ended(run: int, result: Result) -> Ended:
    return Ended(
        run=run,
        outcome=result.outcome,
        reason=result.reason,
        traceback=result.traceback,
        cpu=result.cpu,
        peak_memory=result.peak_memory,
    )


def say_how_it_ended(task: Task, result: Result, seconds: float) -> None:
    """On standard error, so that what the task prints can be used."""
    sys.stdout.flush()
    if result.outcome is Outcome.FAILED and result.traceback:
        print(result.traceback, end="", file=sys.stderr)
    reason = f": {result.reason}" if result.reason else ""
    print(f"{task.label} {result.outcome} after {seconds:.2f} s{reason}", file=sys.stderr)
