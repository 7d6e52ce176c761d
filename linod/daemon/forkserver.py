"""The site's fork server, as the daemon sees it: started, listened to, replaced when it dies, hangs or cannot load.

Nothing that happens to it stops the loop. Workers that it has forked go on without it.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from selectors import EVENT_READ, BaseSelector
from typing import Any, Protocol

from .. import __version__
from ..conf import Settings
from ..errors import LinodError, WireError
from ..launch import Launch, Place, clean_environment
from ..task import Task
from ..wire import VERSION, Fork, Forked, Loaded, Message, NotForked, NotLoaded, Ping, Pong, Tasks, pair, receive, send
from .children import how_it_ended, send_signal
from .clock import Timer, Timers, monotonic

CHANNEL = 3  # the descriptor of its socket; see site/main.py
ANSWER_WITHIN = 5.0  # seconds, to a ping
LONGEST_PAUSE = 60.0  # seconds between two tries to load the site
STEADY_AFTER = 10.0  # seconds that one must have been of use for its end not to count as one more failure
READ_SIZE = 65536


class Listener(Protocol):
    """Who is told what becomes of the site."""

    def site_loaded(self, server: ForkServer, tasks: list[Task], settings: Settings, loaded: Loaded) -> None: ...
    def site_not_loaded(self, reason: str, *, permanent: bool, traceback: str) -> None: ...
    def site_is_gone(self, how: str, pause: float) -> None: ...
    def site_wrote(self, text: str) -> None: ...
    def forked(self, serial: int, pid: int) -> None: ...
    def not_forked(self, serial: int, reason: str) -> None: ...


class ForkServer:
    """One process that has loaded the site, or is about to."""

    def __init__(self, sites: ForkServers, channel: socket.socket, pid: int, pipe: int | None) -> None:
        self.pid = pid
        self.ready = False
        self.ready_since = 0.0  # monotonic
        self.gone = False
        self.told = False  # it has said whether it could load
        self.given_up = False  # another one loads newer code
        self.ended_because = ""  # why we have ended it
        self.channel, self.pipe = channel, pipe
        self.deadline: Timer | None = None
        self._sites = sites
        self._tasks: list[dict[str, Any]] = []
        channel.setblocking(False)

    def fork(self, serial: int, companion: str, fds: Sequence[int]) -> bool:
        """Ask for a worker, or for a companion of the site; False if that is not possible now."""
        try:
            send(self.channel, Fork(serial=serial, companion=companion), fds)
        except OSError:
            return False
        return True

    def is_silent(self) -> None:
        """A worker it was asked for didn't come: see whether it still answers."""
        with suppress(OSError):
            send(self.channel, Ping())
        if self.deadline is None or self.deadline.callback is None:
            self.deadline = self._sites.timers.after(ANSWER_WITHIN, self.kill)

    def kill(self) -> None:
        if not self.gone:
            send_signal(self.pid, signal.SIGKILL)

    def give_up(self) -> None:
        """End it while it loads, and hear no more of it."""
        self.given_up = True
        self.kill()

    def take(self, message: Message) -> None:
        """What it says."""
        if self.given_up:
            return
        listener = self._sites.listener
        match message:
            case Forked(serial=serial, pid=pid):
                listener.forked(serial, pid)
            case NotForked(serial=serial, reason=reason):
                listener.not_forked(serial, reason)
            case Pong():
                self._sites.timers.cancel(self.deadline)
            case Tasks(tasks=tasks):
                self._tasks += tasks
            case Loaded():
                self._sites.timers.cancel(self.deadline)
                self.told = True
                self._sites.loaded(self, self._tasks, message)
                self._tasks = []
            case NotLoaded():
                self.told = True
                self._sites.not_loaded(self, message)


class ForkServers:
    """The fork server that is used, and the next one while it loads."""

    def __init__(
        self,
        launch: Launch,
        find_place: Callable[[], Place],
        selector: BaseSelector,
        timers: Timers,
        listener: Listener,
    ) -> None:
        self.launch, self.timers, self.listener = launch, timers, listener
        self._find_place = find_place
        self.settings = Settings()
        self.current: ForkServer | None = None
        self._selector = selector
        self._all: dict[int, ForkServer] = {}  # by pid
        self._pause = 0.0
        self._retry: Timer | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin with the one that the command line has forked already, or start one."""
        if self.launch.site_fd is not None and self.launch.site_pid is not None:
            channel = socket.socket(fileno=self.launch.site_fd)
            channel.set_inheritable(False)
            self._watch(ForkServer(self, channel, self.launch.site_pid, None))
        else:
            self.load()

    @property
    def loading(self) -> bool:
        return any(not (server.told or server.given_up) for server in self._all.values())

    def load(self) -> None:
        """Start a fork server on the code as it is now; it takes over when it has loaded.

        One that is loading still is given up: its code is older.
        """
        if self._stopping:
            return
        self.timers.cancel(self._retry)
        self._give_up_loading()
        try:
            command = self._find_place().command("forkserver")
        except LinodError as error:
            self.listener.site_not_loaded(str(error), permanent=True, traceback="")
            return self._try_later("")
        try:
            ours, theirs = pair()
            reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:  # there are no descriptors left
            return self._cannot_start(command[0], error)
        os.set_blocking(writing, True)
        try:
            pid = os.posix_spawn(
                command[0],
                command,
                clean_environment(),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, writing, 1),
                    (os.POSIX_SPAWN_DUP2, writing, 2),
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), CHANNEL),
                ],
                setsid=True,
                setsigmask=[],
            )
        except OSError as error:
            ours.close()
            os.close(reading)
            self._cannot_start(command[0], error)
        else:
            self._watch(ForkServer(self, ours, pid, reading))
        finally:
            theirs.close()
            os.close(writing)

    def _cannot_start(self, python: str, error: OSError) -> None:
        reason = f"The site's Python {python} cannot be started: {error.strerror}."
        permanent = isinstance(error, FileNotFoundError | PermissionError)
        self.listener.site_not_loaded(reason, permanent=permanent, traceback="")
        self._try_later("")

    def _watch(self, server: ForkServer) -> None:
        self._all[server.pid] = server
        self._selector.register(server.channel, EVENT_READ, lambda: self._on_message(server))
        if server.pipe is not None:
            self._selector.register(server.pipe, EVENT_READ, lambda: self._on_output(server))
        server.deadline = self.timers.after(self.settings.load_timeout, lambda: self._load_took_too_long(server))

    def _load_took_too_long(self, server: ForkServer) -> None:
        server.ended_because = f"it took longer than the load_timeout of {self.settings.load_timeout:g} s"
        server.kill()

    def _on_message(self, server: ForkServer) -> None:
        try:
            message = receive(server.channel)
        except BlockingIOError:
            return
        except (WireError, OSError):
            return server.kill()
        if message is None:
            self._selector.unregister(server.channel)
        else:
            server.take(message)

    def _on_output(self, server: ForkServer) -> None:
        assert server.pipe is not None
        try:
            data = os.read(server.pipe, READ_SIZE)
        except OSError:
            data = b""
        if data:
            self.listener.site_wrote(data.decode(errors="replace"))
        else:
            self._selector.unregister(server.pipe)

    def loaded(self, server: ForkServer, told: list[dict[str, Any]], message: Loaded) -> None:
        """A fork server is ready: it replaces the one before."""
        try:
            require_same_version(message)
            tasks, settings = list(map(Task.plannable, told)), Settings.from_mapping(message.settings)
        except (KeyError, TypeError, ValueError, LinodError) as error:
            server.kill()
            reason = (
                f"The site's linod is not understood by the daemon's ({error})."
                f" Give the site the daemon's: pip install -U linod=={__version__}"
            )
            return self.listener.site_not_loaded(reason, permanent=True, traceback="")
        server.ready, server.ready_since = True, monotonic()
        before, self.current = self.current, server
        if before is not None:
            self._let_go(before)
        self.listener.site_loaded(server, tasks, settings, message)

    def not_loaded(self, server: ForkServer, message: NotLoaded) -> None:
        self.listener.site_not_loaded(message.reason, permanent=message.permanent, traceback=message.traceback)

    def ended(self, pid: int, status: int) -> bool:
        """A child has ended. True if it was a fork server."""
        server = self._all.pop(pid, None)
        if server is None:
            return False
        # Its last word may still be in the socket: why it could not load.
        with suppress(BlockingIOError, WireError, OSError):
            while (message := receive(server.channel)) is not None:
                server.take(message)
        self._close(server)
        was_ready, server.ready, server.gone = server.ready, False, True
        how = server.ended_because or how_it_ended(status)
        if was_ready and monotonic() - server.ready_since > STEADY_AFTER:
            self._pause = 0.0
        if not (was_ready or server.told or server.given_up):
            self.listener.site_not_loaded(f"While loading, {how}.", permanent=False, traceback="")
        if server is self.current:
            self.current = None
            self._try_later(how)
        elif self.current is None:
            self._try_later("")
        return True

    def _try_later(self, how: str) -> None:
        """Load the site again after a pause. `how` the last fork server ended; empty if it could not load."""
        if self._stopping or self.loading or self.current is not None:
            return
        pause, self._pause = self._pause, min(max(1.0, 2 * self._pause), LONGEST_PAUSE)
        if how:
            self.listener.site_is_gone(how, pause)
        self._retry = self.timers.after(pause, self.load)

    def _give_up_loading(self) -> None:
        for server in self._all.values():
            if not server.told:
                server.give_up()

    def _let_go(self, server: ForkServer) -> None:
        """Let a fork server leave: it sees the end of its socket."""
        server.ready = False
        with suppress(OSError):
            server.channel.shutdown(socket.SHUT_RDWR)
        server.deadline = self.timers.after(ANSWER_WITHIN, server.kill)

    def _close(self, server: ForkServer) -> None:
        self.timers.cancel(server.deadline)
        for end in (server.channel, server.pipe):
            if end is not None:
                with suppress(KeyError, ValueError):
                    self._selector.unregister(end)
        server.channel.close()
        if server.pipe is not None:
            os.close(server.pipe)

    def stop(self) -> None:
        """Let all leave; the loop sees them end."""
        self._stopping = True
        self._give_up_loading()
        for server in self._all.values():
            self._let_go(server)

    def __len__(self) -> int:
        return len(self._all)


def require_same_version(message: Loaded) -> None:
    """Raises WireError where the site's end speaks another version of our messages."""
    if message.version != VERSION:
        raise WireError(f"it speaks version {message.version}, the daemon version {VERSION}")
