"""The watcher: a companion that looks at the rows every few seconds, and tells the daemon what its users have done.

They may change when a row is due, disable it, add one, or ask for a run now. It also makes the rows of procedures that
have none yet, and heals those that say that they are running, but whose process was killed.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
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
from ...runs import Outcome
from ...state import find_state
from ...task import Task
from ...wire import Accepted, Amend, Done, Hello, Message, RunNow, send
from .. import hygiene
from ..load import Site, declare
from . import rows
from .recurrence import Recurrence
from .running import heal, notify, request

LOOK_EVERY = 2.0  # seconds
LONGEST_LOOK = 60  # seconds; after that the kernel ends this process, and the daemon starts another one
MOST_AT_ONCE = 50  # tasks in one message
# A run is in history only some time after it has begun.
YOUNG = timedelta(seconds=10)
# What changes by itself, and says nothing about when a row is due.
VOLATILE = ("last_start_time", "last_end_time", "requested_at", "message")

logger = logging.getLogger(__name__)


class Watcher:
    """Looks at the rows of a site."""

    def __init__(self, channel: socket.socket, site: Site, directory: Path) -> None:
        self.channel, self.site, self.directory = channel, site, directory
        self.tasks = {id: declaration.task for id, declaration in site.declarations.items()}
        self.glanced: list[Any] = []  # what the last glance has shown
        self.pending = True  # the next look must be a close one, whatever a glance shows
        self.seen: list[Any] = []  # the rows as they were at the last close look, but for what is volatile
        self.trouble = ""
        self.asked: dict[str, datetime | None] = {}  # by task: which request the daemon has taken
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
            trouble = f"{type(error).__name__}: {error}"
            if trouble != self.trouble:
                logger.warning("The tasks in the database cannot be watched: %s", trouble)
            self.trouble = trouble
            hygiene.leave_connections()
        else:
            self.trouble = ""

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
        running = [row for row in found if row.is_running()]
        self.heal(running)
        self.pending = bool(running) or any(row.requested_at or was_never_run(row) for row in found)
        self.glanced = glanced

    # What users change

    def amend(self) -> None:
        """Tell the daemon which tasks are others now."""
        declared, _complaints = declare(self.site.overrides, self.site.name, self.site.zone)
        tasks = {id: declaration.task for id, declaration in declared.items()}
        changed = [task for id, task in tasks.items() if self.tasks.get(id) != task]
        gone = [id for id in self.tasks if id not in tasks]
        for some in batches(changed):
            self.tell(Amend(tasks=[task.as_dict() for task in some], gone=[]))
        if gone:
            self.tell(Amend(tasks=[], gone=gone))
        self.tasks = tasks

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
            elif self.asked.get(id, "nothing") != row.requested_at and self.run_now(row, id):
                self.asked[id] = row.requested_at

    def run_now(self, row: Any, id: str) -> bool:
        """False where the daemon cannot do that now, as when the task is running."""
        by = "a user of the site" if row.requested_at else "its row, which is new"
        return isinstance(ask(self.directory, RunNow(task=id, by=by)), Accepted)

    # What nobody has seen the end of

    def heal(self, running: list[Any]) -> None:
        """Tell in rows that they run no longer, and why, where their process was killed."""
        if not running:
            return
        with Archive(find_state(self.directory)) as archive:
            alive = {run.task for run in archive.unfinished() if run.started}
            for row in running:
                id = rows.id_of(row)
                if id in alive or timezone.now() - row.last_start_time < YOUNG:
                    continue
                last = archive.last_run(id)
                if heal(row, reason_of(last)) and (last is None or last.outcome is not Outcome.CANCELLED):
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


def batches(tasks: list[Task]) -> Iterable[list[Task]]:
    return (tasks[start : start + MOST_AT_ONCE] for start in range(0, len(tasks), MOST_AT_ONCE))


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


def reason_of(run: Any) -> str:
    if run is None or run.outcome is None:
        return "its process ended unseen"
    return f"{str(run.outcome).replace('_', ' ')}: {run.reason}"
