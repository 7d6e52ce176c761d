"""Understand what an administrator wrote, or say what is wrong with it and on which line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import conf, schedules, sites
from ..errors import ConfigurationError
from . import document
from .checks import ALERT, POLICIES, TASK, TASK_ALERTS, TOP, WHEN, Check, table
from .document import Document, said_at, shortened
from .values import Alert, Overrides, TaskOverrides


def read(path: Path) -> Overrides:
    """What a file says; an absent one says nothing. Raises ConfigurationError for the first thing that is wrong."""
    reader = Reader(document.read(path))
    overrides = reader.read()
    for problem in reader.in_order():
        raise problem
    return overrides


def problems(path: Path) -> list[ConfigurationError]:
    """All that is wrong with a file, in the order of its lines."""
    try:
        reader = Reader(document.read(path))
    except ConfigurationError as error:
        return [error]
    reader.read()
    return reader.in_order()


def of_directory(directory: Path) -> Overrides:
    """What is overridden of the site in a directory: nothing where it is no site of this host."""
    name = sites.linked_name(directory)
    return read(sites.HostSite(name=name).overrides) if name else Overrides()


class Reader:
    """Understands a document, and notes what is wrong with it rather than stop there."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._problems: list[tuple[int, ConfigurationError]] = []

    def in_order(self) -> list[ConfigurationError]:
        return [problem for _line, problem in sorted(self._problems, key=lambda each: each[0])]

    def read(self) -> Overrides:
        values = self.document.values
        known = self.table(values, {**TOP, "alert": table, "tasks": table})
        alert = self.table(known.get("alert", {}), ALERT, "alert")
        return Overrides(
            **{key: known[key] for key in ("python", "settings", "use_linod") if key in known},
            linod={key: value for key, value in known.items() if key in conf.DEFAULTS}
            | {setting: alert[key] for key, setting in TASK_ALERTS.items() if key in alert},
            alert=self.alert(alert),
            tasks=tuple(self.tasks(known.get("tasks", {}))),
        )

    def alert(self, values: Mapping[str, Any]) -> Alert:
        if values.get("starttls") and values.get("ssl"):
            with self.noted("alert", "ssl"):
                raise ConfigurationError("`starttls` and `ssl` don't go together.", "Port 587 usually wants starttls.")
        mail = {key: value for key, value in values.items() if key not in TASK_ALERTS}
        return Alert(**{"sender" if key == "from" else key: value for key, value in mail.items()})

    def tasks(self, values: Mapping[str, Any]) -> Iterator[TaskOverrides]:
        for name in values:
            with self.noted("tasks", name):
                yield self.task(name, table(f"tasks.{name}", values[name]))

    def task(self, name: str, values: Mapping[str, Any]) -> TaskOverrides:
        known = self.table(values, TASK, "tasks", name)
        override = TaskOverrides(
            name=name,
            when=self.schedule(name, {key: known[key] for key in known if key in WHEN}),
            tz=known.get("tz"),
            jitter=known.get("jitter"),
            policies={key: known[key] for key in known if key in POLICIES},
            keys=tuple(known),
            document=self.document,
        )
        if override.when:
            with self.noted("tasks", name):  # tell now what can be told without the task
                override.moved(override.when.schedule)
        return override

    def schedule(self, name: str, when: Mapping[str, Any]) -> schedules.Declaration | None:
        if when:
            with self.noted("tasks", name, [*when][-1]):
                return schedules.declare(**when)
        return None

    def table(self, values: Mapping[str, Any], checks: Mapping[str, Check], *keys: str) -> dict[str, Any]:
        """The keys of a table that are good; the others are noted."""
        good = {}
        for key, value in values.items():
            with self.noted(*keys, key):
                good[key] = checks[key](key, value) if key in checks else refuse(key, value, checks, keys)
        return good

    @contextmanager
    def noted(self, *keys: str) -> Iterator[None]:
        """Note an error instead of raising it, with the line of that key unless it has been told where it is."""
        try:
            with said_at(self.document.where(*keys)):
                yield
        except ConfigurationError as error:
            self._problems.append((self.document.line(*keys), error))


def refuse(key: str, value: object, known: Mapping[str, Check], keys: tuple[str, ...]) -> Any:
    """Raise an error for a key that there isn't."""
    around = f"`[{'.'.join(map(bare, keys))}]`" if keys else "this file"
    message = f"{around} has no key `{bare(key)}`."
    if keys[:1] == ("tasks",) and isinstance(value, dict):
        name = f"{keys[1]}.{key}"
        while len(name) < 100 and value and isinstance(inner := value[part := next(iter(value))], dict):
            name, value = f"{name}.{part}", inner
        raise ConfigurationError(message, f'A name with dots needs quotes: [tasks."{name}"]')
    import difflib  # only where it is needed: the daemon stays small

    close = difflib.get_close_matches(key[:100], known, n=1)
    raise ConfigurationError(message, f"Did you mean {close[0]}?" if close else f"It knows {', '.join(known)}.")


def bare(key: str) -> str:
    """A key as one writes it."""
    return shortened(key, 80) if key.replace("_", "").replace("-", "").isalnum() else f'"{shortened(key, 80)}"'
