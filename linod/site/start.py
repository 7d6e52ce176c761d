"""Become the daemon, in a process that has loaded the site: what was loaded becomes the fork server.

Nothing is loaded twice: this process forks, the child serves forks, and the parent executes the daemon under the same
pid, so that whoever started the command sees one program.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from ..launch import Launch, Place
from ..state import make_state
from ..wire import pair
from . import forkserver
from .load import Site, look_at


def this_place() -> Place:
    """Where the site of this process is, to load it again later."""
    program = Path(sys.argv[0]).absolute() if sys.argv and sys.argv[0] else None
    manage = program if program and program.suffix == ".py" and program.name != "__main__.py" else None
    return Place(
        directory=os.getcwd(),
        python=sys.executable,
        manage=str(manage) if manage else None,
        settings=os.environ.get("DJANGO_SETTINGS_MODULE"),
    )


def look_here() -> Site:
    """The site of this process, whose Django is set up."""
    return look_at(os.getcwd())


def become_daemon(site: Site, place: Place, *, once: bool) -> NoReturn:
    """Run the site's tasks in the place of this process."""
    state = make_state(Path(place.directory))
    ours, theirs = pair()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        ours.close()
        serve_or_leave(theirs, site, place)
    theirs.close()
    os.set_inheritable(ours.fileno(), True)
    launch = Launch(
        place=place,
        name=site.name,
        state=str(state),
        once=once,
        terminal=sys.stdin is not None and sys.stdin.isatty(),
        site_fd=ours.fileno(),
        site_pid=pid,
    )
    command = launch.command()
    os.execv(command[0], command)


def serve_or_leave(channel: socket.socket, site: Site, place: Place) -> NoReturn:
    """In the child: never return into the code of the command."""
    try:
        forkserver.serve(channel, site, place)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def run_in_child(site: Site, place: Place, *, once: bool) -> int:
    """Run the site's tasks in a child, for a caller who wants to go on afterwards. Returns its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            become_daemon(site, place, once=once)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
