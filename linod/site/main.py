"""Start a process of the site that was executed rather than forked: load the site, then serve or work."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from ..launch import Place
from ..linux import die_with_parent
from ..wire import send
from . import forkserver, lino, worker
from .load import Site, load
from .look import look, whether_it_works, whom_it_tells
from .trouble import why_not

LOOKS = {"check": whether_it_works, "alert-test": whom_it_tells}
CHANNEL = 3  # the first descriptor after the standard ones: the socket to the daemon


def main(mode: str, place: str) -> NoReturn:
    """Load the site and become its fork server, or a worker or companion of it where the site cannot be forked.

    Or only tell what there is, for `linodctl check` and `linodctl alert-test`.
    """
    die_with_parent(os.getppid())
    where = Place(**json.loads(place))
    if mode in LOOKS:
        look(where, LOOKS[mode])
    channel = socket.socket(fileno=CHANNEL)
    channel.set_inheritable(False)
    site = load_or_leave(where, channel, alone=mode == "forkserver")
    if mode == "forkserver":
        forkserver.serve(channel, site, where)
    worker.start_loaded(channel, site, where, companion="" if mode == "worker" else mode)


def load_or_leave(place: Place, channel: socket.socket, *, alone: bool) -> Site:
    """The loaded site; where it cannot be loaded, or another command runs its tasks, the daemon is told why."""
    try:
        site = load(place)
        if alone:
            lino.require_alone(Path(place.directory))
        return site
    except BaseException as error:
        send(channel, why_not(error))
        sys.stdout.flush()
        os._exit(1)
