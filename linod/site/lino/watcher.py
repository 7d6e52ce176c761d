"""The watcher: a companion that looks at the rows every few seconds, and tells the daemon what its users have done.

They may change when a row is due, disable it, add one, or ask for a run now. It also makes the rows of procedures that
have none yet, and tells in those whose run was ended or killed why.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from asgiref.sync import async_to_sync
from django.utils import timezone

from ...archive import Archive
from ...caller import ask
from ...errors import LinodError
from ...linux import name_process
from ...runs import Outcome, Run
from ...state import find_state
from ...task import Task
from ...wire import Accepted, Amend, Done, Hello, Message, RunNow, batches, send
from .. import hygiene
from ..load import Site, declare
from ..secrets import masked
from . import rows
from .recurrence import Recurrence
from .running import ENDED_EARLY, FAILED, heal, notify, request

LOOK_EVERY = 2.0  # seconds
LONGEST_LOOK = 60  # seconds; after that the kernel ends this process, and the daemon starts another one
ASK_AGAIN_AFTER = 20.0  # seconds that a request stands, as where its run has ended before it could begin
# A run is in history only some time after it has begun.
YOUNG = timedelta(seconds=10)
# What changes by itself, and says nothing about when a row is due.
VOLATILE = ("last_start_time", "last_end_time", "requested_at", "message")

logger = logging.getLogger(__name__)


class Watcher:
    """Looks at the rows of a site."""

    def __init__(self, channel: socket.socket, site: Site, directory: Path) -> None:
        self.channel, self.site, self.directory = channel, site, directory
        self.tasks: dict[str, Task | None] | None = None  # as the daemon knows them, by id
        self.glanced: list[Any] = []  # what the last glance has shown
        self.pending = True  # the next look must be a close one, whatever a glance shows
        self.seen: list[Any] | None = None  # the rows as they were at the last close look, but for what is volatile
        self.trouble = ""
        self.asked: dict[str, tuple[datetime | None, float]] = {}  # by task: which request the daemon took, and when
        self.installed = False

    def work(self) -> None:
        """Look until the daemon hangs up."""
        name_process("linod-watcher", f"linod@{self.site.name}: watcher")
        send(self.channel, Hello(pid=os.getpid(), memory=0))
        while not select.select([self.channel], [], [], LOOK_EVERY)[0]:
            signal.alarm(LONGEST_LOOK)
            self.look_or_complain()
            signal.alarm(0)

    def look_or_complain(self) -> None:
        """What goes wrong is told once, and tried again with the next look."""
        try:
            hygiene.meet_connections()
            self.look()
        except Exception as error:
            trouble = masked(f"{type(error).__name__}: {error}")
            if trouble != self.trouble:
                logger.warning("The tasks in the database cannot be watched: %s", trouble)
            self.trouble = trouble
            hygiene.leave_connections()
        else:
            self.trouble = ""
        finally:
            part_with_databases()

    def look(self) -> None:
        if not self.installed:
            install_missing()
            self.installed = True
        glanced = [glance(model) for model in rows.models()]
        if glanced == self.glanced and not self.pending:
            return
        found = list(rows.all_rows())
        seen = [plain(row) for row in found]
        if seen != self.seen:
            self.amend()
            self.seen = seen
        self.ask_for_runs(found)
        unclear = [row for row in found if is_unclear(row)]
        self.explain(unclear)
        self.pending = bool(unclear) or any(row.requested_at or was_never_run(row) for row in found)
        self.glanced = glanced

    # What users change

    def amend(self) -> None:
        """Tell the daemon which tasks are others now.

        Others than it knows, not than this process has loaded: another watcher may have been here before.
        """
        if self.tasks is None:
            self.tasks = known_tasks(self.directory)
        declared, _complaints = declare(self.site.overrides, self.site.name, self.site.zone)
        tasks = {id: declaration.task for id, declaration in declared.items()}
        changed = [task for id, task in tasks.items() if self.tasks.get(id) != task]
        gone = [id for id in self.tasks if id not in tasks]
        for some in batches([task.as_dict() for task in changed]):
            self.tell(Amend(tasks=some, gone=[]))
        if gone:
            self.tell(Amend(tasks=[], gone=gone))
        self.tasks = dict(tasks)
        for task in changed:
            self.asked.pop(task.id, None)  # a run of it that had not begun is taken back

    def tell(self, message: Message) -> None:
        answer = ask(self.directory, message)
        if not isinstance(answer, Done):
            raise LinodError(f"the daemon says: {answer}")

    # What users ask for

    def ask_for_runs(self, found: Iterable[Any]) -> None:
        """Ask the daemon for the runs that somebody wants now, and for the first run of a new row."""
        for row in found:
            id = rows.id_of(row)
            if row.requested_at is None and not wants_first_run(row):
                self.asked.pop(id, None)
            elif not self.has_asked(row, id) and self.run_now(row, id):
                self.asked[id] = row.requested_at, time.monotonic()

    def has_asked(self, row: Any, id: str) -> bool:
        """Whether the daemon has lately taken the request of a row."""
        if id not in self.asked:
            return False
        request, when = self.asked[id]
        return request == row.requested_at and time.monotonic() - when < ASK_AGAIN_AFTER

    def run_now(self, row: Any, id: str) -> bool:
        """False where the daemon cannot do that now, as when the task is running."""
        by = "a user of the site" if row.requested_at else "its row, which is new"
        return isinstance(ask(self.directory, RunNow(task=id, by=by)), Accepted)

    # What does not know why it ended

    def explain(self, unclear: list[Any]) -> None:
        """Tell in rows why their run has ended; the site's administrators hear of the first failure in a row."""
        if not unclear:
            return
        with Archive(find_state(self.directory)) as archive:
            alive = {run.task for run in archive.unfinished() if run.started}
            for row in unclear:
                id = rows.id_of(row)
                run = run_of(row, archive.last_run(id))
                unseen = run is None or run.ended is None
                if id in alive or (unseen and timezone.now() - row.last_start_time < YOUNG):
                    continue
                is_news = run is None or (run.outcome is not None and run.outcome.bad and archive.streak(id).count == 1)
                if heal(row, reason_of(run) + what_it_told(row)) and is_news:
                    notify(row)


@cache
def glance_at(model: Any) -> tuple[str, str, tuple[Any, ...]]:
    """Database, statement and its values: made once, because Django needs ten times as long to make as to ask it."""
    names = [field.name for field in model._meta.concrete_fields if field.name not in VOLATILE]
    queryset = model.objects.order_by("pk").values_list(*names, "requested_at", "last_start_time", "last_end_time")
    return queryset.db, *queryset.query.sql_with_params()


def glance(model: Any) -> list[Any]:
    """The rows of a model as far as they matter here: all that users change, and when a run began that goes on."""
    from django.db import connections

    alias, statement, values = glance_at(model)
    with connections[alias].cursor() as cursor:
        cursor.execute(statement, values)
        return [(*said, None if ended else started) for *said, started, ended in cursor.fetchall()]


def plain(row: Any) -> list[Any]:
    fields = row._meta.concrete_fields
    return [type(row), *(field.value_from_object(row) for field in fields if field.name not in VOLATILE)]


def install_missing() -> None:
    """Make the rows of procedures that have none, as Lino's own daemon does at its start."""
    from lino.modlib.linod.choicelists import Procedures

    for procedure in Procedures.get_list_items():
        async_to_sync(procedure.install_if_needed)(request())


def wants_first_run(row: Any) -> bool:
    """Whether a row that was never run is to be run now, as its status says.

    Not where it says on which day or at which time; and not after somebody has taken a request back, which leaves a
    message.
    """
    return was_never_run(row) and Recurrence.of(row).start() <= datetime.now()


def was_never_run(row: Any) -> bool:
    """Whether it is still to be run for the first time, and says no time for that."""
    if row.last_start_time or row.last_end_time or row.message or row.disabled:
        return False
    recurrence = Recurrence.of(row)
    return recurrence.unit != "never" and not recurrence.says_when


def is_unclear(row: Any) -> bool:
    """Whether a row says that it is running, which may not be true, or that its run was ended without saying why."""
    return bool(row.is_running() or (row.last_start_time and row.message.startswith(FAILED + ENDED_EARLY)))


def run_of(row: Any, last: Run | None) -> Run | None:
    """The run that a row tells of; None where history has only earlier ones, as after a run by Lino's own command."""
    if last is None or last.outcome is Outcome.SUCCEEDED:  # that one has written its end
        return None
    earlier = last.ended is not None and last.ended < row.last_start_time.astimezone()
    return None if earlier else last


def reason_of(run: Run | None) -> str:
    if run is None or run.outcome is None:
        return "its process ended unseen"
    return f"{str(run.outcome).replace('_', ' ')}: {run.reason}"


def what_it_told(row: Any) -> str:
    """Where a run was when it was ended, if it could still tell that."""
    _before, early, told = row.message.partition(FAILED + ENDED_EARLY)
    return told.removesuffix("</pre>") if early else ""


def known_tasks(directory: Path) -> dict[str, Task | None]:
    """The tasks as the daemon of a site knows them, by id; None for what only another version can read."""
    with Archive(find_state(directory)) as archive:
        return {row["id"]: task_from(row["task"]) for row in archive.tasks()}


def task_from(text: str) -> Task | None:
    try:
        return Task.from_dict(json.loads(text))
    except (KeyError, TypeError, ValueError):
        return None


def part_with_databases() -> None:
    """Close databases that are files: at the next look, another file may be in their place."""
    from django.db import connections, reset_queries

    reset_queries()
    for connection in connections.all():
        if connection.vendor == "sqlite":
            connection.close()
