"""A worker: runs one task at a time, tells the daemon how each ended, and leaves when it is told to or worn out."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import time
import traceback
from pathlib import Path
from typing import NoReturn

from ..launch import Place
from ..linux import adopt_orphans, die_with_parent, name_process
from ..progress import listen
from ..runs import Outcome
from ..wire import SENDER, Begin, Ended, Hello, Progress, receive, send
from . import hygiene, lino, output
from .call import Result, TerminableCaller
from .load import Site

LONGEST_ADOPTION = 5.0  # seconds until the daemon is our parent
PROGRESS_PAUSE = 0.2  # seconds between two progress messages
LONGEST_PROGRESS = 500  # characters
KILLED_BEFORE_OTHERS = 200  # added to the score by which the kernel chooses whom to kill when memory is short
CHANNEL, LOCK = 3, 4  # descriptors of a worker that was executed
RUN_VARIABLES = ("LINOD_RUN", "LINOD_TASK")  # what a task, and all that it starts, find in their environment
PAGE = os.sysconf("SC_PAGE_SIZE") // 1024


class Worker:
    """One process that runs tasks."""

    def __init__(self, channel: socket.socket, site: Site) -> None:
        self.channel, self.site = channel, site
        self.title = f"linod@{site.name}: worker"
        name_process("linod-worker", self.title)
        self.caller = TerminableCaller()
        self.surroundings = hygiene.Surroundings()
        self.run = 0
        self.last_progress = 0.0
        self._memory = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        listen(self.tell_progress)

    def work(self) -> None:
        """Say hello, then run what the daemon sends until one of us has had enough."""
        try:
            send(self.channel, Hello(pid=os.getpid(), memory=self.memory()))
        except OSError:
            return  # the daemon has changed its mind
        while isinstance(message := receive(self.channel), Begin):
            ended = self.perform(message)
            send(self.channel, ended)
            if ended.retire:
                return

    def perform(self, begin: Begin) -> Ended:
        """Run one task and put the process back in order."""
        declaration = self.site.find(begin.task)
        if declaration is None:
            return Ended(run=begin.run, outcome=Outcome.FAILED, reason=f"The site declares no task {begin.task!r}.")
        self.run, self.last_progress = begin.run, 0.0
        name_process(declaration.task.label, f"linod@{self.site.name}: {declaration.task.label}")
        os.environ.update(zip(RUN_VARIABLES, (str(begin.run), declaration.task.label), strict=True))
        hygiene.meet_connections()
        result = self.caller.call(declaration.function)
        output.flush()
        for name in RUN_VARIABLES:
            os.environ.pop(name, None)
        retire = "it was terminated" if self.caller.terminated else self.surroundings.restore()
        name_process("linod-worker", self.title)
        return self.ended(begin, result, retire)

    def ended(self, begin: Begin, result: Result, retire: str) -> Ended:
        return Ended(
            run=begin.run,
            outcome=result.outcome,
            reason=result.reason,
            traceback=result.traceback,
            cpu=result.cpu,
            peak_memory=result.peak_memory,
            memory=self.memory(),
            retire=retire,
        )

    def memory(self) -> int:
        """KiB resident now."""
        return int(os.pread(self._memory, 200, 0).split()[1]) * PAGE

    def tell_progress(self, done: float, total: float | None, text: str) -> None:
        """Send progress on, but not more often than anybody can read it; a busy socket may drop it."""
        now = time.monotonic()
        if now - self.last_progress < PROGRESS_PAUSE and done != total:
            return
        self.last_progress = now
        message = Progress(
            run=self.run,
            done=float(done),
            total=None if total is None else float(total),
            text=str(text)[:LONGEST_PROGRESS],
        )
        try:
            send(self.channel, message)
        except OSError:
            pass  # the daemon is gone, and this process will follow it


def start_forked(fds: list[int], site: Site, place: Place, daemon: int, companion: str) -> NoReturn:
    """Become a worker, or a companion of the site, in a process that the fork server has just forked."""
    try:
        channel, pipe, lock = fds
        wait_for_adoption(daemon)
        os.setsid()
        if not site.settings.fork_server:
            execute(place, channel, pipe, lock, companion)
        output.redirect(pipe)
        os.close(pipe)
        work(socket.socket(fileno=channel), site, place, companion)
    except BaseException:
        leave_with_traceback()


def start_loaded(channel: socket.socket, site: Site, place: Place, companion: str) -> NoReturn:
    """Become the same in a process that was executed and has loaded the site itself."""
    try:
        os.set_inheritable(LOCK, False)
        output.redirect(1)
        work(channel, site, place, companion)
    except BaseException:
        leave_with_traceback()


def work(channel: socket.socket, site: Site, place: Place, companion: str) -> NoReturn:
    reset_signals()
    faulthandler.enable(2)
    offer_as_victim()
    adopt_orphans()  # what a task starts stays below its worker, so that a timeout finds it
    if companion == SENDER:
        from .sender import send_for

        send_for(channel, site)
    elif companion:
        lino.accompany(companion, channel, site, Path(place.directory))
    else:
        output.catch_log_records()
        Worker(channel, site).work()
    output.flush()
    # Not sys.exit: what the site registered with atexit belongs to the process that loaded it.
    os._exit(0)


def execute(place: Place, channel: int, pipe: int, lock: int, companion: str) -> NoReturn:
    """Start a worker that loads the site anew, for a site that cannot be forked."""
    # Moved out of the way first: one may sit where another shall go.
    high = [os.dup(fd) for fd in (channel, lock, pipe)]
    for fd, target in zip(high, (CHANNEL, LOCK, 1), strict=True):
        os.dup2(fd, target)
    os.dup2(1, 2)
    command = place.command(companion or "worker")
    os.execv(command[0], command)


def wait_for_adoption(daemon: int) -> None:
    """Wait until the process in between has ended and the daemon is our parent."""
    deadline = time.monotonic() + LONGEST_ADOPTION
    while os.getppid() != daemon:
        if time.monotonic() > deadline:
            os._exit(1)
        time.sleep(0.0002)
    die_with_parent(daemon)


def reset_signals() -> None:
    """Forget the handlers that the site or Python set for another kind of process."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def offer_as_victim() -> None:
    """When memory is short, the kernel shall end a worker rather than the daemon."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(KILLED_BEFORE_OTHERS))
    except OSError:
        pass  # not everywhere allowed, and only a preference


def leave_with_traceback() -> NoReturn:
    traceback.print_exc()
    output.flush()
    os._exit(1)
