"""Start a process of the site that was executed rather than forked: load the site, then serve or work."""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from typing import NoReturn

from ..errors import LinodError
from ..launch import Place
from ..linux import die_with_parent
from ..wire import NotLoaded, send
from . import forkserver, worker
from .load import Site, load, mends_itself

CHANNEL = 3  # the first descriptor after the standard ones: the socket to the daemon


def main(mode: str, place: str) -> NoReturn:
    """Load the site and become its fork server, or a worker of its own where the site cannot be forked."""
    die_with_parent(os.getppid())
    where = Place(**json.loads(place))
    channel = socket.socket(fileno=CHANNEL)
    channel.set_inheritable(False)
    if mode == "worker":
        worker.start_loaded(channel, load_or_leave(where, channel))
    forkserver.serve(channel, load_or_leave(where, channel), where)


def load_or_leave(place: Place, channel: socket.socket) -> Site:
    """The loaded site; where it cannot be loaded, the daemon is told why."""
    try:
        return load(place)
    except BaseException as error:
        send(channel, why_not(error))
        sys.stdout.flush()
        os._exit(1)


def why_not(error: BaseException) -> NotLoaded:
    """The message for an error that kept the site from loading."""
    reason = str(error) if isinstance(error, LinodError) else f"{type(error).__name__}: {error}".strip(": ")
    if not isinstance(error, LinodError) and (where := last_place(error)):
        reason += f" ({where})"
    text = "".join(traceback.format_exception(error))
    return NotLoaded(reason=reason[:2000], permanent=not mends_itself(error), traceback=text[-20_000:])


def last_place(error: BaseException) -> str:
    """File and line where an error came up: of the text itself for a SyntaxError, else of the innermost frame."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
