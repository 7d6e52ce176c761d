"""`linodctl sites`: all sites of this host at a glance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import sites
from ..sites import HostSite
from ..words import brief_clock, count, size
from .parsing import Command, Options
from .screen import GREEN, RED, YELLOW, Cell, Styled
from .survey import Survey, as_json, pause_as_json, survey

MOST_FAILING = 5  # tasks of one site that are named
STYLES = {"active": GREEN, "running": GREEN, "timer": GREEN, "failed": RED, "waiting": RED}


class Sites(Command):
    details = "FAILED counts the runs of the last 24 hours that went wrong; MEMORY is that of all processes of a site."
    examples = ("linodctl sites", "linodctl sites --json | jq '.[] | select(.failures_of_last_day > 0) | .site'")

    def run(self, options: Options) -> int:
        found = survey([HostSite(name=name) for name in sites.names()])
        screen = options.screen
        if options.json:
            screen.json([as_dict(one) for one in found])
            return 0
        if not found:
            screen.line("This host has no sites yet. Add one: linodctl add NAME DIRECTORY")
            return 0
        screen.table(
            ("SITE", "STATE", "TASKS", "RUNNING", "FAILED", "NEXT", "MEMORY"),
            [row(one) for one in found],
        )
        for one in found:
            if trouble := one.waiting or one.unreadable:
                screen.line()
                screen.line(Styled(f"{one.site.name}: ", YELLOW), trouble)
        if failing := [sentence for one in found for sentence in failing_tasks(one)]:
            screen.line()
            for sentence in failing:
                screen.line(Styled(sentence, RED))
        if options.hint:
            screen.line()
            screen.line("See linodctl --help for all that it can do.")
        return 0


def row(one: Survey) -> list[Cell]:
    records, unknown = one.records, "?" if one.unreadable else ""
    failures = sum(records.failures.values())
    running = len(records.running()) if one.alive else 0
    return [
        one.site.name,
        state(one),
        unknown or str(len(records.tasks)),
        unknown or str(running),
        unknown or Styled(str(failures), RED if failures else ""),
        unknown or coming(one),
        size(one.memory) if one.memory is not None else "-",
    ]


def failing_tasks(one: Survey) -> Iterator[str]:
    """The tasks that go wrong at the moment, the ones that have done so for longest first."""
    labels = {known.task.id: known.task.label for known in one.records.tasks}
    streaks = sorted(one.records.streaks.items(), key=lambda pair: pair[1].since or one.now)
    for task, streak in streaks[:MOST_FAILING]:
        since = f" since {brief_clock(streak.since, one.now)}" if streak.since else ""
        yield f"{one.site.name}: {labels[task]} is failing{since}, {count(streak.count, 'time')}"
    if len(streaks) > MOST_FAILING:
        yield f"{one.site.name}: and {len(streaks) - MOST_FAILING} more. See linodctl list {one.site.name}"


def state(one: Survey) -> Cell:
    if one.broken:
        return Styled(f"{one.state}, {one.broken}", RED)
    if one.alive and "" in one.records.pauses:
        return Styled("paused", YELLOW)
    if one.nothing_to_do:
        return one.nothing_to_do.removeprefix("This site ").removesuffix(".")
    return Styled(one.state, STYLES.get(one.state, YELLOW if one.alive else ""))


def coming(one: Survey) -> str:
    """When something happens next, if anybody is there to do it."""
    following = one.records.next_of_all(one.now) if one.alive or one.by_timer else None
    return f"{brief_clock(following[0], one.now)} {following[1].label}" if following else "-"


def as_dict(one: Survey) -> dict[str, Any]:
    records = one.records
    following = records.next_of_all(one.now) if one.alive or one.by_timer else None
    return {
        "site": one.site.name,
        "directory": str(one.site.directory),
        "state": one.state,
        "broken": one.broken or None,
        "unit": one.site.unit,
        "unit_state": one.service["ActiveState"] if one.service else None,
        "enabled": one.service.enabled if one.service else None,
        "timer": one.by_timer,
        "status": one.status or None,
        "pid": one.holder,
        "unreadable": one.unreadable or None,
        "tasks": len(records.tasks),
        "running": [run.id for run in records.running()] if one.alive else [],
        "failures_of_last_day": sum(records.failures.values()),
        "failing": [
            {"task": task, "since": as_json(streak.since), "times": streak.count}
            for task, streak in records.streaks.items()
        ],
        "paused": pause_as_json(records.pauses.get("")),
        "paused_tasks": sorted(task for task in records.pauses if task),
        "next_due": as_json(following[0]) if following else None,
        "next_task": following[1].id if following else None,
        "memory_kib": one.memory,
    }
