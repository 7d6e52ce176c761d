"""The control socket: how the commands that people type reach the daemon.

Only root and the user of the daemon are heard. Who sends garbage is hung up on; who is silent makes room for others;
who reads slowly misses some of what a run writes, but nobody is waited for.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Protocol

from ..caller import daemon_of, name_of, set_patience, short_path, who_may_ask
from ..errors import HistoryError, WireError
from ..runs import Run
from ..state import CONTROL, give_to_owner
from ..wire import (
    Amend,
    Ask,
    Cancel,
    Ended,
    Message,
    Pause,
    Progress,
    Refused,
    Reload,
    Resume,
    RunNow,
    Visit,
    Wrote,
    encode,
    receive,
    send,
)
from .agenda import LiveRun
from .clock import monotonic

MOST_CALLERS = 64
MOST_BUSY = 48  # of those; the other places are always free for a short question
BACKLOG = 64
MOST_QUEUED = 1 << 18  # bytes of what runs write that are kept for a caller who doesn't read them
CHUNK = 8192  # characters of one message, each of which may need twelve bytes
LAST_WORDS = 1.0  # seconds at the end of the daemon for callers to take what they must know

Request = Ask | RunNow | Pause | Resume | Cancel | Amend | Reload


class Desk(Protocol):
    """Who answers what faces ask for."""

    def take(self, caller: Caller, request: Request) -> None: ...


class Host(Protocol):
    """Who decides what guests may do: processes that run a task themselves."""

    def guest_asks(self, guest: Caller, visit: Visit) -> None: ...
    def guest_left(self, live: LiveRun) -> None: ...
    def run_ended(self, live: LiveRun, ended: Ended) -> None: ...
    def run_progressed(self, live: LiveRun, progress: Progress) -> None: ...


class Caller:
    """Somebody who has connected."""

    def __init__(self, channel: socket.socket, selector: BaseSelector, callback: Callable[[Caller], None]) -> None:
        channel.setblocking(False)
        self.channel = channel
        self.uid = daemon_of(channel)[1]
        self.pid = 0  # of a guest
        self.runs: LiveRun | None = None  # what it runs itself, as a guest
        self.hears: LiveRun | None = None  # the run that it has asked for
        self.owed = 0  # answers that it will get later
        self._selector, self._callback = selector, lambda: callback(self)
        self._queue: deque[tuple[bytes, bool]] = deque()  # packets, and whether the caller must get them
        self._queued = self._missed = 0  # bytes in there; lines that were left out
        selector.register(channel, EVENT_READ, self._callback)

    @property
    def name(self) -> str:
        return name_of(self.uid)

    @property
    def busy(self) -> bool:
        """Whether it waits for something: then it is not sent away to make room."""
        return bool(self.runs or self.hears or self.owed)

    @property
    def behind(self) -> bool:
        """Whether it has not taken yet what it was told. It is not heard before it has."""
        return bool(self._queue)

    # What it is told

    def tell(self, message: Message, *, must: bool = True) -> None:
        """Send a message now, or as soon as it has room for it."""
        packet = encode(message)
        if self.channel.fileno() < 0 or (not self._queue and self._send(packet)):
            return
        self._queue.append((packet, must))
        self._queued += len(packet)
        if len(self._queue) == 1:
            # Until it reads, it is not heard: it could have us keep answers without end.
            self._selector.modify(self.channel, EVENT_WRITE, self._callback)

    def refuse(self, reason: str) -> None:
        """Tell it why not; what the reason names may be as long as what the caller has sent."""
        self.tell(Refused(reason=reason[:CHUNK]))

    def run_wrote(self, run: int, text: str) -> None:
        """Some whole lines."""
        if self._queued > MOST_QUEUED:
            self._missed += text.count("\n")
            return
        self._tell_missed(run)
        for start in range(0, len(text), CHUNK):
            self.tell(Wrote(run=run, text=text[start : start + CHUNK]), must=False)

    def run_progressed(self, progress: Progress) -> None:
        if not self._queue:  # only the latest is of interest
            self.tell(progress, must=False)

    def run_ended(self, run: Run) -> None:
        """The last that it hears of a run."""
        self.hears = None
        self._tell_missed(run.id)
        ended = Ended(
            run=run.id,
            outcome=str(run.outcome),
            reason=run.reason,
            traceback=run.traceback,
            cpu=run.cpu or 0.0,
            peak_memory=run.peak_memory or 0,
        )
        try:
            self.tell(ended)
        except WireError:  # history has the whole traceback
            self.tell(Ended(run=run.id, outcome=ended.outcome, reason=ended.reason[:CHUNK]))

    def _tell_missed(self, run: int) -> None:
        if self._missed:
            missed, self._missed = self._missed, 0
            self.tell(Wrote(run=run, text=f"[{missed:,} lines came too fast for you; history has the last ones]\n"))

    def _send(self, packet: bytes) -> bool:
        """False if there is no room now."""
        try:
            self.channel.send(packet)
        except BlockingIOError:
            return False
        except OSError:
            pass  # it is gone; we shall notice
        return True

    def flush(self) -> None:
        """Send what it has room for."""
        while self._queue and self._send(self._queue[0][0]):
            self._queued -= len(self._queue.popleft()[0])
        if not self._queue:
            if self.hears is not None:
                self._tell_missed(self.hears.run.id)
            self._selector.modify(self.channel, EVENT_WRITE if self._queue else EVENT_READ, self._callback)

    def hang_up(self, deadline: float | None = None) -> None:
        """Close the connection; given a deadline, after what it must know."""
        if deadline is not None:
            self.channel.setblocking(True)
            for packet, must in self._queue:
                set_patience(self.channel, max(0.001, deadline - monotonic()))
                if must and not self._send(packet):
                    break
        self._queue.clear()
        self._selector.unregister(self.channel)
        self.channel.close()


class Control:
    """Listens to callers."""

    def __init__(self, state: Path, selector: BaseSelector, host: Host, desk: Desk) -> None:
        self._selector, self._host, self._desk = selector, host, desk
        self._callers: dict[Caller, None] = {}  # the one that was silent longest comes first
        self._closed = False
        self._path = own_path(state)
        self._pointer = state / CONTROL  # leads there, for those who only know the site's state
        self._socket = self._listen()
        self._spare = open_spare()

    def _listen(self) -> socket.socket:
        """Make the socket and wait for callers; raises HistoryError where the directory cannot be written."""
        self._remove()
        try:
            return self._bind()
        except OSError as error:
            raise HistoryError(
                f"The control socket {self._path} cannot be made: {error.strerror}.",
                "See to the disk of its directory, and to whom that belongs.",
            ) from None

    def _bind(self) -> socket.socket:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        with short_path(self._path) as short:
            # Others of its group may connect, to be told in words who may ask.
            mask = os.umask(0o117)
            try:
                end.bind(short)
            finally:
                os.umask(mask)
        give_to_owner(self._path)
        if self._pointer != self._path:
            self._pointer.symlink_to(self._path)
        end.listen(BACKLOG)
        self._selector.register(end, EVENT_READ, self._accept)
        return end

    def keep(self) -> None:
        """Listen anew where the socket was taken away with its directory. Who has connected is heard as before."""
        if self._pointer.is_socket():
            return
        former = self._socket
        with suppress(HistoryError):  # the daemon works without; only nobody can ask it
            self._socket = self._listen()
            self._selector.unregister(former)
            former.close()

    def part_with_guests(self) -> None:
        """Wait no longer for processes that run a task themselves."""
        for caller in [caller for caller in self._callers if caller.runs]:
            self._hang_up(caller)

    def close(self) -> None:
        """Hear nobody any more, but let everybody know what they must."""
        if self._closed:
            return
        self._closed = True
        deadline = monotonic() + LAST_WORDS
        for caller in list(self._callers):
            self._hang_up(caller, deadline)
        self._selector.unregister(self._socket)
        self._socket.close()
        os.close(self._spare)
        self._remove()

    def _remove(self) -> None:
        for path in (self._path, self._pointer):
            with suppress(OSError):
                path.unlink()

    def _accept(self) -> None:
        """Let one caller in. One a turn, so that each is heard before others take its place."""
        try:
            channel, _address = self._socket.accept()
        except BlockingIOError:
            return
        except OSError:  # there are no descriptors left
            if not self._make_room():
                self._turn_away()
            return
        uid = daemon_of(channel)[1]
        if uid not in (0, os.geteuid()):
            with channel, suppress(OSError):
                send(channel, Refused(reason=f"the daemon listens to {who_may_ask(name_of(os.geteuid()))}"))
            return
        if len(self._callers) >= MOST_CALLERS:
            self._make_room()
        self._callers[Caller(channel, self._selector, self._on_ready)] = None

    def _make_room(self) -> bool:
        """Send away who was silent longest. False where all wait for something."""
        idle = next((caller for caller in self._callers if not caller.busy), None)
        if idle is not None:
            self._hang_up(idle)
        return idle is not None

    def _turn_away(self) -> None:
        """Let a caller in on the descriptor that is kept for this, to tell it so; else it would knock for ever."""
        os.close(self._spare)
        with suppress(OSError):
            channel, _address = self._socket.accept()
            with channel:
                send(channel, Refused(reason="the daemon has no descriptors left; try again when less is running"))
        self._spare = open_spare()

    def _on_ready(self, caller: Caller) -> None:
        if caller.behind:
            caller.flush()
            if caller.behind:
                return
        try:
            message = receive(caller.channel)
        except BlockingIOError:
            return
        except (WireError, OSError):
            message = None
        self._callers[caller] = self._callers.pop(caller)  # it goes to the end of the row
        self._take(caller, message)

    def _take(self, caller: Caller, message: Message | None) -> None:
        match message:
            case Visit() | RunNow() | Reload() if caller.runs or caller.hears:
                caller.tell(Refused(reason="one thing after the other, please"))
            case Visit() | RunNow() | Reload() if sum(caller.busy for caller in self._callers) >= MOST_BUSY:
                caller.tell(Refused(reason="too many others are waiting for the daemon already"))
            case Visit():
                caller.pid = message.pid
                self._host.guest_asks(caller, message)
            case Ask() | RunNow() | Pause() | Resume() | Cancel() | Amend() | Reload():
                self._desk.take(caller, message)
            case Progress() if caller.runs:
                self._host.run_progressed(caller.runs, message)
            case Ended() if caller.runs and caller.runs.began:
                live, caller.runs = caller.runs, None
                self._host.run_ended(live, message)
            case _:
                self._hang_up(caller)

    def _hang_up(self, caller: Caller, deadline: float | None = None) -> None:
        del self._callers[caller]
        caller.hang_up(deadline)
        if caller.hears is not None:
            caller.hears.asker = None  # the run goes on
        live, caller.runs = caller.runs, None
        if live is not None:
            self._host.guest_left(live)


def open_spare() -> int:
    """A descriptor that is of use when there are no others."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def own_path(state: Path) -> Path:
    """Where the daemon of this process listens: in the directory that its service manager has made for that."""
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return (Path(runtime) if runtime else state) / CONTROL
