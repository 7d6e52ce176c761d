"""What is measured of each site, and what `linodctl metrics` tells of it."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from ..archive import FILE, Archive, Streak
from ..caller import NoAnswer
from ..errors import HistoryError, LinodError
from ..runs import Outcome, Run
from ..sites import HostSite
from ..task import Task
from ..totals import Spread, Total
from ..wire import Standing
from .exposition import Number
from .families import Metrics
from .monitoring import overdue, standing_of, stuck
from .survey import Records, Survey, history_of

MOST_TASKS = 1000  # of a site that have metrics of their own
READ_WITHIN = 10.0  # seconds for all that is read of the history of a site here
# What `linodctl sites` shows, in one word.
STATES = ("running", "waiting", "starting", "stopping", "timer", "stopped", "failed", "unused")
STATE = {"active": "running", "reloading": "running", "running without its unit": "running"}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A task with what its runs did."""

    task: Task
    last: Run | None
    streak: Streak
    durations: Spread
    totals: dict[Outcome, Total]


@dataclass(kw_only=True)
class SiteMeasures:
    """All that was found out about a site."""

    survey: Survey
    standing: Standing | None = None
    silent: bool = False  # its daemon is there and says nothing
    readable: bool = False
    tasks: list[Measured] = field(default_factory=list)
    lateness: Spread | None = None  # None where a daemon of an earlier version keeps no totals
    problems: list[str] = field(default_factory=list)


def measure(found: Survey) -> SiteMeasures:
    """Ask the daemon of a site, and read its history. What cannot be had is among the problems."""
    result = SiteMeasures(survey=found)
    if found.broken:
        result.problems.append(f"Its link leads nowhere: {found.broken}.")
    if found.holder is not None:
        try:
            result.standing = standing_of(found.site)
        except NoAnswer as error:
            result.silent = True
            result.problems.append(error.message)
    try:
        if found.unreadable:
            raise HistoryError(found.unreadable)
        with history_of(found.site) as archive:
            result.lateness = archive.lateness() if archive.counted else None
            result.tasks = list(tasks_of(archive, found.records))
        result.readable = True
    except LinodError as error:
        result.problems.append(str(error))
    if len(found.records.tasks) > MOST_TASKS:
        result.problems.append(f"It has more than {MOST_TASKS} tasks; those after them have no metrics of their own.")
    return result


def tasks_of(archive: Archive, records: Records) -> Iterator[Measured]:
    """Raises HistoryError where it takes too long: one site must not keep all the others waiting."""
    deadline, tasks = time.monotonic() + READ_WITHIN, records.tasks[:MOST_TASKS]
    ids = {known.task.id for known in tasks}
    totals, durations = archive.totals(ids), archive.durations(ids)
    for known in tasks:
        if time.monotonic() > deadline:
            raise HistoryError(f"The history {archive.path} cannot be read within {READ_WITHIN:g} s.")
        id = known.task.id
        yield Measured(
            task=known.task,
            last=archive.last_run(id),
            streak=records.streaks.get(id, Streak()),
            durations=durations[id],
            totals={outcome: total for outcome in Outcome if (total := totals.get((id, outcome)))},
        )


# What is told of it


def tell(metrics: Metrics, measures: SiteMeasures) -> None:
    """Add all that is known of a site."""
    one, standing = measures.survey, measures.standing
    site = one.site.name
    metrics.add("linod_site_up", int(is_up(measures)), site=site)
    for state in STATES:
        metrics.add("linod_site_state", int(state == state_of(measures)), site=site, state=state)
    if one.service and one.timer:
        metrics.add("linod_site_enabled", int(one.service.enabled or one.timer.enabled), site=site)
    metrics.add("linod_site_start_timestamp_seconds", timestamp(one.began), site=site)
    metrics.add("linod_site_memory_bytes", None if one.memory is None else one.memory * 1024, site=site)
    metrics.add("linod_site_history_readable", int(measures.readable), site=site)
    metrics.add("linod_site_history_bytes", size_of_history(one.site), site=site)
    if standing:
        metrics.add("linod_site_workers", standing.workers, site=site)
        metrics.add("linod_site_history_writable", int(not standing.trouble), site=site)
    if measures.readable:
        tell_records(metrics, measures)


def tell_records(metrics: Metrics, measures: SiteMeasures) -> None:
    """What its history knows."""
    one, standing, site = measures.survey, measures.standing, measures.survey.site.name
    running = Counter(run.task for run in one.records.running()) if one.alive else Counter[str]()
    metrics.add("linod_site_paused", int("" in one.records.pauses), site=site)
    metrics.add("linod_site_tasks", len(one.records.tasks), site=site)
    metrics.add("linod_site_running", standing.alive if standing else running.total(), site=site)
    metrics.add("linod_site_stuck", len(list(stuck(one))) if is_run(one) else 0, site=site)
    metrics.add("linod_site_lateness_seconds", measures.lateness, site=site)
    if is_run(one):
        tell_overdue(metrics, measures)
    for measured in measures.tasks:
        metrics.add("linod_task_running", running[measured.task.id], site=site, task=measured.task.id)
        tell_task(metrics, one, measured)
        if measures.lateness is not None:
            tell_totals(metrics, one, measured)


def tell_task(metrics: Metrics, one: Survey, measured: Measured) -> None:
    task, last, streak = measured.task, measured.last, measured.streak
    labels = {"site": one.site.name, "task": task.id}

    def add(what: str, value: Number | None) -> None:
        metrics.add(f"linod_task_{what}", value, **labels)

    if is_run(one):
        add("next_due_timestamp_seconds", timestamp(one.records.next_due(task, one.now)))
    add("last_run_timestamp_seconds", timestamp(last.started) if last else None)
    add("failures_in_a_row", streak.count)
    add("failing_since_timestamp_seconds", timestamp(streak.since))
    add("paused", int(one.records.pause_of(task.id) is not None))
    add("enabled", int(task.policies.enabled))


def tell_overdue(metrics: Metrics, measures: SiteMeasures) -> None:
    one = measures.survey
    since = {task.id: due for task, due in overdue(one, one.now)}
    for measured in measures.tasks:
        id = measured.task.id
        seconds = (one.now - since.get(id, one.now)).total_seconds()
        metrics.add("linod_task_overdue_seconds", seconds, site=one.site.name, task=id)


def tell_totals(metrics: Metrics, one: Survey, measured: Measured) -> None:
    """Each outcome, also those that it never had: of a counter that begins with one nobody sees it grow."""
    labels = {"site": one.site.name, "task": measured.task.id}
    for outcome in Outcome:
        total = measured.totals.get(outcome)
        metrics.add("linod_task_runs", total.runs if total else 0, **labels, outcome=outcome)
    metrics.add("linod_task_duration_seconds", measured.durations, **labels)
    if success := measured.totals.get(Outcome.SUCCEEDED):
        metrics.add("linod_task_last_success_timestamp_seconds", timestamp(success.latest), **labels)


def is_run(one: Survey) -> bool:
    """Whether anybody runs its tasks, always or every minute."""
    return one.alive or one.by_timer


def is_up(measures: SiteMeasures) -> bool:
    one, standing = measures.survey, measures.standing
    if one.nothing_to_do:
        return True
    waiting = one.waiting or (standing and standing.waiting_for)
    return is_run(one) and not (one.broken or waiting or measures.silent)


def state_of(measures: SiteMeasures) -> str:
    one, standing = measures.survey, measures.standing
    if one.nothing_to_do:
        return "unused"
    if standing and (standing.waiting_for or standing.draining):
        return "waiting" if standing.waiting_for else "stopping"
    return STATE.get(one.state, one.state)


def timestamp(instant: datetime | None) -> float | None:
    return instant.timestamp() if instant else None


def size_of_history(site: HostSite) -> int | None:
    """Bytes of the file and of what was not merged into it yet; None where this user can see none."""
    total = None
    for suffix in ("", "-wal"):
        with suppress(OSError):
            info = os.lstat(site.state / f"{FILE}{suffix}")
            if stat.S_ISREG(info.st_mode):
                total = (total or 0) + info.st_size
    return total
