"""The fork server: it has loaded the site, and from then on only forks workers.

It runs no task, keeps no connection, and ends with the daemon. A worker is forked twice over, so that it becomes the
daemon's own child: the daemon sees how it ends, and loses none when the fork server dies.
"""

from __future__ import annotations

import gc
import os
import socket
from typing import NoReturn

from ..launch import PRIVATE, Place
from ..linux import die_with_parent, name_process
from ..wire import VERSION, Fork, Forked, Loaded, NotForked, Ping, Pong, Tasks, batches, receive_with_fds, send
from . import output, worker
from .load import Site
from .mail import channels_of, mail_settings

MOST_COMPLAINTS = 50  # more would not fit into one, and nobody reads so many


def serve(channel: socket.socket, site: Site, place: Place) -> NoReturn:
    """Announce the site to the daemon, then fork a worker whenever it asks for one."""
    daemon = os.getppid()
    die_with_parent(daemon)
    forget_terminal()
    calm_down(site)
    announce(channel, site)
    while True:
        message, fds = receive_with_fds(channel)
        match message:
            case Fork():
                fork(channel, message, fds, site, place, daemon)
            case Ping():
                send(channel, Pong())
            case _:  # the daemon has closed its end
                os._exit(0)


def announce(channel: socket.socket, site: Site) -> None:
    """Tell the daemon the declared tasks."""
    from django.conf import settings

    for batch in batches([declaration.task.as_dict() for declaration in site.declarations.values()]):
        send(channel, Tasks(tasks=batch))
    send(
        channel,
        Loaded(
            version=VERSION,
            uses_linod=site.uses_linod,
            settings=site.settings.as_dict(),
            threads=list(site.threads),
            zone=site.zone,
            complaints=list(site.complaints[:MOST_COMPLAINTS]),
            mail=mail_settings(settings),
            companions=list(site.companions),
            channels=channels_of(site),
        ),
    )


def calm_down(site: Site) -> None:
    """Undo what loading may have left behind that a child must not inherit."""
    from django.db import connections

    worker.reset_signals()
    for name in PRIVATE:
        os.environ.pop(name, None)
    connections.close_all()
    name_process("linod-forkserve", f"linod@{site.name}: fork server")
    output.flush()  # else each child would write it again
    # What is collected now is not copied by the first collection of each worker.
    gc.collect()
    gc.freeze()


def forget_terminal() -> None:
    """Leave the terminal's session, so that Ctrl-C reaches the daemon alone, and read nothing from it."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def fork(channel: socket.socket, wanted: Fork, fds: list[int], site: Site, place: Place, daemon: int) -> None:
    """Fork a worker whose parent will be the daemon."""
    try:
        middle = os.fork()
    except OSError as error:
        send(channel, NotForked(serial=wanted.serial, reason=str(error)))
    else:
        if middle == 0:
            fork_again(channel, wanted, fds, site, place, daemon)
        try:
            os.waitpid(middle, 0)
        except ChildProcessError:
            pass  # the site ignores SIGCHLD, so the kernel has reaped it
    for fd in fds:
        os.close(fd)


def fork_again(channel: socket.socket, wanted: Fork, fds: list[int], site: Site, place: Place, daemon: int) -> NoReturn:
    """In the process between fork server and worker: fork the worker and end, so that the daemon adopts it."""
    try:
        pid = os.fork()
        if pid == 0:
            channel.close()
            worker.start_forked(fds, site, place, daemon, wanted.companion)
        send(channel, Forked(serial=wanted.serial, pid=pid))
    except OSError as error:
        send(channel, NotForked(serial=wanted.serial, reason=str(error)))
    finally:
        os._exit(0)
