"""`linodctl status`: one line and an exit code, as monitoring systems in the tradition of Nagios want them.

0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any

from ..archive import Streak, put_aside
from ..caller import NoAnswer, ask
from ..errors import LinodError
from ..runs import Run
from ..schedules.elapsed import LONGEST
from ..sites import HostSite
from ..task import Task
from ..wire import Ask, Standing
from ..words import clock, count, duration
from .asking import control_of
from .history import positive
from .naming import sites_or_all
from .parsing import Command, Options
from .screen import GREEN, RED, YELLOW, Screen, Styled
from .survey import KnownTask, Survey, survey
from .tasks import about

LATE = 60.0  # seconds after a due time without a start, by default
TIMER_PERIOD = 60.0  # seconds; a site without a daemon is looked after this often
SPREAD = 90.0  # seconds after its start in which a daemon may still catch up
ANSWERS_WITHIN = 5.0  # seconds
STUCK = 30.0  # seconds that a run may go on beyond its timeout and its grace


class Level(IntEnum):
    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


STYLES = {Level.OK: GREEN, Level.WARNING: YELLOW, Level.CRITICAL: RED, Level.UNKNOWN: YELLOW}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """From when on something is said."""

    warning: int  # failures in a row
    critical: int
    late: float  # seconds


@dataclass(kw_only=True)
class Verdict:
    """What is to be said about a site."""

    site: str
    problems: list[tuple[Level, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        """UNKNOWN only where nothing worse is known."""
        levels = {level for level, _text in self.problems}
        known = levels - {Level.UNKNOWN}
        return max(known) if known - {Level.OK} else max(levels, default=Level.OK)

    @property
    def text(self) -> str:
        """The worst first."""
        worst_first = sorted(self.problems, key=lambda problem: -(problem[0] % Level.UNKNOWN))
        return "; ".join([text for _level, text in worst_first] or ["all is well"]) + "".join(
            f"; {remark}" for remark in self.remarks
        )


class Status(Command):
    details = (
        "Exit code 0: OK, 1: WARNING, 2: CRITICAL, 3: UNKNOWN. Critical: it does not run, waits for the site, starts"
        " tasks late, has a run that goes on beyond its timeout, or a task that has failed N times in a row. Without"
        " SITE, the line is about all sites, and the worst one counts."
    )
    exit_usage = Level.UNKNOWN  # 2 would be CRITICAL
    examples = ("linodctl status myprj", "linodctl status myprj --warning 2 --critical 5", "linodctl status")

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("sites", metavar="SITE", nargs="*", help="names of sites")
        parser.add_argument("--warning", metavar="N", type=positive, default=1, help="failures of a task in a row (1)")
        parser.add_argument("--critical", metavar="N", type=positive, default=3, help="failures of a task in a row (3)")
        parser.add_argument(
            "--late", metavar="SECONDS", type=seconds, default=LATE, help="from a due time until a start is missed (60)"
        )

    def run(self, options: Options) -> int:
        limits = Limits(warning=options.warning, critical=options.critical, late=options.late)
        try:
            wanted = sites_or_all(options.sites)
        except LinodError as error:
            verdicts = [Verdict(site="linod", problems=[(Level.UNKNOWN, str(error))])]
        else:
            verdicts = [judge(one, limits) for one in survey(wanted)]
        worst = worst_of(verdicts)
        if options.json:
            options.screen.json([as_dict(verdict) for verdict in verdicts])
        else:
            say(options.screen, worst, verdicts)
        return int(worst)


def seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= LONGEST:
        raise ValueError
    return number


def worst_of(verdicts: Sequence[Verdict]) -> Level:
    """What is certainly wrong counts more than what is not known."""
    return max(
        (verdict.level for verdict in verdicts), key=lambda level: (level % Level.UNKNOWN, level), default=Level.OK
    )


def say(screen: Screen, worst: Level, verdicts: Sequence[Verdict]) -> None:
    figures = {name: sum(v.figures.get(name, 0) for v in verdicts) for v in verdicts for name in v.figures}
    performance = " ".join(f"{name}={value}" for name, value in figures.items())
    tail = f" | {performance}" if performance else ""
    screen.line(Styled(f"LINOD {worst.name}", STYLES[worst]), f" - {summary(verdicts)}{tail}")


def summary(verdicts: Sequence[Verdict]) -> str:
    # In such a line a bar begins the figures.
    texts = [f"{one.site}: {one.text}".replace("|", "/") for one in verdicts]
    if len(verdicts) > 1:
        worse = [text for one, text in zip(verdicts, texts, strict=True) if one.level is not Level.OK]
        texts = (
            [f"{len(worse)} of {len(verdicts)} sites have problems", *worse]
            if worse
            else [f"all {len(verdicts)} sites are well"]
        )
    return "; ".join(texts) if texts else "this host has no sites"


def as_dict(verdict: Verdict) -> dict[str, Any]:
    return {
        "site": verdict.site,
        "level": verdict.level.name,
        "problems": [{"level": level.name, "text": text} for level, text in verdict.problems],
        "remarks": verdict.remarks,
        "figures": verdict.figures,
    }


# What is wrong with a site


def judge(one: Survey, limits: Limits) -> Verdict:
    """All that a maintainer should know of a site now."""
    verdict = Verdict(site=one.site.name)
    verdict.problems += running(one)
    if one.unreadable:
        verdict.problems.append((Level.UNKNOWN, one.unreadable))
        return verdict
    records = one.records
    if one.alive or one.by_timer:
        verdict.problems += stuck(one)
        verdict.problems += late(one, limits)
    verdict.problems += [] if one.nothing_to_do else failing(one, limits)
    verdict.remarks += paused(one)
    verdict.remarks += [f"a history that was harmed is kept as {path}" for path in put_aside(one.site.state)]
    verdict.figures |= {
        "tasks": len(records.tasks),
        "running": len(records.running()) if one.alive else 0,
        "failed_24h": sum(records.failures.values()),
    }
    return verdict


def running(one: Survey) -> Iterator[tuple[Level, str]]:
    """Whether anybody runs its tasks, and what that one says."""
    if one.broken:
        yield Level.CRITICAL, f"its link leads nowhere: {one.broken}"
    if one.holder is not None:
        yield from standing(one.site)
    elif one.waiting:
        yield Level.CRITICAL, one.waiting
    elif one.state == "starting":
        yield Level.WARNING, "it is starting"
    elif one.nothing_to_do:
        yield Level.OK, one.nothing_to_do
    elif one.alive:  # its lock is gone, with the rest of its state directory
        yield from standing(one.site)
    elif not one.by_timer:
        why = f": {one.status}" if one.status else ""
        how = "not running" if one.state == "stopped" else f"not running ({one.state})"
        yield Level.CRITICAL, how + why


def standing(site: HostSite) -> Iterator[tuple[Level, str]]:
    """What is wrong with a running daemon, as far as it listens to us."""
    try:
        answer = standing_of(site)
    except NoAnswer as error:
        yield Level.CRITICAL, error.message
        return
    if answer:
        if answer.waiting_for:
            yield Level.CRITICAL, f"waiting for the site: {answer.waiting_for}"
        if answer.trouble:
            yield Level.CRITICAL, f"history cannot be written: {answer.trouble}"
        if answer.draining:
            yield Level.WARNING, "it is stopping"


def standing_of(site: HostSite) -> Standing | None:
    """What a running daemon says about itself; None where it listens to others. Raises NoAnswer where it is silent."""
    try:
        with control_of(site) as control:
            answer = ask(control, Ask(), ANSWERS_WITHIN)
    except NoAnswer:
        raise
    except (LinodError, OSError):
        return None  # or a command runs a task by itself; history tells enough
    return answer if isinstance(answer, Standing) else None


def stuck(one: Survey) -> Iterator[tuple[Level, str]]:
    """Runs that should have been ended."""
    tasks = {known.task.id: known.task for known in one.records.tasks}
    for run in one.records.running():
        task = tasks.get(run.task)
        if task is None or run.started is None:
            continue
        beyond = (one.now - run.started).total_seconds() - task.policies.timeout
        if beyond > task.policies.grace + STUCK:
            yield Level.CRITICAL, f"{task.label} is stuck: run {run.id} goes on {duration(beyond)} beyond its timeout"


def late(one: Survey, limits: Limits) -> Iterator[tuple[Level, str]]:
    """Due times that passed without a start."""
    allowed = limits.late + (TIMER_PERIOD if one.by_timer and not one.alive else 0.0)
    for task, due in overdue(one, one.now - timedelta(seconds=allowed)):
        yield Level.CRITICAL, f"{task.label} is late by {duration((one.now - due).total_seconds())}"


def overdue(one: Survey, until: datetime) -> Iterator[tuple[Task, datetime]]:
    """The tasks that should have been started, with the oldest due time for which they should, up to an instant."""
    waiting = held_up(one)
    for known in one.records.tasks:
        task = known.task
        if task.policies.enabled and not one.records.pause_of(task.id) and task.id not in waiting:
            due = missed(one, known, until)
            if due is not None:
                yield task, due


def held_up(one: Survey) -> set[str]:
    """The tasks that wait for another run as they should: for their own previous one, or for one with the same lock."""
    tasks, running = [known.task for known in one.records.tasks], {run.task for run in one.records.running()}
    locks = {task.policies.lock for task in tasks if task.id in running} - {None}
    return {task.id for task in tasks if task.id in running or task.policies.lock in locks}


def missed(one: Survey, known: KnownTask, until: datetime) -> datetime | None:
    """The oldest due time up to an instant that nobody saw to."""
    waiting = [run.due for run in claims_of(one, known.task) if run.due <= until]
    if waiting:
        return min(waiting)
    begin = max(filter(None, [known.since, known.accounted, settled(one)]))
    due = known.task.schedule.next(begin)
    return due if due is not None and due <= until else None


def claims_of(one: Survey, task: Task) -> list[Run]:
    """Runs that shall begin. A catch-up or a retry may be claimed long after its due time."""
    fresh = settled(one)
    return [
        run
        for run in one.records.unfinished
        if run.task == task.id and run.started is None and run.trigger == "schedule" and (not fresh or run.due > fresh)
    ]


def settled(one: Survey) -> datetime | None:
    """Until when its daemon was busy with what had happened before it."""
    return one.began + timedelta(seconds=SPREAD) if one.began else None


def failing(one: Survey, limits: Limits) -> Iterator[tuple[Level, str]]:
    for known in one.records.tasks:
        streak = one.records.streaks.get(known.task.id, Streak())
        if streak.count < min(limits.warning, limits.critical) or not known.task.policies.enabled:
            continue
        level = Level.CRITICAL if streak.count >= limits.critical else Level.WARNING
        times = f", {count(streak.count, 'time')} in a row" if streak.count > 1 else ""
        since = f" since {clock(streak.since)}" if streak.since else ""
        yield level, f"{known.task.label} is failing{since}{times}"


def paused(one: Survey) -> Iterator[str]:
    """Somebody wanted it so: no problem, but not to be forgotten."""
    if whole := one.records.pauses.get(""):
        yield f"paused {about(whole)}"
        return
    labels = {known.task.id: known.task.label for known in one.records.tasks}
    for task, pause in one.records.pauses.items():
        yield f"{labels.get(task, task)} is paused {about(pause)}"
