"""What Lino has of its own, for the rest of the site's side. On other sites it says nothing, and imports nothing.

A Lino site up to 2022 has tasks on the default scheduler of the `schedule` package, where `use_linod` is set before its
models load. A newer one has them as rows of a table (rows.py), which say when they are due (recurrence.py), are run
(running.py), and can be changed by its users at any time, which a companion looks after (watcher.py). Another companion
serves its channels (channels.py).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError
from ...linux import processes
from ...originals import runs_tasks_of

if TYPE_CHECKING:
    from ...task import Declaration
    from ..load import Site

PLUGIN = "lino.modlib.linod"
OURS = "linod"  # the app that has our command
WATCHER, CHANNELS = "watcher", "channels"


def lino_site() -> Any:
    """The Lino site of this process; None where it is another."""
    from django.conf import settings

    return getattr(settings, "SITE", None)


def has_rows() -> bool:
    """Whether its tasks are rows."""
    from django.apps import apps

    return apps.is_installed(PLUGIN)


def uses_linod() -> bool:
    """What the site says where its administrator says nothing."""
    if has_rows():
        return True
    with suppress(Exception):  # newer ones raise an error of their own when they are asked
        return bool(getattr(lino_site(), "use_linod", False))
    return False


def tell(use: bool) -> None:
    """Overrule the `use_linod` of an old site before its models load: it registers its tasks only then."""
    with suppress(Exception):  # newer ones have no such word
        lino_site().use_linod = use


def require_alone(directory: Path) -> None:
    """Raises ConfigurationError while Lino's own command, which takes no lock, runs the tasks of the site."""
    from django.core.management import get_commands

    if lino_site() is None or get_commands().get("linod") in (None, OURS):
        return
    if pids := [pid for pid in processes() if runs_tasks_of(pid, directory)]:
        raise ConfigurationError(
            f"Process {pids[0]} runs the tasks of this site by Lino's own command.",
            "Stop it first, or each task would run twice.",
        )


def declarations(zone: str) -> Sequence[Declaration]:
    """The tasks that are rows."""
    if not has_rows():
        return ()
    from . import rows

    return rows.declarations(zone)


def find(task: str, zone: str) -> Declaration | None:
    """A task that is a row, by its id."""
    if not has_rows():
        return None
    from . import rows

    return rows.find(task, zone)


def companions() -> tuple[str, ...]:
    """The processes that the site needs beside its workers."""
    if not has_rows():
        return ()
    return (WATCHER, CHANNELS) if lino_site().plugins.linod.use_channels else (WATCHER,)


def accompany(companion: str, channel: socket.socket, site: Site, directory: Path) -> None:
    """Be such a process, until the daemon hangs up."""
    if companion == CHANNELS:
        from .channels import deliver

        deliver(channel, site)
    else:
        from .watcher import Watcher

        Watcher(channel, site, directory).work()
