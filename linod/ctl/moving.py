"""The plan of a move from supervisor: which program becomes which site, run by whom, and what stands in the way.

Nothing is changed here; `steps` does what is planned.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import sites
from ..errors import LinodError
from ..sites import HostSite
from ..words import count
from . import leftovers, scanning, units
from .accounts import Account, find_account
from .adding import Particulars
from .aside import aside_of, original_of, require_keepable, require_unread
from .owned import Owned, owned_by_root
from .screen import GREEN, RED, YELLOW, Screen, Styled
from .supervisor import ASIDE, ROOT, Configuration, Job, Trouble, read_directory
from .supervisorctl import Supervisorctl, is_wanted

SHOWN = 3  # names of files, as examples for all of them
# Of a script's environment: what the unit sets itself, or what is only for a shell.
NOT_TAKEN = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE")


@dataclass(frozen=True, kw_only=True)
class Move:
    """One program that becomes a site."""

    job: Job
    site: HostSite
    account: Account | None
    given: Particulars
    is_site: bool  # the directory is one already
    wanted: bool  # it runs, or would if it could
    states: tuple[str, ...] = ()  # of its processes, as supervisor knows them
    left: tuple[int, ...] = ()  # processes of earlier starts that supervisor knows nothing of
    owned: tuple[Owned, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.job.program.name

    def as_dict(self) -> dict[str, Any]:
        program = self.job.program
        return {
            "program": program.name,
            "file": str(program.path),
            "line": program.line,
            "site": self.site.name,
            "directory": str(self.job.directory),
            "user": self.account and self.account.name,
            "python": self.given.python,
            "settings": self.given.settings,
            "variables": sorted(self.given.variables),
            "is_site": self.is_site,
            "ran_as_root": program.as_root,
            "ignored_username": program.username or None,
            "state": list(self.states),
            "left_processes": list(self.left),
            "owned_by_root": [str(one.path) for one in self.owned],
            "not_understood": list(self.job.start.strange),
            "problems": list(self.problems),
            "steps": list(self.steps()),
        }

    def steps(self, *, chown: bool = False) -> Iterator[str]:
        """What will be done, in its order."""
        program, site = self.job.program, self.site
        user = self.account.name if self.account else "?"
        if not self.is_site:
            yield f"add the site {site.name}, run by {user}"
        if chown and self.owned:
            yield f"give {user} what root owns in it"
        yield "check that it would start; if not, nothing is stopped"
        if self.states:
            yield f"stop {program.name} in supervisor, and wait until no process of it is left"
        if self.left:
            yield f"end {', '.join(f'process {pid}' for pid in self.left)}, which supervisor knows nothing of"
        yield f"put it aside in {aside_of(program.path)}, and let supervisor forget it"
        if self.wanted:
            yield f"enable and start linod@{site.name}"
        else:
            yield f"leave linod@{site.name} stopped, as {program.name} is"

    def remarks(self) -> Iterator[str]:
        """What the administrator should know."""
        program = self.job.program
        user = self.account.name if self.account else "?"
        if program.as_root:
            yield f"It runs as root. From now on it is {user}."
            if program.username:
                yield (
                    f"supervisor ignores username = {program.username} (line {program.username_line}); it reads user."
                )
        if self.owned:
            yield f"{owned_in_words(self.owned, user)}: {examples(self.owned)}. With --chown it gets them."
            if any(one.shared for one in self.owned):
                yield "Those that have other names elsewhere are left as they are."
        for link in links_out(self.job.directory) if program.as_root else []:
            yield f"{link.name} leads to {os.path.realpath(link)}, which was not looked at."
        for name in self.given.variables:
            yield f"Its variable {name} goes into {self.site.environment}."
        for words in self.job.start.strange:
            yield f"What this command of its script is for is not known here, and it will not be run: {words}"


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A program that was moved before, and can be moved back."""

    job: Job
    site: HostSite | None  # None: its directory is no site any more

    @property
    def name(self) -> str:
        return self.job.program.name

    @property
    def path(self) -> Path:
        """The file that it came from."""
        return original_of(self.job.program.path)


@dataclass(kw_only=True)
class Plan:
    """All that can be moved, and all that was."""

    moves: list[Move] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)


def make_plan(directory: Path, supervisor: Supervisorctl, user: str | None = None) -> Plan:
    """Look at supervisor's files, at the sites, and at what runs."""
    current, aside = read_directory(directory), read_directory(directory, ASIDE)
    names = {job.program.name for job in current.jobs}
    states = supervisor.overview() if current.jobs else {}
    taken, moves = set(sites.names()), []
    for job in current.jobs:
        known = site_in(job.directory)
        site = known or HostSite(name=scanning.propose_name(job.directory, taken))
        taken.add(site.name)
        moves.append(
            plan_move(
                job,
                site,
                is_site=known is not None,
                user=user,
                states=states.get(job.program.name, []),
                problems=list(obstacles_to(job, current, supervisor)),
            )
        )
    moved = [Moved(job=job, site=site_in(job.directory)) for job in aside.jobs if job.program.name not in names]
    return Plan(moves=moves, moved=moved, troubles=[*current.troubles, *aside.troubles])


def site_in(directory: Path) -> HostSite | None:
    name = sites.linked_name(directory)
    return HostSite(name=name) if name else None


def plan_move(
    job: Job, site: HostSite, *, is_site: bool, user: str | None, states: list[str], problems: list[str]
) -> Move:
    default = units.setup_of(site).user
    account, owned = None, list[Owned]()
    try:
        account = find_account(default if is_site else user or user_of(job))
        if account.uid == 0:
            problems = [*problems, "The tasks of a site are not run as root. Give another --user."]
        if scanning.is_project(job.directory):  # else it may be the root of all
            owned = owned_by_root(job.directory, account)
    except LinodError as error:
        problems = [*problems, str(error)]
    return Move(
        job=job,
        site=site,
        account=account,
        given=particulars(job, account, default),
        is_site=is_site,
        wanted=is_wanted(states),
        states=tuple(states),
        left=tuple(lost_processes(job)),
        owned=tuple(owned),
        problems=tuple(problems),
    )


def obstacles_to(job: Job, configuration: Configuration, supervisor: Supervisorctl) -> Iterator[str]:
    """Why a program cannot be moved."""
    program = job.program
    if not os.path.isfile(job.directory / "manage.py"):
        yield f"There is no manage.py in {job.directory}."
    if group := configuration.groups.get(program.name):
        yield f"It belongs to the group {group}. Take it out of the list of programs in [group:{group}] first."
    same = [one.program for one in configuration.jobs if one.directory == job.directory and one is not job]
    for other in same:
        yield f"{other.name} runs the same site ({other.path}, line {other.line}). Remove one of them first."
    try:
        require_unread(program.path, supervisor.configuration)
        require_keepable(program.path)
    except LinodError as error:
        yield str(error)


def user_of(job: Job) -> str:
    """Who shall run it: whom the job names, even with the wrong key; else whom the directory belongs to."""
    program = job.program
    named = next((name for name in (program.user, program.username) if name not in ("", *ROOT)), "")
    return named or scanning.propose_user(job.directory)


def particulars(job: Job, account: Account | None, default: str) -> Particulars:
    """What must be written down for the site to run as the job did."""
    start = job.start
    variables = {**start.exported, **job.program.environment}
    return Particulars(
        user=account.name if account and account.name != default else None,
        python=python_of(job),
        settings=variables.get("DJANGO_SETTINGS_MODULE"),
        variables={name: value for name, value in sorted(variables.items()) if name not in NOT_TAKEN},
    )


def python_of(job: Job) -> str | None:
    """The interpreter of the job; None where it is the one that would be found without being named."""
    start = job.start
    python = start.python or (f"{start.environment}/bin/python" if start.environment else None)
    found = sites.find_python(start.directory)
    if python is None or not os.path.lexists(python):
        return None
    same = os.path.realpath(os.path.dirname(python)) == os.path.realpath(os.path.dirname(found))
    return None if same else python


def lost_processes(job: Job) -> list[int]:
    """Processes of earlier starts: those that no supervisord is above."""
    return [pid for pid in leftovers.find(job.directory) if not below_supervisor(pid)]


def below_supervisor(pid: int) -> bool:
    """Whether a supervisord is among the ancestors of a process."""
    while pid > 1:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return False
        if any(os.path.basename(word) == b"supervisord" for word in words[:2]):
            return True
        pid = int(fields[1])
    return False


def links_out(directory: Path) -> list[Path]:
    """Links to directories elsewhere, where root may own something as well."""
    try:
        entries = sorted(Path(entry.path) for entry in os.scandir(directory) if entry.is_symlink() and entry.is_dir())
    except OSError:
        return []
    real = Path(os.path.realpath(directory))
    elsewhere = [path for path in entries if real not in Path(os.path.realpath(path)).parents]
    return [path for path in elsewhere if not os.path.exists(path / "pyvenv.cfg")]


# In words


def owned_in_words(owned: Sequence[Owned], user: str) -> str:
    belong, them = ("belongs", "it") if len(owned) == 1 else ("belong", "them")
    return f"{count(len(owned), 'file')} in it {belong} to root, and {user} cannot write {them}"


def examples(owned: Sequence[Owned]) -> str:
    names = [str(one.path) for one in owned[:SHOWN]]
    more = len(owned) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def show_plan(screen: Screen, plan: Plan, moved_states: Mapping[str, str]) -> None:
    """The plan for people."""
    for trouble in plan.troubles:
        screen.line(Styled("not understood: ", YELLOW), str(trouble))
    for moved in plan.moved:
        state = moved_states.get(moved.name, "")
        screen.line(f"{moved.name} was moved: ", Styled(state, GREEN if state.endswith("active.") else YELLOW))
    for move in plan.moves:
        program = move.job.program
        screen.line(f"{program.name} ({program.path}, line {program.line}) runs the tasks of {move.job.directory}.")
        for remark in move.remarks():
            screen.line(Styled("  ", YELLOW), remark)
        for problem in move.problems:
            screen.line(Styled("  It cannot be moved: ", RED), problem)
        if not move.problems:
            for number, step in enumerate(move.steps(), start=1):
                screen.line(f"  {number}. {step}")
