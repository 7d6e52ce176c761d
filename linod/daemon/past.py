"""What history knows when a daemon begins, read once."""

from __future__ import annotations

import json
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from ..alert.task import TaskAlert
from ..archive import COLUMNS, WENT_WRONG, WHEN, PauseRecord, Streak, pause_from_row, run_from_row, streak_of
from ..instants import from_micros
from ..runs import Outcome, Run
from ..task import Task
from .alerts import Known as KnownTrouble
from .alerts import Trouble
from .marks import MARK_SLOTS, Mark, sum_of

# The runs that tell how a task fares. One that is lost has no end, and is not tried again.
ATTEMPTED = "outcome <> 'skipped'"


@dataclass(kw_only=True)
class Known:
    """What history knows of a task from before."""

    task: Task | None  # None where a different version of linod wrote something this one can't read
    since: datetime
    accounted: datetime | None


@dataclass(kw_only=True)
class PastAlerts:
    """What people know of the tasks, and what they are still to be told."""

    known: list[KnownTrouble] = field(default_factory=list)
    untold: list[tuple[TaskAlert, list[str]]] = field(default_factory=list)  # with the channels
    told: dict[str, datetime] = field(default_factory=dict)  # when people were last told something, by channel
    last_number: int = 0


@dataclass(kw_only=True)
class Past:
    """What history knows when a daemon begins."""

    tasks: dict[str, Known] = field(default_factory=dict)
    unfinished: list[Run] = field(default_factory=list)  # claimed or started, without an outcome
    last_runs: dict[str, Run] = field(default_factory=dict)  # the latest ended run of each task
    streaks: dict[str, Streak] = field(default_factory=dict)  # of the tasks that go wrong
    pauses: dict[str, PauseRecord] = field(default_factory=dict)  # by the task's id; empty: the whole site
    alerts: PastAlerts = field(default_factory=lambda: PastAlerts())
    last_id: int = 0
    lap: int = 0
    latest_due: datetime | None = None
    missing: int = 0  # runs that were started and are not in history
    started: dict[int, list[datetime]] = field(default_factory=dict)  # their due times, by the sum of the task's id
    behind: bool = False  # so many of those that nobody knows which

    def note_starts(self, marks: list[Mark], now: datetime) -> None:
        """Account for runs that were started after all that history knows, so that no due time is run again."""
        if not marks:
            return
        self.missing = len(marks)
        self.behind = marks[-1].id - self.last_id > MARK_SLOTS or not all(mark.known for mark in marks)
        self.last_id = marks[-1].id
        for mark in marks:
            self.started.setdefault(mark.task, []).extend(filter(None, [mark.due]))
        for id, known in self.tasks.items():
            if self.behind:
                known.since = max(known.since, now)
            self._account_for_started(id, known)

    def was_started_since(self, task: str) -> bool:
        """Whether a run of a task was started after all that history knows."""
        return sum_of(task) in self.started

    def _account_for_started(self, task: str, known: Known) -> None:
        if (started := self.started.get(sum_of(task))) is not None:
            known.accounted = max([*started, *filter(None, [known.accounted])], default=None)
            self.forget_last_run(task)

    def forget_last_run(self, task: str) -> None:
        """It has been tried again since: how it fared is no longer known."""
        self.last_runs.pop(task, None)
        self.streaks.pop(task, None)

    def rename(self, old: str, new: str) -> Known | None:
        """Let a task have what was known of it under its former name."""
        known = self.tasks.pop(old, None)
        if known is None:
            return None
        self.tasks[new] = known
        if last := self.last_runs.pop(old, None):
            self.last_runs[new] = last
        if streak := self.streaks.pop(old, None):
            self.streaks[new] = streak
        for run in self.unfinished:
            if run.task == old:
                run.task = new
        for trouble in self.alerts.known:
            if trouble.task == old:
                trouble.task = new
        if pause := self.pauses.pop(old, None):
            self.pauses[new] = replace(pause, task=new)
        self._account_for_started(new, known)  # it may have had its new name then already
        return known


def read_past(db: sqlite3.Connection) -> Past:
    """All that a new daemon must know of the time before.

    Raises TypeError, ValueError or OverflowError for what linod has not written: SQLite keeps anything.
    """
    past = Past()
    for id, task, since, accounted in db.execute("SELECT id, task, since, accounted FROM tasks"):
        if not isinstance(id, str):
            raise TypeError(f"a task is {id!r:.50}")
        past.tasks[id] = Known(
            task=read_task(task),
            since=from_micros(since),
            accounted=None if accounted is None else from_micros(accounted),
        )
    columns = ", ".join(COLUMNS)
    past.unfinished = list(map(run_from_row, db.execute(f"SELECT {columns} FROM runs WHERE outcome IS NULL")))
    # A query for each task takes its last rows from the index; one for all would read the whole table.
    last = f"SELECT {columns} FROM runs WHERE task = ? AND {ATTEMPTED} ORDER BY id DESC LIMIT 1"
    for task in past.tasks:
        if row := db.execute(last, (task,)).fetchone():
            past.last_runs[task] = run = run_from_row(row)
            if run.outcome is not Outcome.SUCCEEDED and (streak := streak_of(db, task)).count:
                past.streaks[task] = streak
    past.pauses = read_pauses(db)
    past.alerts = read_alerts(db)
    highest = "SELECT ifnull(max(id), 0), ifnull(max(lap), 0), max(due) FROM runs"
    past.last_id, past.lap, latest_due = db.execute(highest).fetchone()
    if not isinstance(past.lap, int):
        raise TypeError(f"a lap is {past.lap!r:.50}")
    past.latest_due = None if latest_due is None else from_micros(latest_due)
    return past


def read_task(text: str) -> Task | None:
    try:
        return Task.plannable(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_pauses(db: sqlite3.Connection) -> dict[str, PauseRecord]:
    """What is paused, by the task's id."""
    pauses = map(pause_from_row, db.execute("SELECT task, since, reason, by FROM pauses"))
    return {pause.task: pause for pause in pauses}


def read_alerts(db: sqlite3.Connection) -> PastAlerts:
    """What people know, and are to be told; what this version of linod cannot read is left out."""
    past = PastAlerts()
    wrong = f"SELECT count(*) FROM runs WHERE task = ? AND {WENT_WRONG} AND {WHEN} >= ?"
    for task, trouble, since in db.execute("SELECT task, trouble, since FROM troubles"):
        with suppress(ValueError):
            known = KnownTrouble(task=task, trouble=Trouble(trouble), since=from_micros(since))
            if known.trouble is Trouble.FAILING:
                (known.times,) = db.execute(wrong, (task, since)).fetchone()
            past.known.append(known)
    for number, channels, text in db.execute("SELECT number, channels, alert FROM untold ORDER BY number"):
        past.last_number = number
        with suppress(ValueError, TypeError, AttributeError, RecursionError):
            past.untold.append((TaskAlert.from_mapping(json.loads(text)), channels.split()))
    for channel, since, number in db.execute("SELECT channel, since, number FROM told"):
        past.told[channel] = from_micros(since)
        past.last_number = max(past.last_number, number)
    return past


def read_labels(db: sqlite3.Connection) -> dict[str, str]:
    """The names of the known tasks' functions, by id."""
    tasks = ((id, read_task(task)) for id, task in db.execute("SELECT id, task FROM tasks ORDER BY position"))
    return {id: task.label for id, task in tasks if task}
