"""The names that Lino developers know: `from linod import dd`, then `@dd.schedule_often` and `@dd.schedule_daily`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

from .errors import DeclarationError
from .task import CatchUp, Function, Overlap, task

__all__ = ["schedule_daily", "schedule_often"]


class Options(TypedDict, total=False):
    """The keywords of `linod.task` that both take as well."""

    tz: str | None
    until: datetime | None
    jitter: float
    name: str | None
    timeout: float
    grace: float
    overlap: Overlap
    catch_up: CatchUp
    retries: int
    retry_delay: float
    lock: str | None
    rerun_lost: bool
    fresh: bool
    enabled: bool
    renamed_from: str | None
    late_after: float | None
    stuck_after: float | None
    ping: str | None


def schedule_often(every: float | timedelta | str = 10, **options: Unpack[Options]) -> Callable[[Function], Function]:
    """Run the function below every so many seconds. Takes the policies of `linod.task` as well."""
    if callable(every):
        raise DeclarationError("@dd.schedule_often needs parentheses.", "Write @dd.schedule_often(every=10).")
    return task(every=every, **options)


def schedule_daily(at: str | list[str] = "20:00", **options: Unpack[Options]) -> Callable[[Function], Function]:
    """Run the function below every day at that time of the site's time zone. Takes the policies of `linod.task`."""
    if callable(at):
        raise DeclarationError("@dd.schedule_daily needs parentheses.", 'Write @dd.schedule_daily(at="20:00").')
    return task(at=at, **options)
