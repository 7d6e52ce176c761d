"""`linodctl check`: would a site start? Every problem in words, all at once.

What this user may see is looked at here. The rest is done by a child that belongs to the unit's user, for what root can
read says little; and the site is loaded by its own interpreter, as that user, in the environment of the unit.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .. import overrides, sites
from ..archive import put_aside
from ..errors import EXIT_CONFIGURATION, ConfigurationError, LinodError
from ..launch import Place
from ..linux import descendants
from ..sites import HostSite
from ..words import count
from . import apart, leftovers, units
from .accounts import Account, account_of, environment_of, in_child, read_environment, require_rights
from .naming import sites_or_all
from .parsing import Command, Options
from .screen import GREEN, RED, YELLOW, Screen, Styled
from .survey import who_runs

OLDEST = (3, 11)
VERSION = "import sys; print(*sys.version_info[:3])"
PATIENCE = 30.0  # seconds for an interpreter to say its version
LOADING = 180.0  # seconds for a site to load
USE = "LINOD_USE"
HOW_TO_USE = "Say USE_LINOD = True in its settings (in Lino: use_linod = True), or use_linod = true in {toml}."
HOW_TO_USE_AGAIN = "LINOD_USE in {place} says so and overrules its settings. Take it out, or write LINOD_USE=yes."


@dataclass(kw_only=True)
class Findings:
    """What came out."""

    site: HostSite
    problems: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # who runs its tasks, and must be stopped first
    notes: list[str] = field(default_factory=list)  # worth knowing, but it would start
    loaded: dict[str, Any] | None = None  # what the site told of itself
    overruled: str = ""  # where LINOD_USE decides that it does not use linod

    @property
    def obstacles(self) -> list[str]:
        """All that keeps it from being started."""
        return [*self.problems, *self.others]

    @property
    def uses_linod(self) -> bool:
        return bool(self.loaded and self.loaded["uses_linod"])

    def loaded_in_words(self) -> Iterator[str]:
        if self.loaded is None:
            return
        if not self.uses_linod:
            how = HOW_TO_USE_AGAIN if self.overruled else HOW_TO_USE
            yield f"This site does not use linod. {how.format(place=self.overruled, toml=self.site.overrides)}"
        elif not self.loaded["tasks"]:
            yield "This site has no scheduled jobs."
        else:
            yield f"It uses linod and has {count(len(self.loaded['tasks']), 'task')}."

    def as_dict(self) -> dict[str, Any]:
        return {
            "site": self.site.name,
            "would_start": not self.obstacles,
            "problems": self.obstacles,
            "notes": self.notes,
            "uses_linod": self.loaded and self.loaded["uses_linod"],
            "tasks": self.loaded and self.loaded["tasks"],
        }


class Check(Command):
    details = "Without SITE, all sites are checked. Exit code 0: it would start; 78: it would not."
    examples = ("linodctl check myprj", "linodctl check")

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("sites", metavar="SITE", nargs="*", help="names of sites")

    def run(self, options: Options) -> int:
        found = [examine(site) for site in sites_or_all(options.sites)]
        if options.json:
            options.screen.json([one.as_dict() for one in found])
        else:
            for one in found:
                show(options.screen, one)
        return EXIT_CONFIGURATION if any(one.obstacles for one in found) else 0


def show(screen: Screen, found: Findings) -> None:
    verdict = Styled("would not start.", RED) if found.obstacles else Styled("would start.", GREEN)
    screen.line(f"{found.site.name} ", verdict)
    for problem in found.obstacles:
        screen.line(Styled("  - ", RED), problem)
    for note in [*found.notes, *found.loaded_in_words()]:
        screen.line(Styled("  ", YELLOW), note)


def examine(site: HostSite) -> Findings:
    """Look at all that a start needs."""
    found = Findings(site=site)
    setup = units.setup_of(site)
    if not setup.installed:
        found.problems.append("linod@.service is not installed. Install the package linod.")
    found.others += other_runners(site)
    try:
        account = account_of(setup)
    except ConfigurationError as error:
        found.problems.append(str(error))
        return found
    found.problems += state_problems(site, account)
    found.notes += histories_put_aside(site)
    try:
        require_rights(account)
        environment = environment_of(site, setup, account)
        seen = in_child(account, lambda: problems_for_user(site, account, environment))
        found.problems += seen
        if not seen:
            found.loaded = load(place_of(site), account, environment)
            found.overruled = where_overruled(site, environment)
            found.notes += found.loaded["complaints"]
    except LinodError as error:
        found.problems.append(str(error))
    return found


# As whoever typed it


def state_problems(site: HostSite, account: Account) -> Iterator[str]:
    """What the daemon could not write. systemd gives the directory to its user, but not single files in it."""
    try:
        owner = site.state.stat().st_uid
        entries = sorted(site.state.iterdir())
    except OSError:
        return
    if owner != account.uid:
        if not units.booted():
            yield f"{site.state} does not belong to {account.name}. Give it: chown -R {account.name} {site.state}"
        return
    for path in entries:
        try:
            if path.lstat().st_uid == account.uid:
                continue
        except OSError:
            continue  # it is gone: history has files that come and go
        # Who owns the directory names what is in it, and may lay a link there before this is typed.
        give = f"chown --no-dereference {account.name} {shlex.quote(str(path))}"
        yield f"{path} does not belong to {account.name}. Give it: {give}"


def histories_put_aside(site: HostSite) -> Iterator[str]:
    """What its daemon has left for somebody to look at."""
    for path in put_aside(site.state):
        yield f"A history that was harmed is kept as {path}. Once you have looked at it, remove it."


def other_runners(site: HostSite) -> Iterator[str]:
    """Who runs its tasks without its lock: Lino's own command, which takes none, or a daemon from before it was added.

    Beside one of these each task would run twice.
    """
    holder = who_runs(site.state)[0]
    ours = {holder, *descendants(holder)} if holder else set()
    if pids := [pid for pid in leftovers.find(site.link) if pid not in ours]:
        which = f"Process {pids[0]} runs" if len(pids) == 1 else f"Processes {', '.join(map(str, pids))} run"
        yield f"{which} manage.py linod there already. Stop it, else tasks run twice or not at all."


def where_overruled(site: HostSite, environment: Mapping[str, str]) -> str:
    """Where LINOD_USE is set for the unit; empty where it is not."""
    if not environment.get(USE, "").strip():
        return ""
    return str(site.environment) if USE in dict(read_environment(site.environment)) else f"the files of {site.unit}"


# As the user of the unit


def problems_for_user(site: HostSite, account: Account, environment: Mapping[str, str]) -> list[str]:
    """What keeps the user from reaching the site. Runs in a child that is that user."""
    from ..daemon import service

    directory = os.path.normpath(site.directory)
    if problem := complaint(lambda: service.require_directory(site, directory)):
        return [problem, *toml_problems(site)]
    problems = toml_problems(site)
    if not os.path.isfile(os.path.join(directory, "manage.py")):
        problems.append(f"There is no manage.py in {directory}. Let {site.link} lead to the directory that has it.")
    python = python_of(site, directory)
    problem = complaint(lambda: service.require_program(site, python)) or version_problem(python, account, environment)
    return [*problems, *filter(None, [problem])]


def complaint(require: Callable[[], None]) -> str:
    try:
        require()
    except LinodError as error:
        return str(error)
    return ""


def toml_problems(site: HostSite) -> list[str]:
    return [str(problem) for problem in overrides.problems(site.overrides)]


def python_of(site: HostSite, directory: str) -> str:
    try:
        given = overrides.read(site.overrides).interpreter(directory)
    except LinodError:
        given = None  # it is told what is wrong with that file
    return given or sites.find_python(directory)


def version_problem(python: str, account: Account, environment: Mapping[str, str]) -> str:
    """Why an interpreter is of no use."""
    try:
        answer = apart.listen([python, "-c", VERSION], account, environment, "/", PATIENCE)
        version = tuple(map(int, answer.text.split()))
    except LinodError as error:
        return str(error)
    except ValueError:
        version = ()
    if answer.exit_code or not version:
        return f"{python} does not work: {answer.last_words or f'exit code {answer.exit_code}'}."
    if version < OLDEST:
        return f"{python} is Python {dotted(version)}; linod needs {dotted(OLDEST)} or newer."
    return ""


def dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def place_of(site: HostSite) -> Place:
    from ..daemon import service

    return service.find_place(site)


def way_into(site: HostSite) -> tuple[Place, Account, dict[str, str]]:
    """Where a program of a site is run, as whom, and with which variables. Raises LinodError where it cannot be."""
    setup = units.setup_of(site)
    account = account_of(setup)
    require_rights(account)
    environment = environment_of(site, setup, account)
    place = Place(**in_child(account, lambda: asdict(place_of(site))))  # by the eyes of the account
    return place, account, environment


def load(place: Place, account: Account, environment: Mapping[str, str]) -> dict[str, Any]:
    """Let a site's own interpreter load it, as its user, and return what it tells of itself. Raises LinodError."""
    return ask_site("check", place, account, environment, is_description)


def ask_site(
    mode: str, place: Place, account: Account, environment: Mapping[str, str], is_good: Callable[[Any], bool]
) -> dict[str, Any]:
    """Let a site's own interpreter load it, as its user, and do something; what it tells, if that is good."""
    answer = apart.listen(place.command(mode), account, environment, place.directory, LOADING)
    told = told_in(answer, is_good)
    if told is None:
        raise LinodError(f"{place.python} died while loading the site: {answer.last_words or 'it said nothing.'}")
    if problem := told.get("problem"):
        raise LinodError(f"The site cannot be loaded: {problem}")
    return told


def told_in(answer: apart.Answer, is_good: Callable[[Any], bool]) -> dict[str, Any] | None:
    """What `site.look` tells; None where it is not that. The site's code may have written there as well."""
    try:
        told = json.loads(answer.text)
    except (ValueError, RecursionError):
        return None
    match told:
        case {"problem": str()}:
            return {"problem": told["problem"]}
    return told if is_good(told) else None


def is_description(told: Any) -> bool:
    match told:
        case {"uses_linod": bool(), "tasks": [*tasks], "complaints": [*complaints]}:
            return all(isinstance(text, str) for text in (*tasks, *complaints))
    return False
