"""`linodctl why`: in plain sentences, what decides when a task runs next."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ..archive import Streak
from ..runs import Run
from ..task import Task
from ..words import clock, count, duration
from .naming import find_task, site_and_more
from .parsing import Command, Options, UsageError
from .survey import Survey, as_json, history_of, pause_as_json, survey
from .tasks import about, phrase_of

MOST_DUE_TIMES = 3
ALWAYS_GOES_ON = 60.0  # seconds; of a task that is more frequent nothing is caught up
MISSED = {
    "once": "If due times pass while linod does not run, it runs once for all of them afterwards.",
    "none": "If due times pass while linod does not run, they are skipped.",
    "all": "If due times pass while linod does not run, it runs once for each of them, at most a hundred times.",
}


class Why(Command):
    details = "SITE may be left out on a host with one site."
    usage = "[options] [SITE] TASK"
    examples = ("linodctl why myprj send_newsletter",)

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", metavar="SITE TASK", nargs="+", help="the name of a site, and of a task of it")

    def run(self, options: Options) -> int:
        site, rest = site_and_more(options.words, 1, "the name of a task")
        if not rest:
            raise UsageError("Say which task.", f"See linodctl list {site.name}")
        [found] = survey([site])
        with history_of(site) as archive:
            task = find_task(archive, site, rest[0])
            last, streak = archive.last_run(task.id), archive.streak(task.id)
        due_times = coming(found, task)
        if options.json:
            options.screen.json(as_dict(found, task, due_times, last, streak))
            return 0
        for sentence in sentences(found, task, due_times, last, streak):
            options.screen.line(sentence)
        return 0


def coming(found: Survey, task: Task) -> list[datetime]:
    """The next due times, none while it is paused or disabled."""
    due_times: list[datetime] = []
    due = found.records.next_due(task, found.now)
    while due is not None and len(due_times) < MOST_DUE_TIMES:
        due_times.append(due)
        due = task.schedule.next(due)
    return due_times


def sentences(found: Survey, task: Task, due_times: list[datetime], last: Run | None, streak: Streak) -> Iterator[str]:
    yield f"{task.label} ({task.id}) of {found.site.name}: {phrase_of(task)[0].lower()}{phrase_of(task)[1:]}."
    if task.source:
        yield f"It is declared at {task.source}."
    yield from overridden(task)
    if zone := zone_of(task.schedule):
        yield f"Its times of day are those of {zone}; below, all times are those of this host."
    yield from next_run(found, task, due_times)
    yield from last_run(found, last, streak)
    yield missed(task)


def overridden(task: Task) -> Iterator[str]:
    """What the administrator's file says about it."""
    if task.declared:
        yield f"Its declaration says: {task.declared[0].lower()}{task.declared[1:]}; that is overridden."
    for what in task.overridden:
        key, _, where = what.partition(": ")
        yield f"Its {key} is decided at {where}."


def zone_of(schedule: Any) -> str:
    """The zone whose clock a schedule follows; empty for one that follows none."""
    return getattr(schedule, "zone", "") or zone_of(getattr(schedule, "base", None)) if schedule else ""


def next_run(found: Survey, task: Task, due_times: list[datetime]) -> Iterator[str]:
    if pause := found.records.pause_of(task.id):
        what = f"The whole site {found.site.name}" if not pause.task else "It"
        yield f"{what} is paused {about(pause)}, so it does not run."
        name = "" if not pause.task else f" {shlex.quote(task.label)}"
        yield f"To end the pause: linodctl resume {found.site.name}{name}"
    elif not task.policies.enabled:
        yield "It is disabled there, so it does not run."
    elif not due_times:
        yield "It is never due any more."
    else:
        if not (found.alive or found.by_timer):
            yield f"The site is {found.state}, so nothing runs. Start it: systemctl start linod@{found.site.name}"
        first, *others = map(clock, due_times)
        yield f"It is due next at {first}" + (f", then at {' and '.join(others)}." if others else ".")


def last_run(found: Survey, last: Run | None, streak: Streak) -> Iterator[str]:
    if last is None or last.started is None:
        yield "It has never run."
    elif last.outcome is None:
        how = "and still runs" if found.alive else "and nobody saw its end"
        yield f"Its last run, number {last.id}, started at {clock(last.started)} {how}."
    else:
        took = f" after {duration(last.duration)}" if last.duration is not None else ""
        reason = f": {last.reason}" if last.reason else ""
        outcome = last.outcome.replace("_", " ")
        yield f"Its last run, number {last.id}, started at {clock(last.started)} and {outcome}{took}{reason}."
    if streak.count > 1 and streak.since:
        yield f"It has gone wrong {count(streak.count, 'time')} in a row, since {clock(streak.since)}."


def missed(task: Task) -> str:
    if task.schedule.period < ALWAYS_GOES_ON:
        return "It is so frequent that due times which pass while linod does not run are not caught up."
    return MISSED[task.policies.catch_up]


def as_dict(found: Survey, task: Task, due_times: list[datetime], last: Run | None, streak: Streak) -> dict[str, Any]:
    return {
        "task": task.id,
        "name": task.label,
        "schedule": phrase_of(task),
        "source": task.source,
        "declared": task.declared or phrase_of(task),
        "overridden": list(task.overridden),
        "enabled": task.policies.enabled,
        "paused": pause_as_json(found.records.pause_of(task.id)),
        "running": found.alive,
        "next_due": [as_json(due) for due in due_times],
        "last_run": last.id if last else None,
        "last_outcome": last.outcome if last else None,
        "failures_in_a_row": streak.count,
        "failing_since": as_json(streak.since),
        "catch_up": task.policies.catch_up,
    }
