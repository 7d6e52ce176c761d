"""How a site is: what systemd says, who holds its lock, and what its history tells. The base of most commands."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..archive import Archive, PauseRecord, Streak
from ..errors import HistoryError, LinodError
from ..instants import from_micros
from ..runs import Run
from ..sites import HostSite
from ..task import Task
from . import units
from .reading import LookApart
from .units import Unit

DAY = timedelta(days=1)
NO_WORK = ("This site does not use linod", "This site has no scheduled jobs")
# What values of a kind, a size or a depth that linod never writes lead to.
MISTAKES = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
Map = Callable[[Callable[[HostSite], "Survey"], Sequence[HostSite]], Iterable["Survey"]]
WAITING = "waiting for the site"  # how the status of a daemon begins that cannot load its site yet


@dataclass(frozen=True, kw_only=True)
class KnownTask:
    """A task as the daemon has last seen it."""

    task: Task
    since: datetime
    accounted: datetime | None  # its latest due time that was started or skipped


@dataclass(kw_only=True)
class Records:
    """What a site's history tells about now."""

    tasks: list[KnownTask] = field(default_factory=list)
    pauses: dict[str, PauseRecord] = field(default_factory=dict)
    unfinished: list[Run] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)  # of the last day, by task
    streaks: dict[str, Streak] = field(default_factory=dict)  # of the tasks that go wrong

    def running(self) -> list[Run]:
        return [run for run in self.unfinished if run.started is not None]

    def pause_of(self, task: str) -> PauseRecord | None:
        return self.pauses.get("") or self.pauses.get(task)

    def next_due(self, task: Task, now: datetime) -> datetime | None:
        """When a task is due next; None while it is paused or disabled."""
        if not task.policies.enabled or self.pause_of(task.id):
            return None
        return task.schedule.next(now)

    def next_of_all(self, now: datetime) -> tuple[datetime, Task] | None:
        """The task that is due next, and when."""
        coming = [(due, known.task) for known in self.tasks if (due := self.next_due(known.task, now))]
        return min(coming, key=lambda pair: pair[0], default=None)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """How a site is now."""

    site: HostSite
    now: datetime
    broken: str  # why its link leads nowhere
    service: Unit | None  # None where systemd doesn't run
    timer: Unit | None
    holder: int | None  # the process that runs its tasks
    began: datetime | None  # when that took the lock
    records: Records
    unreadable: str  # why its history cannot be read

    @property
    def alive(self) -> bool:
        """Whether its tasks are being run."""
        return self.holder is not None or bool(self.service and self.service.active)

    @property
    def by_timer(self) -> bool:
        """Whether its timer runs what is due."""
        return bool(self.timer and self.timer.active)

    @property
    def waiting(self) -> str:
        """Why its daemon cannot load it, while that is so."""
        status = self.service["StatusText"] if self.service and self.service.active else ""
        return status if status.startswith(WAITING) else ""

    @property
    def nothing_to_do(self) -> str:
        """Why its daemon has ended by itself, though all was well: the site has no work for it."""
        unit = self.service
        if unit is None or self.alive or self.by_timer:
            return ""
        if (unit["ActiveState"], unit["Result"]) != ("inactive", "success"):
            return ""
        return unit["StatusText"] if unit["StatusText"].startswith(NO_WORK) else ""

    @property
    def status(self) -> str:
        """What its unit says. That of one that was stopped is about the past."""
        if self.service is None or self.service["ActiveState"] == "inactive":
            return self.nothing_to_do
        return self.service["StatusText"]

    @property
    def state(self) -> str:
        """A few words."""
        if self.service and self.service.active:
            return "waiting" if self.waiting else self.service["ActiveState"]
        if self.service and self.service["ActiveState"] in ("activating", "deactivating"):
            return {"activating": "starting", "deactivating": "stopping"}[self.service["ActiveState"]]
        if self.holder is not None:
            return "running" if self.service is None or self.by_timer else "running without its unit"
        if self.by_timer:
            return "timer"
        if self.service is None:
            return "stopped"
        return {"inactive": "stopped"}.get(self.service["ActiveState"], self.service["ActiveState"])

    @property
    def memory(self) -> int | None:
        """KiB of all its processes; None where that cannot be known."""
        if self.service and self.service.active and self.service.memory is not None:
            return self.service.memory
        return memory_of(self.holder) if self.holder else None


def survey(sites: Sequence[HostSite], each: Map = map) -> list[Survey]:
    """All these sites, with one question to systemd. `each` may look at several at once."""
    names = [name for site in sites for name in (site.unit, units.timer_of(site))]
    found = units.show(names)
    now = datetime.now(UTC)
    return list(each(lambda site: look_at(site, now, found.get(site.unit), found.get(units.timer_of(site))), sites))


def look_at(site: HostSite, now: datetime, service: Unit | None, timer: Unit | None) -> Survey:
    holder, began = who_runs(site.state)
    records, unreadable = Records(), ""
    try:
        with history_of(site) as archive:
            records = read(archive, now)
    except LinodError as error:
        unreadable = str(error)
    return Survey(
        site=site,
        now=now,
        broken=why_broken(site),
        service=service,
        timer=timer,
        holder=holder,
        began=began,
        records=records,
        unreadable=unreadable,
    )


def read(archive: Archive, now: datetime) -> Records:
    tasks = known_tasks(archive)
    streaks = {known.task.id: archive.streak(known.task.id) for known in tasks}
    return Records(
        tasks=tasks,
        streaks={task: streak for task, streak in streaks.items() if streak.count},
        pauses=archive.pauses(),
        unfinished=archive.unfinished(),
        failures=archive.failures_since(now - DAY),
    )


@contextmanager
def history_of(site: HostSite) -> Iterator[Archive]:
    """The history of a site, whose user can have written anything there. Raises HistoryError."""
    try:
        with open_history(site.state) as archive:
            yield archive
    except LinodError:
        raise
    except MISTAKES as error:
        raise HistoryError(f"The history {site.state} holds what linod has not written: {error}.") from None


def open_history(state: Path) -> Archive:
    try:
        return Archive(state, LookApart)
    except OSError as error:
        raise HistoryError(f"The history {state} cannot be read: {error.strerror}.") from None


def known_tasks(archive: Archive) -> list[KnownTask]:
    """The tasks that this version of linod understands, in the order of their declaration."""
    return [known for known in map(known_task, archive.tasks()) if known]


def known_task(row: Mapping[str, Any]) -> KnownTask | None:
    """A task that history has; None for one that this version of linod has not written."""
    try:
        task = Task.from_dict(json.loads(row["task"]))
        accounted = None if row["accounted"] is None else from_micros(row["accounted"])
        known = KnownTask(task=task, since=from_micros(row["since"]), accounted=accounted)
        for instant in (datetime.now(UTC), known.since, known.accounted):
            task.schedule.next(instant or known.since)  # what cannot be computed is found here
    except MISTAKES:
        return None
    texts = (task.id, task.label, task.source, task.declared, *task.tags, *task.overridden, task.text)
    return known if all(isinstance(text, str) for text in texts) and task.text and task.id == row["id"] else None


def why_broken(site: HostSite) -> str:
    """Why the link of a site leads nowhere; empty where it is fine, or where this user cannot know."""
    try:
        site.link.stat()
    except PermissionError:
        return ""
    except OSError:
        return f"no directory {site.directory}"
    return ""


def who_runs(state: Path) -> tuple[int | None, datetime | None]:
    """The process that holds the lock of a site, and since when."""
    from ..daemon.lock import is_alive, open_to_look, read_holder

    if (fd := open_to_look(state)) is None:
        return None, None
    try:
        holder, file = read_holder(fd), os.fstat(fd)
        if is_alive(holder) and is_true(holder[0], file):
            # No clock has been set to times that datetime doesn't know, but a file may.
            return holder[0], datetime.fromtimestamp(min(max(file.st_mtime, 0), time.time()), UTC)
    except OSError:
        pass  # not even a file
    finally:
        os.close(fd)
    return None, None


def is_true(pid: int, lock: os.stat_result) -> bool:
    """Whether a process has locked a file, in which its user may name any. Who may not know must believe it."""
    from ..linux import has_locked

    try:
        return has_locked(pid, lock)
    except PermissionError:
        return True


def memory_of(pid: int) -> int | None:
    """KiB of a process and all below it, what they share counted once; None where this user may not know."""
    from ..linux import descendants

    total, known = 0, False
    for one in (pid, *descendants(pid)):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has ended, or is another user's
        for line in lines:
            if line.startswith("Pss:"):
                total, known = total + int(line.split()[1]), True
    return total if known else None


def as_json(instant: datetime | None) -> str | None:
    return instant.isoformat() if instant else None


def pause_as_json(pause: PauseRecord | None) -> dict[str, Any] | None:
    if pause is None:
        return None
    return {"since": as_json(pause.since), "reason": pause.reason, "by": pause.by, "whole_site": not pause.task}
