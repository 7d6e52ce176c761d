"""Start as a service: from nothing but the name of a site to all that a daemon must know, or to what is missing.

Everything that keeps a site from being started is told in one sentence, with what to do about it. None of it would
mend itself, so each is a ConfigurationError, after which systemd doesn't try again.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .. import overrides, sites
from ..errors import ConfigurationError
from ..launch import Launch, Place
from ..sites import HostSite
from ..state import make_state, owner_name, user_name


def launch_site(name: str, *, once: bool) -> Launch:
    """How to run the tasks of a site of this host; raises ConfigurationError or HistoryError."""
    if os.geteuid() == 0:
        raise ConfigurationError(
            "The tasks of a site are not run as root.",
            "Say who shall run them: User=www-data in a drop-in of the unit.",
        )
    site = sites.find(name)
    place = find_place(site)
    return Launch(
        place=place,
        name=name,
        state=str(make_state(Path(place.directory))),
        linked=True,
        once=once,
        load_timeout=overrides.read(site.overrides).linod.get("load_timeout", Launch.load_timeout),
    )


def find_place(site: HostSite) -> Place:
    """Where a site is and with what it is run, as it is now; raises ConfigurationError."""
    directory = os.path.normpath(site.directory)
    require_directory(site, directory)
    given = overrides.read(site.overrides)
    manage = os.path.join(directory, "manage.py")
    if not os.path.isfile(manage):
        raise ConfigurationError(
            f"There is no manage.py in {directory}.",
            f"Let {site.link} lead to the directory that has it: ln -sfn DIRECTORY {site.link}",
        )
    python = os.path.join(directory, given.python) if given.python else sites.find_python(directory)
    require_program(site, python)
    return Place(directory=directory, python=python, manage=manage, settings=given.settings)


def require_directory(site: HostSite, directory: str) -> None:
    try:
        found = os.stat(directory)
    except FileNotFoundError:
        raise ConfigurationError(
            f"{site.link} leads to {directory}, and there is no such directory.",
            f"Make it, or let the link lead to the site: ln -sfn DIRECTORY {site.link}",
        ) from None
    except OSError as error:
        closed = closed_parent(Path(directory))
        raise ConfigurationError(
            f"{directory} cannot be reached by {user_name()}: {closed} belongs to {owner_name(closed)}"
            f" ({error.strerror}).",
            f"Allow it, for example with: chmod o+x {closed}",
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(
            f"{site.link} leads to {directory}, which is no directory.",
            f"Let it lead to the directory that has the manage.py: ln -sfn DIRECTORY {site.link}",
        )
    if not os.access(directory, os.R_OK | os.X_OK):
        raise ConfigurationError(
            f"{directory} belongs to {owner_name(Path(directory))} and cannot be read by {user_name()}.",
            "Allow it with chmod or chgrp, or let another user run the site: linodctl add --help tells how.",
        )


def closed_parent(path: Path) -> Path:
    """The uppermost directory on the way that this user cannot pass."""
    return next((parent for parent in reversed(path.parents) if not os.access(parent, os.X_OK)), path.parent)


def require_program(site: HostSite, python: str) -> None:
    if os.access(python, os.X_OK) and os.path.isfile(python):
        return
    if os.path.islink(python) and not os.path.exists(python):
        target = os.path.realpath(python)
        problem = f"{python} leads to {target}, which is not there, or which {user_name()} cannot reach"
    elif os.path.exists(python):
        problem = f"{python} is no program that {user_name()} can start"
    else:
        problem = f"There is no {python}"
    raise ConfigurationError(
        f"{problem}.", f"Make the site's virtual environment again, or name its Python in {site.overrides}."
    )
