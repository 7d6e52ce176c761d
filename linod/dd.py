"""The names that Lino developers know: `from linod import dd`, then `@dd.schedule_often` and `@dd.schedule_daily`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import DeclarationError
from .task import Function, task

__all__ = ["schedule_daily", "schedule_often"]


def schedule_often(every: float = 10, **policies: Any) -> Callable[[Function], Function]:
    """Run the function below every so many seconds. Takes the policies of `linod.task` as well."""
    if callable(every):
        raise DeclarationError("@dd.schedule_often needs parentheses.", "Write @dd.schedule_often(every=10).")
    return task(every=every, **policies)


def schedule_daily(at: str = "20:00", **policies: Any) -> Callable[[Function], Function]:
    """Run the function below every day at that time of the site's time zone. Takes the policies of `linod.task`."""
    if callable(at):
        raise DeclarationError("@dd.schedule_daily needs parentheses.", 'Write @dd.schedule_daily(at="20:00").')
    return task(at=at, **policies)
