"""The messages between daemon, fork server and worker, and those of a face that asks the daemon for something.

Each is one packet of JSON on a Unix socket that keeps packets apart, so there is nothing to frame and nothing to
reassemble. Both ends say the version: the daemon may come from a Debian package and the site's end from a virtualenv.
"""

from __future__ import annotations

import array
import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from .annotations import item_types, plain_types
from .errors import WireError
from .runs import Outcome

VERSION = 3
SENDER = "sender"  # the companion that tells people of tasks
LARGEST = 160_000  # bytes of one packet; Linux takes 212,992 by default, its own overhead included
BATCH = 60_000  # bytes of tasks in one message, about
MOST_FDS = 3
LARGEST_NUMBER = 2**53  # of what is measured; each is whole for SQLite, and for every reader of JSON


# daemon -> fork server


@dataclass(kw_only=True)
class Fork:
    """Fork a worker. Comes with its socket, the pipe for its output and the site's lock."""

    serial: int
    companion: str = ""  # which of the site's companions it shall be, rather than run tasks


@dataclass(kw_only=True)
class Ping:
    """Are you still there?"""


# fork server -> daemon


@dataclass(kw_only=True)
class Tasks:
    """Some of the declared tasks; more may follow."""

    tasks: list[dict[str, Any]]


@dataclass(kw_only=True)
class Loaded:
    """The site is loaded and all its tasks were sent: workers can be forked."""

    version: int
    uses_linod: bool
    settings: dict[str, Any] = field(default_factory=dict)
    threads: list[str] = field(default_factory=list)  # running in the process that will be forked
    zone: str = "UTC"
    complaints: list[str] = field(default_factory=list)  # what the administrator overrides in vain
    mail: dict[str, Any] = field(default_factory=dict)  # how the site sends mail to its administrators
    companions: list[str] = field(default_factory=list)  # processes of the site that shall always be there
    channels: list[str] = field(default_factory=list)  # by which people are told of tasks: mail, url, signal


@dataclass(kw_only=True)
class NotLoaded:
    """The site cannot be loaded."""

    reason: str
    permanent: bool  # a later try would say the same
    traceback: str = ""


@dataclass(kw_only=True)
class Forked:
    """A worker was forked."""

    serial: int
    pid: int

    def __post_init__(self) -> None:
        require_process(self.pid)


@dataclass(kw_only=True)
class NotForked:
    """The kernel refused a worker."""

    serial: int
    reason: str


@dataclass(kw_only=True)
class Pong:
    """Still here."""


# worker -> daemon


@dataclass(kw_only=True)
class Hello:
    """A worker is ready for a run."""

    pid: int
    memory: int  # KiB resident

    def __post_init__(self) -> None:
        require_process(self.pid)


@dataclass(kw_only=True)
class Progress:
    """How far a run is."""

    run: int
    done: float
    total: float | None
    text: str

    def __post_init__(self) -> None:
        for number in (self.done, self.total or 0.0):
            float(number)  # an OverflowError if it is more than a float can hold


@dataclass(kw_only=True)
class Ended:
    """How a run ended, and what the worker is worth afterwards."""

    run: int
    outcome: str
    reason: str = ""
    traceback: str = ""
    cpu: float = 0.0  # seconds
    peak_memory: int = 0  # KiB
    memory: int = 0  # KiB resident now
    retire: str = ""  # why the worker should not be used again

    def __post_init__(self) -> None:
        Outcome(self.outcome)  # a ValueError if it is none
        for name in ("cpu", "peak_memory", "memory"):
            if not 0 <= getattr(self, name) < LARGEST_NUMBER:  # written so that it refuses NaN as well
                raise ValueError(f"{name} is {getattr(self, name)!r:.50}")


# daemon -> worker


@dataclass(kw_only=True)
class Begin:
    """Run a task."""

    run: int
    task: str


# daemon -> the sender, a process of the site that tells people and other programs; each is answered with Told


@dataclass(kw_only=True)
class Tell:
    """Tell what has changed about tasks, by one channel."""

    errand: int
    channel: str  # mail, url or signal
    alerts: list[dict[str, Any]]  # as alert/task.py has them
    more: int = 0  # how many did not fit


@dataclass(kw_only=True)
class Call:
    """Call the address that a task names as its ping."""

    errand: int
    task: str
    moment: str  # start, success or fail
    text: str = ""  # what is sent along


# sender -> daemon


@dataclass(kw_only=True)
class Told:
    """An errand is done, or why not."""

    errand: int
    problem: str = ""


# a command typed beside the daemon -> daemon


@dataclass(kw_only=True)
class Visit:
    """A process that wants to run a task itself, and to be counted among the runs."""

    task: str
    pid: int


# daemon -> such a command; if it is granted, it gets a Begin


@dataclass(kw_only=True)
class Refused:
    """It may not."""

    reason: str


# a face -> daemon: each is answered with Done or Refused, but Ask with Standing, and RunNow as it says.
# `by` is who asks, as it will be shown: a user's name. Where it is empty, it is the name of the user who has connected.


@dataclass(kw_only=True)
class Ask:
    """How do you do? Answered by Standing."""


@dataclass(kw_only=True)
class RunNow:
    """Run a task now, and tell what it does: Accepted, Begin, then Wrote and Progress, then Ended.

    Refused instead of Accepted where it cannot be run; instead of Begin where it was withdrawn before it could begin.
    Hanging up doesn't end it.
    """

    task: str  # its id, or the function's own name where that is unique; so in all that follows
    by: str


@dataclass(kw_only=True)
class Pause:
    """Plan no runs of a task, or of the whole site where no task is named. What runs goes on."""

    task: str
    reason: str
    by: str


@dataclass(kw_only=True)
class Resume:
    """Plan them again. What was due meanwhile is not caught up."""

    task: str
    by: str = ""


@dataclass(kw_only=True)
class Cancel:
    """End a run: TERM, and KILL after its grace."""

    run: int
    by: str


@dataclass(kw_only=True)
class Amend:
    """Some tasks are others than when the site was loaded: a companion of it has seen that."""

    tasks: list[dict[str, Any]]  # new, or declared otherwise
    gone: list[str]  # their ids


@dataclass(kw_only=True)
class Reload:
    """Load the site anew. Answered when that is done or has failed."""


# daemon -> face


@dataclass(kw_only=True)
class Accepted:
    """A task will be run now, under this number."""

    run: int
    task: str
    waits_for: str = ""  # why it doesn't begin at once, where that is so


@dataclass(kw_only=True)
class Standing:
    """How the daemon does. Instants are microseconds since the epoch."""

    pid: int
    since: int
    waiting_for: str  # why the site cannot be loaded, while that is so
    draining: bool
    tasks: int
    running: list[dict[str, Any]]  # run, task, started, progress; the oldest first, and not all where there are many
    alive: int  # how many run
    workers: int
    trouble: str  # why history cannot be written, while that is so


@dataclass(kw_only=True)
class Wrote:
    """Some of what a run writes."""

    run: int
    text: str


@dataclass(kw_only=True)
class Done:
    """What was asked for is done."""

    text: str = ""  # what that was, where it is worth a sentence


Message = (
    Fork
    | Ping
    | Tasks
    | Loaded
    | NotLoaded
    | Forked
    | NotForked
    | Pong
    | Hello
    | Progress
    | Ended
    | Begin
    | Tell
    | Call
    | Told
    | Visit
    | Refused
    | Ask
    | RunNow
    | Pause
    | Resume
    | Cancel
    | Amend
    | Reload
    | Accepted
    | Standing
    | Wrote
    | Done
)


def require_process(pid: int) -> None:
    """Raises ValueError for what a signal would take for a whole group, or for every process there is."""
    if pid <= 1:
        raise ValueError(f"pid {pid}")


_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Message)}


_TYPES = {
    name: {
        field: (plain_types(annotation), item_types(annotation)) for field, annotation in get_type_hints(kind).items()
    }
    for name, kind in _KINDS.items()
}


_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode
# One for all packets of this process, which reads them in one thread: a new one of this size would come from the kernel
# each time.
_buffer = bytearray(LARGEST)
_view = memoryview(_buffer)


def batches(tasks: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Tasks in as many parts as it takes for each to fit into a message."""
    batch: list[dict[str, Any]] = []
    size = 0
    for task in tasks:
        size += len(str(task))
        if batch and size > BATCH:
            yield batch
            batch, size = [], len(str(task))
        batch.append(task)
    if batch:
        yield batch


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; neither outlives an exec unless it is told to."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message. Raises OSError where the other end is gone or, on a non-blocking socket, busy."""
    packet = encode(message)
    if fds:
        socket.send_fds(end, [packet], list(fds))
    else:
        end.send(packet)


def receive(end: socket.socket) -> Message | None:
    """The next message; None at the end of the conversation. Raises BlockingIOError, or WireError on garbage."""
    try:
        size = end.recv_into(_buffer)
    except ConnectionError:
        return None
    return decode(bytes(_view[:size])) if size else None


def receive_with_fds(end: socket.socket) -> tuple[Message | None, list[int]]:
    """The next message with its descriptors, which no program that is executed later will inherit."""
    room = socket.CMSG_SPACE(MOST_FDS * array.array("i").itemsize)
    try:
        packet, ancillary, _flags, _address = end.recvmsg(LARGEST, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None, []
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return (decode(packet) if packet else None), list(fds)


def encode(message: Message) -> bytes:
    packet = _encode([type(message).__name__, vars(message)]).encode()
    if len(packet) > LARGEST:
        raise WireError(f"A {type(message).__name__} message of {len(packet):,} bytes is too large.")
    return packet


def decode(packet: bytes) -> Message:
    try:
        kind, fields = _decode(packet.decode())
        message: Message = _KINDS[kind](**fields)
        for name, (types, items) in _TYPES[kind].items():
            value = getattr(message, name)
            if not isinstance(value, types) or (items and not all(isinstance(each, items) for each in value)):
                raise TypeError(f"{name} is another kind of value")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise WireError(f"This is no message of linod: {packet[:80]!r} ({error!r:.200})") from None
    return message
