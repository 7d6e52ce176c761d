"""The control socket: how a command that is typed beside the daemon reaches it.

Only root and the user of the daemon are heard. Who sends garbage is hung up on.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from selectors import EVENT_READ, BaseSelector
from typing import Protocol

from ..errors import WireError
from ..state import give_to_owner
from ..wire import Begin, Ended, Progress, Refused, Visit, receive, send
from .agenda import LiveRun

FILE = "control"
MOST_GUESTS = 16
GONE = "the command that ran it and the daemon lost sight of each other"


class Listener(Protocol):
    """Who decides what a guest may do."""

    def guest_asks(self, guest: Guest, visit: Visit) -> None: ...
    def run_ended(self, live: LiveRun, ended: Ended) -> None: ...
    def run_progressed(self, live: LiveRun, progress: Progress) -> None: ...


@dataclass(eq=False, kw_only=True)
class Guest:
    """A process that runs a task itself."""

    channel: socket.socket
    pid: int = 0
    live: LiveRun | None = None

    def begin(self, live: LiveRun) -> bool:
        """Let it begin; False if it is gone."""
        return self._send(Begin(run=live.run.id, task=live.task.id))

    def refuse(self, reason: str) -> None:
        self.live = None
        self._send(Refused(reason=reason))

    def _send(self, message: Begin | Refused) -> bool:
        try:
            send(self.channel, message)
        except OSError:
            return False
        return True


class Control:
    """Listens for guests."""

    def __init__(self, state: Path, selector: BaseSelector, listener: Listener) -> None:
        self._selector, self._listener = selector, listener
        self._guests: set[Guest] = set()
        self._closed = False
        self._path = state / FILE
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        with short_path(state) as path:
            with suppress(FileNotFoundError):
                os.unlink(path)
            self._socket.bind(path)
            os.chmod(path, 0o660)
        give_to_owner(self._path)
        self._socket.listen(MOST_GUESTS)
        selector.register(self._socket, EVENT_READ, self._accept)

    def close(self) -> None:
        """Hear nobody any more."""
        if self._closed:
            return
        self._closed = True
        for guest in list(self._guests):
            self._hang_up(guest)
        self._selector.unregister(self._socket)
        self._socket.close()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def _accept(self) -> None:
        with suppress(OSError):
            channel, _address = self._socket.accept()
            if len(self._guests) >= MOST_GUESTS or not may_ask(channel):
                channel.close()
                return
            channel.setblocking(False)
            guest = Guest(channel=channel)
            self._guests.add(guest)
            self._selector.register(channel, EVENT_READ, lambda: self._on_message(guest))

    def _on_message(self, guest: Guest) -> None:
        try:
            message = receive(guest.channel)
        except BlockingIOError:
            return
        except (WireError, OSError):
            message = None
        match message:
            case Visit() if guest.live is None:
                guest.pid = message.pid
                self._listener.guest_asks(guest, message)
            case Progress() if guest.live:
                self._listener.run_progressed(guest.live, message)
            case Ended() if guest.live and guest.live.began:
                live, guest.live = guest.live, None
                self._listener.run_ended(live, message)
            case _:
                self._hang_up(guest)

    def _hang_up(self, guest: Guest) -> None:
        self._guests.discard(guest)
        self._selector.unregister(guest.channel)
        guest.channel.close()
        if guest.live is not None and guest.live.began:
            live, guest.live = guest.live, None
            self._listener.run_ended(live, Ended(run=live.run.id, outcome="crashed", reason=GONE))


def may_ask(channel: socket.socket) -> bool:
    """Whether the other end belongs to root or to the daemon's own user."""
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())


@contextmanager
def short_path(state: Path) -> Iterator[str]:
    """A path to the control socket that fits into the 107 bytes of a socket's address, however deep the directory."""
    directory = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{FILE}"
    finally:
        os.close(directory)


def visit(state: Path) -> socket.socket | None:
    """A connection to the daemon of a site, None where none is running. Raises PermissionError."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with short_path(state) as path:
            channel.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        channel.close()
        return None
    return channel
