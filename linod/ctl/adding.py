"""`linodctl add` and `linodctl remove`: what makes a directory a site of this host."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .. import sites
from ..errors import ConfigurationError, LinodError
from ..sites import HostSite
from ..state import user_name
from . import scanning, units
from .accounts import find_account, find_group
from .parsing import Command, Options, UsageError
from .survey import who_runs

ADMIN_UNITS = Path("/etc/systemd/system")
TIMER_STAMPS = Path("/var/lib/systemd/timers")
DROP_IN = "user.conf"
# The first line of what is written here, by which it is known again.
OURS = "# Written by linodctl add; linodctl remove takes it away.\n"


@dataclass(frozen=True, kw_only=True)
class Particulars:
    """How a site differs from others: what its files tell."""

    user: str | None = None
    group: str | None = None
    python: str | None = None
    settings: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)  # of its environment


class Add(Command):
    details = (
        "DIR is the directory with the site's manage.py. Nothing is started: when the site is added, this says what"
        " to type next. With --scan, directories are looked through for sites that could be added:"
        f" those in {' and '.join(map(str, scanning.PLACES))}, or those in each DIR. With it go --apply, --user and"
        " --dry-run."
    )
    usage = "[options] SITE DIR\n       linodctl add --scan [--apply] [--user USER] [--dry-run] [DIR ...]"
    examples = (
        "linodctl add myprj /usr/local/lino/myprj",
        "linodctl add shop /srv/shop --user shop --python /srv/shop/py312/bin/python",
        "linodctl add shop /srv/shop --settings shop.settings.production --dry-run",
        "linodctl add --scan",
        "linodctl add --scan --apply",
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", metavar="SITE DIR", nargs="*", help="its name, and where its manage.py is")
        parser.add_argument("--scan", action="store_true", help="look for sites, and show what could be added")
        parser.add_argument("--apply", action="store_true", help="with --scan: add all those that use linod")
        parser.add_argument("--user", help="who runs its tasks (www-data)")
        parser.add_argument("--group", help="with which group (that of the user)")
        parser.add_argument("--python", help="its interpreter (that of its env, .venv or venv, else the system's)")
        parser.add_argument("--settings", help="its settings module (what its manage.py says)")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")

    def run(self, options: Options) -> int:
        given = Particulars(user=options.user, group=options.group, python=options.python, settings=options.settings)
        if options.scan:
            return scanning.run(options, given)
        if len(options.words) != 2 or options.apply:
            raise UsageError("Give the name of the site and its directory.", "Or look for sites: linodctl add --scan")
        site, directory = HostSite(name=options.words[0]), Path(os.path.abspath(options.words[1]))
        require_free(site, directory)
        require_manage(directory)
        require_accounts(given)
        files = dict(files_for(site, given))
        if options.dry_run:
            return show_plan(options, site, directory, files)
        make(site, directory, files)
        if options.json:
            options.screen.json({"site": site.name, "directory": str(directory), "files": [str(p) for p in files]})
            return 0
        return say_what_next(options, site, directory)


class Remove(Command):
    details = (
        "Its directory stays as it is, and so does its history, unless --purge is given. A site that runs, or would"
        " run after the next boot, is not removed."
    )
    examples = ("linodctl remove myprj", "linodctl remove myprj --purge")

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", metavar="SITE", help="the name of a site")
        parser.add_argument("--purge", action="store_true", help="also delete its history and all its configuration")

    def run(self, options: Options) -> int:
        site = sites.find(options.name)
        require_stopped(site)
        if options.purge and site.state.is_symlink():
            raise ConfigurationError(f"{site.state} is a link.", "See where it leads, and remove it by hand.")
        with rights():
            removed = list(remove(site, purge=options.purge))
        units.systemctl("daemon-reload")
        if options.json:
            options.screen.json({"site": site.name, "removed": [str(path) for path in removed]})
            return 0
        for path in removed:
            options.screen.line(f"Removed {path}")
        for path in filter(os.path.lexists, (site.state, site.overrides, site.environment)):
            options.screen.line(f"{path} is still there; linodctl remove --purge would have removed it.")
        return 0


# Before


def require_free(site: HostSite, directory: Path) -> None:
    """Raises where the name or the directory is a site already."""
    sites.check_name(site.name)
    if os.path.lexists(site.link):
        raise UsageError(
            f"There is a site {site.name!r} already, in {site.directory}."
            if site.link.is_symlink()
            else f"{site.link} is there already, and is no link.",
            f"Choose another name, or first: linodctl remove {site.name}",
        )
    if other := sites.linked_name(directory):
        raise UsageError(
            f"{directory} is a site already, by the name of {other!r}.", f"See it with: linodctl list {other}"
        )


def require_manage(directory: Path) -> None:
    if not os.path.isdir(directory):
        raise UsageError(f"There is no directory {directory}.", "Give the one with the site's manage.py.")
    if not os.path.isfile(directory / "manage.py"):
        raise UsageError(f"There is no manage.py in {directory}.", "Give the directory that has it.")


def require_accounts(given: Particulars) -> None:
    if given.user and find_account(given.user).uid == 0:
        raise UsageError("The tasks of a site are not run as root.", "Give another --user.")
    if given.group:
        find_group(given.group)


def require_stopped(site: HostSite) -> None:
    """Raises where a site runs, or would run after the next boot."""
    names = (site.unit, units.timer_of(site))
    found = units.show(names)
    for name in names:
        unit = found.get(name)
        if unit and (unit.active or unit.enabled or unit["ActiveState"] in ("activating", "deactivating")):
            how = "active" if not unit.enabled else "enabled" if not unit.active else "active and enabled"
            raise LinodError(f"{name} is {how}.", f"First: systemctl disable --now {name.removesuffix('.service')}")
    if (pid := who_runs(site.state)[0]) is not None:
        raise LinodError(f"Process {pid} runs the tasks of {site.name}.", "Stop it first.")


# What is written


def files_for(site: HostSite, given: Particulars) -> Iterator[tuple[Path, str]]:
    """The files that tell how this site differs from others."""
    if given.python or given.settings:
        if site.overrides.exists():
            raise UsageError(
                f"{site.overrides} is there already.", "Write python and settings into it, and leave them out here."
            )
        values = {"python": given.python and os.path.abspath(given.python), "settings": given.settings}
        for name, value in values.items():
            if value and not value.isprintable():
                raise UsageError(f"--{name} {value!r} has characters that no file of linod can have.")
        # A string of JSON is one of TOML as well, as long as it escapes nothing beyond ASCII.
        lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items() if value]
        yield site.overrides, OURS + "".join(lines)
    if given.variables:
        lines = [f"{name}={quoted(value)}\n" for name, value in given.variables.items()]
        yield site.environment, OURS + "".join(lines)
    if given.user or given.group:
        lines = [f"{name}={value}\n" for name, value in (("User", given.user), ("Group", given.group)) if value]
        for path in drop_ins(site):
            yield path, f"{OURS}[Service]\n{''.join(lines)}"


def quoted(value: str) -> str:
    """A value as an environment file of systemd has it."""
    return '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'


def drop_ins(site: HostSite) -> list[Path]:
    """For each unit that works with what belongs to the site's user."""
    names = ("linod", "linod-run", "linod-alert")
    return [ADMIN_UNITS / f"{name}@{site.name}.service.d" / DROP_IN for name in names]


def show_plan(options: Options, site: HostSite, directory: Path, files: dict[Path, str]) -> int:
    if options.json:
        plan = {"link": str(site.link), "directory": str(directory), "files": {str(p): t for p, t in files.items()}}
        options.screen.json(plan)
        return 0
    options.screen.line(f"This would make the link {site.link}, which leads to {directory}.")
    for path, text in files.items():
        options.screen.line(f"It would write {path}:")
        options.screen.block(text.rstrip("\n"))
    return 0


def make(site: HostSite, directory: Path, files: dict[Path, str]) -> None:
    """Write all of it, the link last; where something fails, nothing of it stays."""
    undo: list[Callable[[], None]] = []
    try:
        with rights():
            for path, text in files.items():
                write(path, text, undo)
            make_directory(site.link.parent, undo)
            site.link.symlink_to(directory)
            undo.append(site.link.unlink)
        units.systemctl("daemon-reload")
    except BaseException:
        for step in reversed(undo):
            with suppress(OSError):  # the reason why it failed matters more
                step()
        raise


def unmake(site: HostSite, files: Iterable[Path]) -> None:
    """Take away what `make` has made. Raises LinodError."""
    with rights():
        for path in (site.link, *files):
            path.unlink(missing_ok=True)
            with suppress(OSError):
                if path.parent.name.endswith(".d"):
                    path.parent.rmdir()
    units.systemctl("daemon-reload")


def write(path: Path, text: str, undo: list[Callable[[], None]]) -> None:
    make_directory(path.parent, undo)
    with path.open("x") as file:
        undo.append(path.unlink)
        os.fchmod(file.fileno(), 0o600 if path.suffix == ".env" else 0o644)  # variables may be passwords
        file.write(text)


def make_directory(path: Path, undo: list[Callable[[], None]]) -> None:
    if not path.is_dir():
        make_directory(path.parent, undo)
        path.mkdir()
        path.chmod(0o755)  # whatever the umask of root is
        undo.append(path.rmdir)


@contextmanager
def rights() -> Iterator[None]:
    """An OSError becomes a sentence."""
    try:
        yield
    except FileExistsError as error:
        raise LinodError(f"{error.filename} is there already.", "Remove it, or write into it by hand.") from None
    except OSError as error:
        hint = "Try again as root." if isinstance(error, PermissionError) and os.geteuid() else ""
        raise LinodError(f"{error.filename} cannot be changed by {user_name()}: {error.strerror}.", hint) from None


def say_what_next(options: Options, site: HostSite, directory: Path) -> int:
    from .checking import examine

    screen = options.screen
    screen.line(f"{directory} is now the site {site.name} of this host.")
    found = examine(site)
    for line in found.loaded_in_words():
        screen.line(line)
    if found.obstacles:
        screen.line("It would not start yet:")
        for problem in found.obstacles:
            screen.line(f"  - {problem}")
        screen.line(f"When that is done: linodctl check {site.name}")
    elif found.uses_linod:
        screen.line(f"Start it, now and at each boot: systemctl enable --now linod@{site.name}")
    return 0


# What is removed


def remove(site: HostSite, *, purge: bool) -> Iterator[Path]:
    """Remove what makes it a site; returns each path that is gone."""
    site.link.unlink()
    yield site.link
    for path in drop_ins(site):
        if is_ours(path):
            path.unlink()
            yield path
            with suppress(OSError):
                path.parent.rmdir()  # unless the administrator keeps other drop-ins there
    if is_unchanged(site.overrides) or (purge and os.path.lexists(site.overrides)):
        site.overrides.unlink()
        yield site.overrides
    if is_ours(site.environment) or (purge and os.path.lexists(site.environment)):
        site.environment.unlink()
        yield site.environment
    if purge:
        yield from remove_all(site)


def remove_all(site: HostSite) -> Iterator[Path]:
    stamp = TIMER_STAMPS / f"stamp-{units.timer_of(site)}"
    if os.path.lexists(stamp):
        stamp.unlink()
        yield stamp
    if site.state.is_dir():
        try:
            shutil.rmtree(site.state)  # which follows no links, not even those that are made meanwhile
        except RecursionError:
            raise LinodError(f"{site.state} is too deep.", f"Remove it by hand: rm -rf {site.state}") from None
        yield site.state


def is_ours(path: Path) -> bool:
    try:
        return path.read_text(errors="replace").startswith(OURS)
    except OSError:
        return False


def is_unchanged(path: Path) -> bool:
    """Whether a TOML file holds nothing but what was written here."""
    if not is_ours(path):
        return False
    lines = path.read_text(errors="replace").removeprefix(OURS).splitlines()
    return all(line.startswith(("python = ", "settings = ")) for line in lines)
