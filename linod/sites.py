"""The sites of this host, as its administrator lays them out.

    /etc/linod/sites/SITE   a link to the directory of the site, the one with its manage.py
    /etc/linod/SITE.toml    what the administrator overrides, where there is such a file
    /etc/linod/SITE.env     environment variables for its processes, where there is such a file
    /var/lib/linod/SITE     its history and its lock
    /run/linod/SITE         its control socket

Everybody finds them by these rules: the units, the daemon, and every face.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import EXIT_USAGE, ConfigurationError

ETC = Path("/etc/linod")
SITES = ETC / "sites"
STATES = Path("/var/lib/linod")
RUNTIMES = Path("/run/linod")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
ENVIRONMENTS = ("env", ".venv", "venv")  # where a site keeps its virtual environment
SYSTEM_PYTHON = "/usr/bin/python3"


class UnknownSite(ConfigurationError):
    """No site of that name has been added."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True, kw_only=True)
class HostSite:
    """The places of one site of this host; none of them need exist."""

    name: str

    @property
    def link(self) -> Path:
        return SITES / self.name

    @property
    def directory(self) -> Path:
        """Where the link leads, though perhaps nowhere. Kept as it is written: a link below it stays one."""
        return Path(os.path.normpath(SITES / os.readlink(self.link)))

    @property
    def overrides(self) -> Path:
        return ETC / f"{self.name}.toml"

    @property
    def environment(self) -> Path:
        return ETC / f"{self.name}.env"

    @property
    def state(self) -> Path:
        return STATES / self.name

    @property
    def runtime(self) -> Path:
        return RUNTIMES / self.name

    @property
    def unit(self) -> str:
        return f"linod@{self.name}.service"


def check_name(name: str) -> None:
    """Raises ConfigurationError for what cannot be the name of a site."""
    if len(name) > 100 or not NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no name for a site.",
            "Use letters of A to Z, digits, dashes, dots and underscores, and begin with a letter or digit.",
        )


def names() -> list[str]:
    """All sites that were added to this host, in alphabetical order."""
    try:
        return sorted(name for name in os.listdir(SITES) if NAME.fullmatch(name) and (SITES / name).is_symlink())
    except OSError:
        return []


def find(name: str) -> HostSite:
    """A site by its name; raises ConfigurationError where no such site was added."""
    check_name(name)
    site = HostSite(name=name)
    if not site.link.is_symlink():
        import difflib  # only where it is needed: the daemon stays small

        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Add it: linodctl add {name} DIRECTORY"
        raise UnknownSite(f"There is no site {name!r} on this host.", hint)
    return site


def linked_name(directory: Path) -> str | None:
    """The name under which a directory is a site of this host; None where it is not."""
    return next((name for name in names() if is_same_file(SITES / name, directory)), None)


def find_python(directory: str) -> str:
    """The interpreter of a site: that of its own virtual environment, else the system's.

    Its path is not resolved, for that would leave the virtual environment.
    """
    for environment in ENVIRONMENTS:
        place = os.path.join(directory, environment)
        python = os.path.join(place, "bin", "python")
        # A link that leads nowhere is an environment that is missing, not one that was never wanted.
        if os.path.lexists(python) or (os.path.islink(place) and not os.path.exists(place)):
            return python
    return SYSTEM_PYTHON


def is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
