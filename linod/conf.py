"""All settings of linod in one class. A site sets them with `LINOD = {"max_parallel": 8}` in its settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from . import web
from .errors import ConfigurationError

AT_LEAST_ONE = ("max_parallel", "max_running", "recycle_runs", "load_timeout", "keep_runs", "keep_days")
AN_ADDRESS = "https://example.org/hook"
LARGEST = 1_000_000  # of whatever it is: beyond that it is a slip of the keyboard
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Name, type, default, meaning. Durations are seconds, sizes are as their names say."""

    # How much happens at the same time
    max_parallel: int = max(4, 2 * (os.cpu_count() or 1))  # runs that are younger than slow_after
    slow_after: float = 0.05  # an older run waits for something, and no longer keeps others from starting
    max_running: int = 64  # all runs together, whatever their age

    # How long a worker lives
    recycle_runs: int = 1000  # it is replaced after so many runs,
    recycle_growth_mib: int = 64  # or when it has grown by so much
    idle_worker: float = 60.0  # without work for so long, it leaves
    fork_server: bool = True  # False: each worker loads the site anew, for sites that cannot be forked

    # Patience
    load_timeout: float = 120.0  # for the site to load
    drain_timeout: float = 50.0  # for running tasks to end after a stop was asked for
    pause_after: int = 0  # runs of a task that went wrong in a row: then it is paused; 0: it goes on

    # Who is told what
    alert_tasks: bool = True  # people are told when a task fails, is late or stuck, and when it is well again
    alert_url: str = ""  # the address that is told as well. A secret: the daemon knows its host only
    alert_every: float = 300.0  # from one mail about tasks to the next; what happens meanwhile is in that one
    late_after: float = 300.0  # people are told of a run that has not begun so long after it was due; 0: never

    # What is kept in history
    keep_runs: int = 1000  # of each task,
    keep_days: int = 30  # and none older than this,
    keep_failures_days: int = 180  # but those that went wrong longer
    keep_output_kib: int = 64  # the last part of what a run wrote

    # What is logged
    log_runs: Literal["changes", "all"] = "changes"  # of tasks more frequent than hourly: only what is news
    log_lines: int = 1000  # of one run; history keeps the last part all the same

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_value(name, value, f"LINOD[{name!r}]")

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Settings:
        """Settings from a site's dictionary; raises ConfigurationError on an unknown name or a wrong type."""
        for name, value in given.items():
            if name not in DEFAULTS:
                raise ConfigurationError(f"LINOD has no setting {name!r}.", f"It knows {', '.join(DEFAULTS)}.")
            check_type(name, value, f"LINOD[{name!r}]")
        return cls(**given)

    def as_dict(self) -> dict[str, Any]:
        """For the daemon, which needs no secrets."""
        return {**vars(self), "alert_url": self.alert_url and web.shown(self.alert_url)}


DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Settings)}


def check(name: str, value: object, said: str) -> None:
    """Raises ConfigurationError where a value cannot be that of a setting; `said` is how its author calls it."""
    check_type(name, value, said)
    check_value(name, value, said)


def check_type(name: str, value: object, said: str) -> None:
    default = DEFAULTS[name]
    if name == "alert_url" and not isinstance(value, str):  # a secret in whatever it stands
        raise ConfigurationError(f"{said} is no text but {type(value).__name__}.", f"Write for example '{AN_ADDRESS}'.")
    wanted = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise ConfigurationError(f"{said} = {value!r} is not {KINDS[type(default)]}.", f"The default is {default!r}.")


def check_value(name: str, value: Any, said: str) -> None:
    if name == "log_runs":
        if value not in ("changes", "all"):
            raise ConfigurationError(f"{said} = {value!r}.", "Write 'changes' or 'all'.")
    elif name == "alert_url":
        if value and not web.is_url(value):
            raise ConfigurationError(f"{said} is no address on the web.", f"Write it in ASCII, as in '{AN_ADDRESS}'.")
    elif not isinstance(DEFAULTS[name], bool):
        least = 1 if name in AT_LEAST_ONE else 0
        if not least <= value <= LARGEST:  # written so that it refuses NaN as well
            raise ConfigurationError(
                f"{said} = {value!r} is too {'large' if value > LARGEST else 'small'}.",
                f"Write a number from {least} to {LARGEST:,}.",
            )
