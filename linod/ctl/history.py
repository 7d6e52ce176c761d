"""`linodctl history` and `linodctl show`: what the runs of a site did."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .. import sites
from ..archive import Archive
from ..errors import LinodError
from ..runs import Run
from ..sites import HostSite
from ..words import brief_clock, clock, duration, size
from .naming import find_run_id, find_task_id, label_of, names_by_id, site_and_more
from .parsing import Command, Options, UsageError
from .screen import DIM, Cell, Screen, Styled, style_of, text_of, warn
from .spans import instant
from .survey import as_json, history_of, known_tasks, who_runs
from .tasks import outcome_cell

COLUMNS = ("RUN", "TASK", "DUE", "TOOK", "OUTCOME", "REASON")


class History(Command):
    details = "Without SITE, those of all sites are shown."
    usage = "[options] [SITE [TASK]]"
    examples = (
        "linodctl history myprj",
        "linodctl history --failed",
        "linodctl history myprj send_newsletter --limit 5",
        "linodctl history myprj --failed --since yesterday",
        'linodctl history myprj --since "2026-11-24 08:00" --json',
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", metavar="SITE [TASK]", nargs="*", help="the name of a site, and of a task of it")
        parser.add_argument("--failed", action="store_true", help="only runs that went wrong")
        parser.add_argument("--limit", "-n", metavar="N", type=positive, default=20, help="so many of them (20)")
        parser.add_argument(
            "--since", metavar="WHEN", type=instant, help='like "2h", "yesterday" or "2026-11-24 20:00"'
        )

    def run(self, options: Options) -> int:
        screen = options.screen
        if options.words or len(sites.names()) <= 1:
            site, rest = site_and_more(options.words, 1, "the name of a task")
            found = list(look(site, rest, options))
            columns: tuple[str, ...] = COLUMNS
        else:
            found = latest_of_all(options)
            columns = ("SITE", *COLUMNS)
        if options.json:
            screen.json([one.as_dict() for one in found])
        elif not found:
            screen.line(f"No runs{' that went wrong' if options.failed else ''} are known.")
        else:
            now = datetime.now(UTC)
            screen.table(columns, [one.cells(now)[-len(columns) :] for one in found])
        return 0


@dataclass(frozen=True, kw_only=True)
class Record:
    """A run as the history shows it."""

    site: HostSite
    run: Run
    name: str  # of its task
    alive: bool  # somebody runs the tasks of the site

    def cells(self, now: datetime) -> list[Cell]:
        run = self.run
        took = duration(run.duration) if run.duration is not None else "-"
        how = outcome(run, alive=self.alive)
        return [self.site.name, str(run.id), self.name, brief_clock(run.due, now), took, how, first_line(run.reason)]

    def as_dict(self) -> dict[str, Any]:
        return {"site": self.site.name, **run_as_dict(self.run)}


def look(site: HostSite, words: Sequence[str], options: Options) -> Iterator[Record]:
    """The latest runs of a site, or of its task that is named."""
    with history_of(site) as archive:
        task = find_task_id(archive, site, words[0]) if words else None
        runs = archive.runs(task=task, bad=options.failed, since=options.since, limit=options.limit)
        names = names_of(archive)
    alive = who_runs(site.state)[0] is not None
    for run in runs:
        yield Record(site=site, run=run, name=names.get(run.task, label_of(run.task)), alive=alive)


def latest_of_all(options: Options) -> list[Record]:
    """The latest runs of all sites; of a site whose history cannot be read, it is said why. Raises if that is each."""
    names, found, unread = sites.names(), list[Record](), list[str]()
    for name in names:
        try:
            found += look(HostSite(name=name), [], options)
        except LinodError as error:
            warn(f"{name}: {error}")
            unread.append(name)
    if unread == names:
        raise LinodError("The history of no site can be read.")
    found.sort(key=lambda one: one.run.started or one.run.due, reverse=True)
    return found[: options.limit]


class Show(Command):
    details = "The numbers of runs are those that `linodctl history` shows."
    usage = "[options] [SITE] RUN"
    examples = ("linodctl show myprj 1274", "linodctl show myprj 1274 --json | jq -r .traceback")

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", metavar="SITE RUN", nargs="+", help="the name of a site, the number of a run")

    def run(self, options: Options) -> int:
        site, rest = site_and_more(options.words, 1, "the number of a run")
        if not rest:
            raise UsageError("Say which run.", f"See linodctl history {site.name}")
        id = find_run_id(rest[0])
        with history_of(site) as archive:
            run, names = archive.run(id), names_of(archive)
        if run is None:
            raise UsageError(f"{site.name} has no run {id}.", f"See linodctl history {site.name}")
        if options.json:
            options.screen.json({"site": site.name, **run_as_dict(run)})
        else:
            show(options.screen, site, run, names)
        return 0


def show(screen: Screen, site: HostSite, run: Run, names: dict[str, str]) -> None:
    """A run, whole."""
    screen.facts(facts(site, run, names, alive=who_runs(site.state)[0] is not None))
    for title, text in (("Traceback", run.traceback), ("Output", run.output)):
        if text:
            screen.line()
            screen.line(Styled(f"{title}:", DIM))
            screen.block(text.rstrip("\n"))  # output begins with how much of it was not kept


def facts(site: HostSite, run: Run, names: dict[str, str], *, alive: bool) -> list[tuple[str, Cell]]:
    return [
        ("Run", str(run.id)),
        ("Task", name_and_id(run.task, names)),
        ("Outcome", outcome(run, alive=alive)),
        ("Reason", run.reason),
        ("Trigger", run.trigger),
        ("Attempt", str(run.attempt) if run.attempt > 1 else ""),
        ("Due", clock(run.due) + (f", and {run.dues - 1} times before" if run.dues > 1 else "")),
        ("Started", clock(run.started) if run.started else ""),
        ("Ended", clock(run.ended) if run.ended else ""),
        ("Took", duration(run.duration) if run.duration is not None else ""),
        ("CPU", duration(run.cpu) if run.cpu is not None else ""),
        ("Memory", f"{size(run.peak_memory)} at most" if run.peak_memory else ""),
        ("Process", str(run.pid) if run.pid else ""),
        ("Journal", f"journalctl LINOD_SITE={site.name} LINOD_RUN={run.id}" if run.started else ""),
    ]


def outcome(run: Run, *, alive: bool) -> Cell:
    """How it ended, and after how many tries, or for how many due times."""
    cell, notes = outcome_cell(run, alive=alive), []
    if run.trigger != "schedule":
        notes.append(str(run.trigger))
    if run.dues > 1:
        notes.append(f"{run.dues} times")
    return Styled(f"{text_of(cell)} ({', '.join(notes)})", style_of(cell)) if notes else cell


def names_of(archive: Archive) -> dict[str, str]:
    return names_by_id(known.task for known in known_tasks(archive))


def name_and_id(id: str, names: dict[str, str]) -> str:
    name = names.get(id, id)
    return name if name == id else f"{name} ({id})"


def first_line(text: str) -> str:
    return text.partition("\n")[0]


def run_as_dict(run: Run) -> dict[str, Any]:
    """A run for programs."""
    values = {name: getattr(run, name) for name in run.__dataclass_fields__}
    return {name: as_json(value) if isinstance(value, datetime) else value for name, value in values.items()}


def positive(text: str) -> int:
    number = int(text)
    if not 0 < number < 2**63:
        raise ValueError
    return number
