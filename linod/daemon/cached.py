"""For a site without a resident daemon: is there anything to do at all? Answered without loading the site.

What its tasks are was written into history when it was loaded last. The questions are those that recovery.py asks.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from ..archive import Archive
from ..errors import HistoryError
from ..instants import from_micros
from ..task import Task
from . import planner
from .clock import now
from .past import read_task
from .pauses import SITE


def what_is_due(state: Path, instant: datetime | None = None) -> str:
    """Why the site must be loaded now, in words; empty where there is nothing to run, to repeat or to settle.

    Reads history, and neither takes the site's lock nor makes a file.
    """
    try:
        return why_now(state, instant or now())
    except (HistoryError, TypeError, ValueError, OverflowError) as error:
        return str(error)  # a daemon puts it aside, or says what to do


def why_now(state: Path, instant: datetime) -> str:
    with Archive(state) as archive:
        known = archive.tasks()
        if not known:
            return "no daemon has loaded this site yet"
        if archive.unfinished():
            return "a run has no end"
        pauses = archive.pauses()
        if SITE in pauses:
            return ""
        rows = (row for row in known if row["id"] not in pauses)
        return next(filter(None, (why(archive, row, instant) for row in rows)), "")


def why(archive: Archive, row: dict[str, Any], instant: datetime) -> str:
    """Why one task wants the site to be loaded."""
    task = read_task(row["task"])
    if task is None:
        return f"{row['id']} was written by another version of linod"
    if not task.policies.enabled:
        return ""
    since = from_micros(row["since"])
    accounted = None if row["accounted"] is None else from_micros(row["accounted"])
    if planner.far_ahead(since=since, accounted=accounted, now=instant):
        return f"{task.label} was recorded by a clock that was far ahead"
    after = planner.reference(since=since, accounted=accounted, now=instant)
    if planner.catch_up(task, after, instant, resident=False).runs:
        return f"{task.label} is due"
    return f"{task.label} is tried again" if is_to_be_retried(archive, task, since, instant) else ""


def is_to_be_retried(archive: Archive, task: Task, since: datetime, instant: datetime) -> bool:
    """Whether its last run went wrong, and enough time has passed to try again."""
    if not task.policies.retries:
        return False
    last = archive.last_attempt(task.id)
    return last is not None and planner.resumed_retry(task, last, since=since, now=instant) == 0.0
