"""`linodctl list`: the tasks of a site with what they did last and do next."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..archive import Archive, PauseRecord, Streak
from ..runs import Outcome, Run
from ..task import Task
from ..words import brief_clock, clock
from .naming import names_by_id, only_site
from .parsing import Command, Options
from .screen import GREEN, RED, YELLOW, Cell, Styled
from .survey import Survey, as_json, history_of, pause_as_json, survey


class List(Command):
    details = "SITE may be left out on a host with one site."
    examples = ("linodctl list myprj", "linodctl list myprj --json")

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("site", metavar="SITE", nargs="?", help="the name of a site")

    def run(self, options: Options) -> int:
        site = only_site(options.site)
        [found] = survey([site])
        with history_of(site) as archive:
            names = names_by_id(known.task for known in found.records.tasks)
            rows = [look(archive, found, known.task, names[known.task.id]) for known in found.records.tasks]
        screen = options.screen
        if options.json:
            screen.json([row.as_dict() for row in rows])
            return 0
        if not rows:
            screen.line(f"No tasks of {site.name} are known. Its daemon tells them: systemctl start linod@{site.name}")
            return 0
        screen.table(("TASK", "SCHEDULE", "LAST RUN", "OUTCOME", "NEXT"), [row.cells(found.now) for row in rows])
        if whole := found.records.pauses.get(""):
            screen.line()
            screen.line(Styled(f"{site.name} is paused {about(whole)}.", YELLOW))
        elif not (found.alive or found.by_timer):
            screen.line()
            screen.line(Styled(f"{site.name} is not running, so nothing will start. See linodctl status.", YELLOW))
        return 0


@dataclass(frozen=True, kw_only=True)
class Row:
    """A task as the list shows it."""

    task: Task
    name: str  # its label, where that is unique
    last: Run | None
    streak: Streak
    next: datetime | None
    pause: PauseRecord | None
    alive: bool

    def cells(self, now: datetime) -> list[Cell]:
        last = self.last
        return [
            self.name,
            phrase_of(self.task) + (" (overridden)" if self.task.declared else ""),
            brief_clock(last.started, now) if last and last.started else "never",
            self.outcome(now),
            self.coming(now),
        ]

    def outcome(self, now: datetime) -> Cell:
        if self.streak.count > 1 and self.streak.since:
            since = brief_clock(self.streak.since, now)
            return Styled(f"failing since {since}, {self.streak.count} times", RED)
        return outcome_cell(self.last, alive=self.alive) if self.last else "-"

    def coming(self, now: datetime) -> Cell:
        if self.pause:
            return Styled(f"paused {about(self.pause)}", YELLOW)
        if not self.task.policies.enabled:
            return Styled("disabled", YELLOW)
        return brief_clock(self.next, now) if self.next else "-"

    def as_dict(self) -> dict[str, Any]:
        last, task = self.last, self.task
        return {
            "task": task.id,
            "name": task.label,
            "schedule": phrase_of(task),
            "source": task.source,
            "enabled": task.policies.enabled,
            "overridden": list(task.overridden),
            "timeout": task.policies.timeout,
            "paused": pause_as_json(self.pause),
            "last_run": last.id if last else None,
            "last_started": as_json(last.started) if last else None,
            "last_outcome": last.outcome if last else None,
            "failures_in_a_row": self.streak.count,
            "failing_since": as_json(self.streak.since),
            "next_due": as_json(self.next),
        }


def look(archive: Archive, found: Survey, task: Task, name: str) -> Row:
    records = found.records
    return Row(
        task=task,
        name=name,
        last=archive.last_run(task.id),
        streak=archive.streak(task.id),
        next=records.next_due(task, found.now),
        pause=records.pause_of(task.id),
        alive=found.alive,
    )


def phrase_of(task: Task) -> str:
    """When it runs, in the words of its declaration."""
    return task.text.partition(" do ")[0]


def outcome_cell(run: Run, *, alive: bool) -> Cell:
    """How a run ended, or that it has not."""
    if run.outcome is None:
        return "running" if alive else Styled("its end was not seen", RED)
    words = run.outcome.replace("_", " ")
    if run.outcome.bad:
        return Styled(words, RED)
    return Styled(words, GREEN if run.outcome is Outcome.SUCCEEDED else YELLOW)


def about(pause: PauseRecord) -> str:
    """Since when, by whom and why."""
    by = f" by {pause.by}" if pause.by else ""
    reason = f": {pause.reason}" if pause.reason else ""
    return f"since {clock(pause.since)}{by}{reason}"
