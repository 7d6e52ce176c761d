"""What is overridden, as values, and what it does to the tasks of a site."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .. import schedules
from ..conf import Settings
from ..errors import ConfigurationError, DeclarationError
from ..names import UnknownTask, find_task
from ..task import Declaration, Task
from .document import Document, said_at, shortened

RESCHEDULING = ("every", "at", "cron", "tz", "jitter")


@dataclass(frozen=True, kw_only=True)
class Alert:
    """How to send mail when a daemon fails. None: not said here."""

    to: tuple[str, ...] | None = None
    sender: str | None = None  # `from`, which is no name in Python
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password_file: str | None = None  # an absolute path
    starttls: bool | None = None
    ssl: bool | None = None


@dataclass(frozen=True, kw_only=True)
class TaskOverrides:
    """What is overridden of one task."""

    name: str  # as it was written: the task's id, or its label
    when: schedules.Declaration | None = None  # a whole new schedule, with its words
    tz: str | None = None
    jitter: float | None = None  # seconds
    policies: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    document: Document = field(repr=False, compare=False)

    @property
    def reschedules(self) -> bool:
        return any(key in RESCHEDULING for key in self.keys)

    def changed(self, task: Task) -> Task:
        """The task as the administrator wants it; raises ConfigurationError where that is impossible."""
        phrase, do, call = task.text.partition(" do ")
        return replace(
            task,
            text=(self.when.text if self.when else phrase) + do + call,
            schedule=self.moved(self.when.schedule if self.when else task.schedule),
            policies=replace(task.policies, **self.policies),
            declared=phrase if self.reschedules else "",
            overridden=tuple(f"{key}: {self.document.place('tasks', self.name, key)}" for key in self.keys),
        )

    def moved(self, schedule: schedules.Schedule) -> schedules.Schedule:
        """A schedule, new or declared, with the zone and the jitter that are given here."""
        if self.tz is not None:
            with said_at(self.document.where("tasks", self.name, "tz")):
                schedule = in_zone(schedule, self.tz)
        if self.jitter is not None:
            with said_at(self.document.where("tasks", self.name, "jitter")):
                schedule = with_jitter(schedule, self.jitter)
        return schedule


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """All that a file says. None, or nothing, for what it doesn't."""

    python: str | None = None
    settings: str | None = None
    use_linod: bool | None = None
    linod: Mapping[str, Any] = field(default_factory=dict)  # settings of linod
    alert: Alert = field(default_factory=Alert)
    tasks: tuple[TaskOverrides, ...] = ()

    def interpreter(self, directory: str) -> str | None:
        """The path of the interpreter for a site in that directory. It is not resolved: it may be a virtualenv's."""
        return os.path.join(directory, self.python) if self.python else None

    def merged(self, given: Mapping[str, Any]) -> Settings:
        """The settings of linod: those of the site, with ours before them."""
        return Settings.from_mapping({**given, **self.linod})


def apply(overrides: Overrides, declarations: Sequence[Declaration]) -> tuple[list[Declaration], list[str]]:
    """The declarations as the administrator wants them, and a complaint for each task that there isn't.

    To be called before they are placed. Raises ConfigurationError where an override doesn't fit its task.
    """
    chosen: dict[str, TaskOverrides] = {}
    complaints = []
    for override in overrides.tasks:
        where = override.document.where("tasks", override.name)
        try:
            id = meant(override.name, declarations)
        except UnknownTask as error:
            complaints.append(shortened(f"{where}: {error}"))
            continue
        if id in chosen:
            other = override.document.line("tasks", chosen[id].name)
            raise ConfigurationError(f"{where}: this task has been overridden on line {other} already.", "Keep one.")
        chosen[id] = override
    changed = [
        replace(declaration, task=override.changed(declaration.task)) if override else declaration
        for declaration in declarations
        for override in [chosen.get(declaration.task.id)]
    ]
    return changed, complaints


def meant(name: str, declarations: Sequence[Declaration]) -> str:
    """The id of a task by its id, by its label where that is unique, or by its former id."""
    try:
        return find_task(name, {declaration.task.id: declaration.task.label for declaration in declarations})
    except UnknownTask:
        former = {declaration.task.policies.renamed_from: declaration.task.id for declaration in declarations}
        if name not in former:
            raise
        return former[name]


def in_zone(schedule: schedules.Schedule, tz: str) -> schedules.Schedule:
    match schedule:
        case schedules.Jittered() | schedules.Until() | schedules.Since():
            return replace(schedule, base=in_zone(schedule.base, tz))
        case schedules.WallClock() | schedules.Cron() | schedules.ClockGrid() | schedules.Calendar():
            return replace(schedule, zone=tz)
    raise DeclarationError(
        f"`tz` means nothing to a task that runs every {schedule.period:g} seconds.",
        'Leave it out, or give the task a time of day, as in at = "20:00".',
    )


def with_jitter(schedule: schedules.Schedule, seconds: float) -> schedules.Schedule:
    match schedule:
        case schedules.Until() | schedules.Since():
            return replace(schedule, base=with_jitter(schedule.base, seconds))
        case schedules.Jittered():
            schedule = schedule.base
    return schedules.Jittered(schedule, seconds) if seconds else schedule
