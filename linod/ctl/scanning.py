"""`linodctl add --scan`: which directories of a server could be sites, and by what names."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import sites
from ..errors import EXIT_FAILED, LinodError
from ..sites import HostSite
from ..words import count
from . import units
from .parsing import Options, UsageError
from .screen import YELLOW, Cell, Styled, say_error

if TYPE_CHECKING:
    from .adding import Particulars

PLACES = (Path("/usr/local/lino/lino_local"),)  # where getlino lays out its sites


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A directory that is no site yet, and could be."""

    name: str
    directory: Path
    user: str
    uses_linod: bool | None = None  # None: that could not be told
    tasks: int = 0
    problem: str = ""  # why it could not be told

    def cells(self) -> list[Cell]:
        return [self.name, str(self.directory), self.user, self.verdict()]

    def verdict(self) -> Cell:
        if self.uses_linod is None:
            return Styled(self.problem or "unknown", YELLOW)
        return f"yes, {count(self.tasks, 'task')}" if self.uses_linod else "no"

    def as_dict(self) -> dict[str, Any]:
        return {
            "site": self.name,
            "directory": str(self.directory),
            "user": self.user,
            "uses_linod": self.uses_linod,
            "tasks": self.tasks if self.uses_linod else None,
            "problem": self.problem or None,
        }


def run(options: Options, given: Particulars) -> int:
    """Show what there is; with --apply, add what uses linod."""
    if given.python or given.settings or given.group:
        raise UsageError("--scan adds each site as it is.", "Add one that differs by its name: linodctl add SITE DIR")
    places = [Path(os.path.abspath(word)) for word in options.words] or list(PLACES)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(examined, candidates(places, given.user)))
    wanted = [one for one in found if one.uses_linod] if options.apply and not options.dry_run else []
    added = [one for one in wanted if was_added(one)]
    if options.json:
        options.screen.json([{**one.as_dict(), "added": one in added} for one in found])
    else:
        show(options, places, found, added)
    return EXIT_FAILED if len(added) < len(wanted) else 0


def was_added(one: Candidate) -> bool:
    """Add a site; why it cannot be added is told, and keeps none of the others."""
    try:
        add(one)
    except LinodError as error:
        say_error(error)
        return False
    return True


def add(one: Candidate) -> None:
    from . import adding

    site = HostSite(name=one.name)
    given = adding.Particulars(user=None if one.user == units.setup_of(site).user else one.user)
    adding.require_free(site, one.directory)
    adding.require_accounts(given)
    adding.make(site, one.directory, dict(adding.files_for(site, given)))


def show(options: Options, places: Sequence[Path], found: Sequence[Candidate], added: Sequence[Candidate]) -> None:
    screen = options.screen
    if not found:
        screen.line(f"No directory with a manage.py that is no site yet in {', '.join(map(str, places))}.")
        return
    screen.table(("SITE", "DIRECTORY", "USER", "USES LINOD"), [one.cells() for one in found])
    screen.line()
    wanted = [one for one in found if one.uses_linod]
    if added:
        screen.line(f"{count(len(added), 'site')} added. Start them, now and at each boot:")
        screen.line(f"  systemctl enable --now {' '.join(f'linod@{one.name}' for one in added)}")
    elif wanted:
        screen.line(f"Nothing was changed. Add {'it' if len(wanted) == 1 else 'those that use linod'}:")
        screen.line(f"  linodctl add --scan{''.join(f' {shlex.quote(word)}' for word in options.words)} --apply")
    if left := [one for one in found if not one.uses_linod]:
        several = "one of the others" if wanted else "one of them"
        screen.line(f"Add {'it' if len(left) == 1 else several} all the same:")
        screen.line(f"  linodctl add {left[0].name} {shlex.quote(str(left[0].directory))}")


# What there is


def candidates(places: Sequence[Path], user: str | None = None) -> list[Candidate]:
    """Directories with a manage.py in these places that are no sites yet, with names that are free."""
    taken, found = set(sites.names()), []
    for directory in directories(places):
        name = propose_name(directory, taken)
        taken.add(name)
        found.append(Candidate(name=name, directory=directory, user=user or propose_user(directory)))
    return found


def directories(places: Sequence[Path]) -> Iterator[Path]:
    seen: set[str] = set()
    for place in places:
        for directory in [place] if is_project(place) else subdirectories(place):
            real = os.path.realpath(directory)
            if is_project(directory) and real not in seen and sites.linked_name(directory) is None:
                seen.add(real)
                yield directory


def is_project(directory: Path) -> bool:
    return os.path.isfile(directory / "manage.py")


def subdirectories(place: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(place) if entry.is_dir())
    except FileNotFoundError:
        if place in PLACES:
            return []
        raise UsageError(f"There is no directory {place}.", "Give one that holds sites.") from None
    except OSError as error:
        raise LinodError(f"{place} cannot be read: {error.strerror}.") from None


def propose_name(directory: Path, taken: set[str]) -> str:
    """What to call a site: as its directory, where that can be a name and is free."""
    base = usable(directory.name) or "site"
    longer = usable(f"{directory.parent.name}-{base}")
    numbered = (f"{base}-{number}" for number in range(2, len(taken) + 3))
    return next(name for name in (base, longer, *numbered) if name and name not in taken)


def usable(text: str) -> str:
    """The same without what no name of a site has."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in text)
    return kept.lstrip("_.-")[:80]


def propose_user(directory: Path) -> str:
    """Who shall run its tasks: whom the directory belongs to, unless that is root."""
    try:
        owner = directory.owner()
    except (KeyError, OSError):
        return units.DEFAULT_USER
    return units.DEFAULT_USER if owner == "root" else owner


def examined(one: Candidate) -> Candidate:
    """The same with what the site tells of itself, when its user loads it."""
    from dataclasses import replace

    from ..launch import Place
    from .accounts import environment_of, find_account, require_rights
    from .checking import load

    site, directory = HostSite(name=one.name), str(one.directory)
    try:
        account = find_account(one.user)
        require_rights(account)
        place = Place(directory=directory, python=sites.find_python(directory), manage=f"{directory}/manage.py")
        environment = environment_of(site, units.setup_of(site), account)
        told = load(place, account, environment)
    except LinodError as error:
        return replace(one, problem=str(error))
    return replace(one, uses_linod=told["uses_linod"], tasks=len(told["tasks"]))
