"""Where a site is and how its processes are started: what one process of linod tells the next one it executes."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from . import __version__
from .conf import Settings
from .sites import is_same_file
from .wire import VERSION

PACKAGE = Path(__file__).parent
# Of the Debian package: links to linod and to what it shares with a site, and to nothing else of the system's Python.
SITE_PATH = Path("/usr/share/linod/site-path")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a site is. Paths are absolute; the interpreter's is not resolved, for that would leave its virtualenv."""

    directory: str
    python: str
    manage: str | None = None  # its manage.py; None: it is loaded by its settings module alone
    settings: str | None = None  # DJANGO_SETTINGS_MODULE where the manage.py shall not choose it

    def command(self, *mode: str) -> list[str]:
        """The command that starts a process of the site: mode is 'forkserver' or 'worker'."""
        # -P: the folder of the program that is started must not shadow the site's modules.
        speaks = f"{VERSION} {__version__}"
        return [self.python, "-P", str(for_sites() / "site"), *mode, json.dumps(asdict(self)), speaks]


def for_sites() -> Path:
    """This package, at a place where a site without linod may use it: what lies beside it will be seen by the site."""
    private = SITE_PATH / PACKAGE.name
    return private if is_same_file(private, PACKAGE) else PACKAGE


@dataclass(frozen=True, kw_only=True)
class Launch:
    """All that a daemon must know to begin."""

    place: Place
    name: str  # of the site
    state: str  # the directory of its history and its lock
    linked: bool = False  # it is a site of this host, whose place is looked up again whenever it is loaded
    once: bool = False  # run what is due, then end
    load_timeout: float = Settings().load_timeout  # for the first load, before the site's own settings are known
    terminal: bool = False  # somebody sits before it: a hang-up drains instead of loading the site anew
    site_fd: int | None = None  # the socket to a fork server that has loaded the site already,
    site_pid: int | None = None  # and its pid

    def command(self) -> list[str]:
        """The command that starts the daemon."""
        return [sys.executable, "-P", str(PACKAGE / "daemon"), json.dumps(asdict(self))]

    @classmethod
    def from_argument(cls, argument: str) -> Launch:
        fields = json.loads(argument)
        return cls(**{**fields, "place": Place(**fields["place"])})


# What systemd says to the daemon alone: a child that used it would speak in its name.
PRIVATE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


def clean_environment() -> dict[str, str]:
    """The environment for a process of the site."""
    return {name: value for name, value in os.environ.items() if name not in PRIVATE}
