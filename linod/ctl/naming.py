"""Which site, task or run is meant by the words that were typed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .. import names, sites
from ..archive import Archive
from ..names import UnknownTask
from ..sites import HostSite
from ..task import Task
from .parsing import UsageError
from .survey import known_tasks


def take_site(words: Sequence[str]) -> tuple[HostSite, list[str]]:
    """The site that the first word names, and the other words. It may be left out where the host has only one."""
    known = sites.names()
    if words and (words[0] in known or len(known) != 1):
        return sites.find(words[0]), list(words[1:])
    if len(known) == 1:
        return HostSite(name=known[0]), list(words)
    raise UsageError("Say which site.", f"There are {', '.join(known)}." if known else "This host has none yet.")


def only_site(word: str | None) -> HostSite:
    """The site that is named, or the only one."""
    return sites.find(word) if word else take_site([])[0]


def site_and_more(words: Sequence[str], most: int, what: str) -> tuple[HostSite, list[str]]:
    """The same where at most so many words may follow the site."""
    site, rest = take_site(words)
    if len(rest) > most:
        raise UsageError(f"What is meant by {rest[most]!r}?", f"After the site comes {what}.")
    return site, rest


def sites_or_all(words: Sequence[str]) -> list[HostSite]:
    """The sites that are named; all of this host where none is."""
    return [sites.find(word) for word in words or sites.names()]


def find_task(archive: Archive, site: HostSite, name: str) -> Task:
    """A task of a site by its id, or by its function's name where that is unique; raises UnknownTask."""
    tasks = {known.task.id: known.task for known in known_tasks(archive)}
    if not tasks:
        raise UnknownTask(
            f"No task {name!r} of {site.name} is known.",
            f"Its daemon has not loaded it yet; start it: systemctl start linod@{site.name}",
        )
    labels = {id: task.label for id, task in tasks.items()}
    return tasks[names.find_task(name, labels, hint=f"See linodctl list {site.name}")]


def names_by_id(tasks: Iterable[Task]) -> dict[str, str]:
    """What to call each task: by its function's name where that is unique, else by its id."""
    tasks = list(tasks)
    times = Counter(task.label for task in tasks)
    return {task.id: task.label if times[task.label] == 1 else task.id for task in tasks}


def find_task_id(archive: Archive, site: HostSite, name: str) -> str:
    """The same for looking back: also of a task that is declared no more."""
    ran = archive.tasks_that_ran()
    if name in ran:
        return name
    known = known_tasks(archive)
    if not any(name in (one.task.id, one.task.label) for one in known):
        gone = [id for id in ran if label_of(id) == name]
        if len(gone) == 1:
            return gone[0]
    return find_task(archive, site, name).id


def label_of(id: str) -> str:
    """The function's name in the id of a task that is declared no more."""
    return id.partition("#")[0].rpartition(".")[2] or id


def find_run_id(word: str) -> int:
    """The number of a run, as the tables show it."""
    try:
        number = int(word.removeprefix("#"))
    except ValueError:
        number = 0
    if not 0 < number < 2**63:
        raise UsageError(f"{word!r} is no number of a run.", "linodctl history shows the numbers.")
    return number
