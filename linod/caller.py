"""How a command reaches the daemon of a site: over its control socket, with the standard library alone.

    ask(directory, Pause(task="checkdata", reason="the disk is full", by="root"))  -> Done or Refused
    for message in follow(directory, RunNow(task="checkdata", by="root")): ...

A place is the directory of a site, or the path of its control socket.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import EXIT_TRY_LATER, LinodError
from .state import find_control, owner_name, user_name
from .wire import LARGEST, Ended, Message, Refused, RunNow, decode, send

PATIENCE = 10.0  # seconds; the daemon answers within milliseconds, a busy host within seconds


class NotRunning(LinodError):
    """No daemon runs the tasks of the site."""

    exit_code = EXIT_TRY_LATER


class NotPermitted(LinodError):
    """The daemon listens to others."""


class HungUp(LinodError):
    """The daemon ended the conversation in the middle."""

    exit_code = EXIT_TRY_LATER


class NoAnswer(LinodError):
    """The daemon is there and says nothing."""

    exit_code = EXIT_TRY_LATER


def ask(place: Path, message: Message, patience: float | None = PATIENCE) -> Message:
    """Ask the daemon for something, and return its answer; None waits for that without end."""
    with connect(place, patience) as channel:
        say(channel, message)
        return hear(channel, patience)


def follow(place: Path, message: RunNow, patience: float = PATIENCE) -> Iterator[Message]:
    """Have a task run, and yield all that the daemon tells of it; the last one is Ended or Refused.

    The first answer must come in time. After that a run may be silent as long as it likes.
    """
    with connect(place, patience) as channel:
        say(channel, message)
        answer = hear(channel, patience)
        yield answer
        set_patience(channel, None)
        while not isinstance(answer, Ended | Refused):
            answer = hear(channel, None)
            yield answer


def connect(place: Path, patience: float | None = PATIENCE) -> socket.socket:
    """A connection to the daemon of a site."""
    channel = visit(place, patience)
    if channel is None:
        raise NotRunning("No daemon runs the tasks of this site.", "Start it, then try again.")
    return channel


def visit(place: Path, patience: float | None = PATIENCE) -> socket.socket | None:
    """The same; None where no daemon is running."""
    # Not Path.is_dir, which raises an error of its own where the directory above is closed to us.
    path = find_control(place) if os.path.isdir(place) else place
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    set_patience(channel, patience)
    try:
        with short_path(path) as short:
            channel.connect(short)
        uid = daemon_of(channel)[1]
        if os.geteuid() not in (0, uid):
            raise not_permitted(name_of(uid))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        channel.close()
        return None
    except PermissionError:
        channel.close()
        raise not_permitted(owner_name(path if os.path.exists(path) else path.parent)) from None
    except BlockingIOError:
        channel.close()
        raise NoAnswer(f"The daemon of this site has not let us in within {patience:g} s.", STUCK) from None
    except BaseException:
        channel.close()
        raise
    return channel


def say(channel: socket.socket, message: Message) -> None:
    """Tell the daemon something. What it had said before it hung up is found by `hear`."""
    try:
        send(channel, message)
    except BlockingIOError:
        raise no_answer(channel) from None
    except ConnectionError:
        pass


def hear(channel: socket.socket, patience: float | None = PATIENCE) -> Message:
    """The next thing that the daemon says."""
    try:
        # The kernel first tells that the other end hung up without reading all, and then gives its last words.
        packet = next_packet(channel) or next_packet(channel)
    except BlockingIOError:
        raise no_answer(channel, patience) from None
    if not packet:
        raise HungUp("The daemon of this site has hung up.", "Perhaps it was stopped; see whether it is running.")
    return decode(packet)


def next_packet(channel: socket.socket) -> bytes:
    """Into a buffer of its own, unlike in the daemon: a face may have several threads."""
    try:
        return channel.recv(LARGEST)
    except ConnectionError:
        return b""


STUCK = "It is stopped or stuck. Below systemd, its watchdog will see to that."


def no_answer(channel: socket.socket, patience: float | None = PATIENCE) -> NoAnswer:
    return NoAnswer(
        f"The daemon of this site, process {daemon_of(channel)[0]}, has not answered within {patience:g} s.", STUCK
    )


def not_permitted(owner: str) -> NotPermitted:
    message = f"The daemon of this site listens to {who_may_ask(owner)}, not to {user_name()}."
    return NotPermitted(message, f"Become one of them, as with sudo -u {owner}.")


def who_may_ask(owner: str) -> str:
    return "root" if owner == "root" else f"root and {owner}"


def daemon_of(channel: socket.socket) -> tuple[int, int]:
    """Process and user at the other end."""
    pid, uid, _gid = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def name_of(uid: int) -> str:
    import pwd  # only where it is needed: the daemon stays small

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def set_patience(channel: socket.socket, seconds: float | None) -> None:
    """How long to wait for the other end each time. (A timeout of Python would not let us wait for a full backlog.)"""
    limit = struct.pack("ll", int(seconds or 0), int((seconds or 0) % 1 * 1e6))
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A path to a socket that fits into the 107 bytes of its address, however deep its directory."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
