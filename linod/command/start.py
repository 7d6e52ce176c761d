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

from django.db import connections

from ..launch import Launch, Place
from ..site import forkserver, output
from ..site.load import Site, look_at
from ..state import make_state
from ..wire import pair


def this_place(*, from_command_line: bool) -> Place:
    """Where the site of this process is, to load it again later."""
    manage = find_manage(Path(sys.argv[0] if from_command_line else "manage.py").absolute())
    return Place(
        directory=str(manage.parent) if manage else os.getcwd(),
        python=sys.executable,
        manage=str(manage) if manage else None,
        settings=os.environ.get("DJANGO_SETTINGS_MODULE"),
    )


def find_manage(program: Path) -> Path | None:
    """The site's manage.py, unless the program is Django's own: `django-admin` or `python -m django`."""
    return program if program.suffix == ".py" and program.name != "__main__.py" and program.is_file() else None


def look_here() -> Site:
    """The site of this process, whose Django is set up."""
    return look_at(os.getcwd())


def become_daemon(site: Site, place: Place, *, once: bool) -> NoReturn:
    """Run the site's tasks in the place of this process."""
    state = make_state(Path(place.directory))
    # Some drivers' sockets would survive the execution below: a connection that nobody closes.
    connections.close_all()
    ours, theirs = pair()
    output.flush()
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
