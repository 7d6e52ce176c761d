"""The workers: born ahead of need, given one run after the other, ended when they must, replaced when worn out.

A worker is the daemon's own child, forked by the fork server. That it has ended is known when the kernel says so, never
from a closed socket: a process that the task left behind may hold the other end.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from selectors import EVENT_READ, BaseSelector
from typing import Protocol

from ..conf import Settings
from ..errors import WireError
from ..linux import birth, children, descendants
from ..runs import Outcome
from ..wire import SENDER, Begin, Ended, Hello, Message, Progress, Told, pair, receive, send
from .agenda import LiveRun
from .children import KILLED_WITHIN, has_mark, how_it_ended, send_signal, signal_group, writes_to
from .clock import Timer, Timers, monotonic
from .forkserver import ForkServer
from .output import Line, Output

HELLO_WITHIN = 5.0  # seconds from the request to a worker's first word
LONGEST_PAUSE = 10.0  # seconds between two births, when those before went wrong
COMPANION_PAUSE = 5.0  # seconds until a companion that has ended is there again
KEPT_STATUSES = 100
READ_SIZE = 65536
MOST_READ = 16  # reads from one pipe in one turn, so that a task that prints without end keeps nobody waiting


class Listener(Protocol):
    """Who is told what happens to runs."""

    def run_ended(self, live: LiveRun, ended: Ended) -> None: ...
    def run_wrote(self, live: LiveRun, lines: list[Line]) -> None: ...
    def run_hidden(self, live: LiveRun, size: int) -> None: ...
    def run_progressed(self, live: LiveRun, progress: Progress) -> None: ...
    def worker_wrote(self, text: str) -> None: ...
    def no_worker(self, reason: str) -> None: ...


@dataclass(eq=False, kw_only=True)
class Worker:
    """A worker as the daemon sees it."""

    serial: int
    channel: socket.socket
    pipe: int
    server: ForkServer
    companion: str = ""  # the name of one that runs no tasks
    hears: Callable[[Message | None], None] | None = None  # who is told what it says; None: that it is gone
    pid: int | None = None
    born: int | None = None
    ready: bool = False  # it has said hello
    memory: int = 0  # KiB when it was new
    runs: int = 0
    live: LiveRun | None = None
    ended: Ended | None = None  # the run's end, while what it wrote is still being read
    output: Output | None = None
    leaving: str = ""  # why it gets no more runs
    idle_since: float = 0.0
    idle_check: Timer | None = None
    deadline: Timer | None = None  # for its hello, or for its end
    killed: float | None = None  # when, monotonic
    # Processes that were below it when it was ended, with their birth.
    family: dict[int, int | None] = field(default_factory=dict)

    def members(self) -> list[int]:
        """Its descendants that are alive, also those that have left its group."""
        for pid in descendants(self.pid) if self.pid else []:
            self.family.setdefault(pid, birth(pid))
        return [pid for pid, born in self.family.items() if born is not None and birth(pid) == born]

    def defies_signals(self) -> bool:
        """Whether it is still there though it was killed, and nobody knows until when."""
        return self.killed is not None and monotonic() - self.killed >= KILLED_WITHIN


class Workers:
    """All workers of a site."""

    def __init__(self, selector: BaseSelector, timers: Timers, lock: int, listener: Listener) -> None:
        self.settings = Settings()
        self._selector, self._timers, self._lock, self._listener = selector, timers, lock, listener
        self._serial = 0
        self._all: dict[int, Worker] = {}  # by serial
        self._by_pid: dict[int, Worker] = {}
        self._idle: list[Worker] = []
        self._unborn: set[int] = set()  # serials
        self._companions: dict[str, Worker | None] = {}  # those that the site wants, by name
        self._stillborn = 0  # in a row
        self._pause: Timer | None = None  # until the next birth, after some that went wrong
        self._statuses: dict[int, int] = {}  # of children that ended before they were known
        self.server: ForkServer | None = None

    # How many

    def __len__(self) -> int:
        return len(self._all)

    def available(self) -> int:
        """Workers that are idle or about to be."""
        return len(self._idle) + len(self._unborn)

    def idle(self) -> int:
        """Workers that can take a run now."""
        return len(self._idle)

    def awaited(self) -> bool:
        """Whether some are there that will end."""
        return any(not worker.defies_signals() for worker in self._all.values())

    def provide(self, wanted: int, fresh: int) -> None:
        """See to it that so many are available soon, among them so many that have not run anything yet."""
        if self.server is None or not self.server.ready or (self._pause and self._pause.callback):
            return
        missing = wanted - self.available()
        if fresh:
            missing = max(missing, fresh - len(self._unborn) - sum(not worker.runs for worker in self._idle))
        room = self.settings.max_running + self.settings.max_parallel - len(self._all)
        try:
            for _ in range(min(missing, room)):
                self._bear(self.server)
        except OSError as error:  # there are no descriptors left
            self._birth_failed()
            self._listener.no_worker(str(error))

    def _bear(self, server: ForkServer, companion: str = "") -> Worker:
        """Ask for a worker, or for a companion; raises OSError where there is no descriptor for it."""
        ours, theirs = pair()
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writing, True)
        self._serial += 1
        worker = Worker(serial=self._serial, channel=ours, pipe=reading, server=server, companion=companion)
        ours.setblocking(False)
        self._all[worker.serial] = worker
        if not companion:
            self._unborn.add(worker.serial)
        self._selector.register(ours, EVENT_READ, lambda: self._on_message(worker))
        self._selector.register(reading, EVENT_READ, lambda: self._on_output(worker))
        patience = HELLO_WITHIN if self.settings.fork_server else self.settings.load_timeout
        worker.deadline = self._timers.after(patience, lambda: self._no_hello(worker))
        asked = server.fork(worker.serial, companion, (theirs.fileno(), writing, self._lock))
        theirs.close()
        os.close(writing)
        if not asked:
            self._forget(worker)
        return worker

    def bear_sender(self, hears: Callable[[Message | None], None]) -> Worker | None:
        """Ask for the process that tells people of tasks; None where there can be none now."""
        if self.server is None or not self.server.ready:
            return None
        try:
            worker = self._bear(self.server, SENDER)
        except OSError as error:  # there are no descriptors left
            self._listener.no_worker(str(error))
            return None
        worker.hears = hears
        return worker if worker.serial in self._all else None

    def say(self, worker: Worker, message: Message) -> bool:
        """Send it a message; False where that is not possible."""
        try:
            send(worker.channel, message)
        except (OSError, WireError):
            return False
        return True

    def forked(self, serial: int, pid: int) -> None:
        """The fork server says which pid a worker got."""
        if worker := self._all.get(serial):
            self._know_pid(worker, pid)

    def not_forked(self, serial: int, reason: str) -> None:
        """The kernel refused a worker."""
        self._listener.no_worker(reason)
        if worker := self._all.get(serial):
            self._birth_failed()
            self._forget(worker)

    def _birth_failed(self) -> None:
        """Wait before the next one, longer each time, so that a site that cannot be forked doesn't keep us busy."""
        self._stillborn += 1
        self._timers.cancel(self._pause)
        self._pause = self._timers.after(min(0.05 * 2**self._stillborn, LONGEST_PAUSE), lambda: None)

    def _know_pid(self, worker: Worker, pid: int) -> None:
        if worker.pid is not None:
            return
        worker.pid, worker.born = pid, birth(pid)
        self._by_pid[pid] = worker
        if (status := self._statuses.pop(pid, None)) is not None:
            self._ended(worker, status)

    def _no_hello(self, worker: Worker) -> None:
        """It was not born, or hangs: another one will do."""
        worker.leaving = "it did not say hello"
        self._unborn.discard(worker.serial)
        self._birth_failed()
        if worker.pid is None:
            worker.server.is_silent()
            self._forget(worker)
        else:
            self._kill(worker)

    # Runs

    def begin(self, live: LiveRun) -> bool:
        """Give a run to an idle worker; False where there is none."""
        fresh = live.task.policies.fresh
        while worker := self._take(fresh):
            if fresh:
                worker.leaving = "its task wants a process of its own"
            worker.live, worker.ended = live, None
            worker.output = Output(keep=self.settings.keep_output_kib << 10, lines=self.settings.log_lines)
            worker.runs += 1
            live.worker, live.run.pid, live.run.born = worker, worker.pid, worker.born
            try:
                send(worker.channel, Begin(run=live.run.id, task=live.task.id))
            except OSError:  # it has just died; its end will be noticed
                worker.live = live.worker = None
                worker.leaving = "it cannot be reached"
                continue
            return True
        return False

    def _take(self, fresh: bool) -> Worker | None:
        """An idle worker: the last one used, so that superfluous ones grow old; an unused one if it must be fresh."""
        for index in range(len(self._idle) - 1, -1, -1):
            if not fresh or not self._idle[index].runs:
                return self._idle.pop(index)
        return None

    def terminate(self, live: LiveRun, verdict: Outcome, reason: str) -> None:
        """Ask a run to end; after its grace it is killed with all that it started."""
        worker = live.worker
        if worker is None or live.verdict is not None:
            return
        live.verdict, live.verdict_reason = verdict, reason
        worker.leaving = reason
        worker.members()
        self._signal(worker, signal.SIGTERM)
        self._timers.cancel(worker.deadline)
        worker.deadline = self._timers.after(live.task.policies.grace, lambda: self._kill(worker))

    def end(self, worker: Worker) -> None:
        """End a process that runs no task."""
        if worker.pid is None:
            return self._forget(worker)
        self._kill(worker)

    def kill(self, live: LiveRun, verdict: Outcome, reason: str) -> None:
        """End a run at once."""
        if live.worker is not None:
            live.verdict, live.verdict_reason = live.verdict or verdict, live.verdict_reason or reason
            self._kill(live.worker)

    def _kill(self, worker: Worker) -> None:
        worker.leaving = worker.leaving or "it was killed"
        if worker.killed is None:
            worker.killed = monotonic()
            self._timers.after(KILLED_WITHIN, lambda: None)  # for who waits for its end
        family = worker.members()
        self._signal(worker, signal.SIGKILL)
        for pid in family:
            send_signal(pid, signal.SIGKILL)

    def _signal(self, worker: Worker, number: int) -> None:
        """Signal a worker and its group. It is our child and not reaped yet, so its pid is its own."""
        if worker.pid is None:
            return
        signal_group(worker.pid, number)  # once only: a second TERM would interrupt a task that cleans up
        if number == signal.SIGTERM:  # one that is stopped could not take it
            signal_group(worker.pid, signal.SIGCONT)

    # What workers say

    def _on_message(self, worker: Worker) -> None:
        try:
            message = receive(worker.channel)
        except BlockingIOError:
            return
        except (WireError, OSError):
            return self._kill(worker)  # it speaks another language, or the task has got at the socket
        if message is None:
            self._selector.unregister(worker.channel)
        else:
            self._take_message(worker, message)

    def has_ended(self, live: LiveRun) -> bool:
        """Whether a run has ended by now; its worker may have said so while we could not listen."""
        if live.worker is not None:
            self._hear_all(live.worker)
        return live.worker is None

    def _hear_all(self, worker: Worker) -> None:
        with suppress(BlockingIOError, WireError, OSError):
            while (message := receive(worker.channel)) is not None:
                self._take_message(worker, message)

    def _take_message(self, worker: Worker, message: Message) -> None:
        match message:
            case Ended():
                worker.ended = message
                self._close_run(worker)
            case Progress() if worker.live and message.run == worker.live.run.id:
                self._listener.run_progressed(worker.live, message)
            case Hello() if not worker.ready:
                worker.ready, worker.memory = True, message.memory
                self._unborn.discard(worker.serial)
                self._stillborn = 0
                self._know_pid(worker, message.pid)
                if worker.serial in self._all:  # it may have ended right after its hello
                    self._timers.cancel(worker.deadline)
                    if not worker.companion:
                        self._make_idle(worker)
                    elif worker.hears:
                        worker.hears(message)
            case Told() if worker.hears:
                worker.hears(message)

    def _close_run(self, worker: Worker) -> None:
        """A run has ended: read what it wrote, tell the listener, decide about the worker."""
        live, ended = worker.live, worker.ended
        if live is None or ended is None or ended.run != live.run.id:
            return
        self._end_escaped(worker)
        self._read_output(worker)
        if worker.output:
            if lines := worker.output.finish():
                self._listener.run_wrote(live, lines)
            if worker.output.hidden:
                self._listener.run_hidden(live, worker.output.hidden)
            live.run.output, live.run.output_bytes = worker.output.text(), worker.output.size
        worker.live = worker.ended = worker.output = live.worker = None
        self._listener.run_ended(live, ended)
        if reason := worker.leaving or ended.retire or self._worn_out(worker, ended):
            self.dismiss(worker, reason)
        else:
            self._make_idle(worker)

    def _worn_out(self, worker: Worker, ended: Ended) -> str:
        if worker.runs >= self.settings.recycle_runs:
            return "it has done enough"
        if ended.memory - worker.memory > self.settings.recycle_growth_mib << 10:
            return f"it has grown by {(ended.memory - worker.memory) >> 10} MiB"
        return "its code is old" if self._is_old(worker) else ""

    def _is_old(self, worker: Worker) -> bool:
        return self.server is not None and worker.server is not self.server

    def _make_idle(self, worker: Worker) -> None:
        if worker.leaving or self._is_old(worker):
            return self.dismiss(worker, worker.leaving or "its code is old")
        worker.idle_since = monotonic()
        self._idle.append(worker)
        # One deadline for its whole life, put off when it comes: a busy worker is idle thousands of times.
        if worker.idle_check is None:
            worker.idle_check = self._timers.after(self.settings.idle_worker, lambda: self._idle_too_long(worker))

    def _idle_too_long(self, worker: Worker) -> None:
        rest = worker.idle_since + self.settings.idle_worker - monotonic()
        if worker in self._idle and rest <= 0:
            self.dismiss(worker, "there is nothing to do")
        else:
            rest = rest if rest > 0 else self.settings.idle_worker
            worker.idle_check = self._timers.after(rest, lambda: self._idle_too_long(worker))

    def dismiss(self, worker: Worker, reason: str) -> None:
        """Let a worker leave: it sees the end of its socket. One that doesn't is killed."""
        if worker.pid is None:
            # Its fork server may be gone before it tells the pid. If it is born yet, it finds its socket closed.
            return self._forget(worker)
        worker.leaving = reason
        if worker in self._idle:
            self._idle.remove(worker)
        with suppress(OSError):
            worker.channel.shutdown(socket.SHUT_RDWR)
        self._timers.cancel(worker.deadline)
        worker.deadline = self._timers.after(HELLO_WITHIN, lambda: self._kill(worker))

    def dismiss_idle(self) -> None:
        """Let all idle workers leave, and the others after their run."""
        self._companions.clear()
        for worker in list(self._all.values()):
            if worker.live is not None:
                worker.leaving = "the daemon stops"
            elif not worker.hears:  # the sender leaves when its errands are done
                self.dismiss(worker, "the daemon stops")

    def renew(self, server: ForkServer, companions: Sequence[str]) -> None:
        """From now on workers come from this fork server; those with old code leave, if need be after their run."""
        old, self._companions = self._companions, dict.fromkeys(companions)
        self.server, self._stillborn = server, 0
        self._timers.cancel(self._pause)  # what went wrong before was not this one's fault
        for worker in [w for w in self._all.values() if w.server is not server]:
            if worker.pid is None or worker in self._idle or worker in old.values():
                self.dismiss(worker, "its code is old")
        for name in companions:
            self._bear_companion(name)

    def _bear_companion(self, name: str) -> None:
        """See to it that a companion is there. Where there is no fork server, the next one brings it."""
        wanted = name in self._companions and self._companions[name] is None
        if not wanted or self.server is None or not self.server.ready:
            return
        try:
            worker = self._bear(self.server, name)
        except OSError as error:  # there are no descriptors left
            self._listener.no_worker(str(error))
            self._timers.after(COMPANION_PAUSE, lambda: self._bear_companion(name))
            return
        if worker.serial in self._all:
            self._companions[name] = worker

    def kill_all(self) -> None:
        for worker in list(self._all.values()):
            self._kill(worker)

    # What workers write

    def _on_output(self, worker: Worker) -> None:
        if not self._read_output(worker):
            self._selector.unregister(worker.pipe)

    def _read_output(self, worker: Worker) -> bool:
        """Read what there is, up to a limit. False at the end."""
        for _ in range(MOST_READ):
            try:
                data = os.read(worker.pipe, READ_SIZE)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            if worker.live and worker.output:
                if lines := worker.output.feed(data):
                    self._listener.run_wrote(worker.live, lines)
            else:
                self._listener.worker_wrote(data.decode(errors="replace"))
            if len(data) < READ_SIZE:
                return True
        return True

    # How workers end

    def reap(self, known: Callable[[int, int], bool]) -> None:
        """Bury all children that have ended. `known` is asked first: it may be the fork server."""
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if info is None:
                return
            pid = info.si_pid
            worker = self._by_pid.get(pid)
            if worker is not None:
                self._last_words(worker)
            _pid, status = os.waitpid(pid, 0)
            if worker is not None:
                self._ended(worker, status)
            elif not known(pid, status):
                self._keep_status(pid, status)

    def _last_words(self, worker: Worker) -> None:
        """Before its pid is given to another: take its last message, end what it leaves in its group."""
        self._hear_all(worker)
        self._signal(worker, signal.SIGKILL)

    def _ended(self, worker: Worker, status: int) -> None:
        if live := worker.live:
            worker.leaving = worker.leaving or "it has ended"
            worker.ended = Ended(run=live.run.id, outcome=Outcome.CRASHED, reason=how_it_ended(status))
            self._close_run(worker)
        elif not worker.ready and not worker.leaving:
            self._birth_failed()
        self._forget(worker)

    def _keep_status(self, pid: int, status: int) -> None:
        """Of a worker that nobody has told us of yet, or of a process that a task left behind."""
        self._statuses[pid] = status
        while len(self._statuses) > KEPT_STATUSES:
            del self._statuses[next(iter(self._statuses))]

    def _end_escaped(self, worker: Worker) -> None:
        """Kill what a run that we ended has started and hidden in sessions of their own."""
        if worker.live is None or worker.live.verdict is None:
            return
        mine = f"LINOD_RUN={worker.live.run.id}\0".encode()
        for pid in {*worker.members(), *self._adopted(worker, mine)}:
            send_signal(pid, signal.SIGKILL)

    def _adopted(self, worker: Worker, mark: bytes) -> list[int]:
        """Our children that come from a run: they have its mark in their environment, or write into its pipe."""
        pipe = os.fstat(worker.pipe).st_ino
        ours = set(self._by_pid)
        return [
            pid
            for pid in children(os.getpid())
            if pid not in ours and pid != worker.server.pid and (has_mark(pid, mark) or writes_to(pid, pipe))
        ]

    def _forget(self, worker: Worker) -> None:
        """Close what we hold of it."""
        if self._all.pop(worker.serial, None) is None:
            return
        self._unborn.discard(worker.serial)
        if self._companions.get(worker.companion) is worker:
            self._companions[worker.companion] = None
            self._timers.after(COMPANION_PAUSE, lambda: self._bear_companion(worker.companion))
        if worker.pid is not None:
            self._by_pid.pop(worker.pid, None)
        if worker in self._idle:
            self._idle.remove(worker)
        self._timers.cancel(worker.deadline)
        self._timers.cancel(worker.idle_check)
        for end in (worker.channel, worker.pipe):
            with suppress(KeyError, ValueError):
                self._selector.unregister(end)
        worker.channel.close()
        os.close(worker.pipe)
        if worker.hears:
            worker.hears(None)
