"""What really happened: the tasks of a world write it down themselves, a line at the begin and one at the end of a run.

The history is judged by it. Whether two runs were alive at the same time is asked of the kernel: each run holds a lock
on a file as long as it lives, whatever ends it.
"""

import fcntl
import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

FILE = "ledger"


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `wall` is the time of the world's clock, in seconds; `monotonic` is nobody's to set."""

    kind: str  # begin, end, or what was seen at the begin: overlap, lock
    run: int
    task: str
    pid: int
    wall: float
    monotonic: float

    def __str__(self):
        return f"{self.kind} {self.run} {self.task} {self.pid} {self.wall:.6f} {self.monotonic:.6f}"

    @classmethod
    def parse(cls, text):
        kind, run, task, pid, wall, monotonic = text.split()
        return cls(kind, int(run), task, int(pid), float(wall), float(monotonic))


class Ledger:
    """The lines of a world."""

    def __init__(self, directory):
        self.directory = Path(directory)

    # In the tasks

    @contextmanager
    def run_of(self, task, *, alone, lock):
        """Write down a run. `alone`: no other run of its task may be alive; `lock`: nor one of another with this."""
        self.write("begin", task)
        # A stack, for a SIGTERM may come at its end as well, and nothing must be held for longer than the run.
        with ExitStack() as held:
            if alone:
                held.callback(os.close, self._hold("overlap", task, task))
            if lock is not None:
                held.callback(os.close, self._hold("lock", task, f"lock {lock}"))
            held.callback(self.write, "end", task)
            yield

    def write(self, kind, task):
        line = Line(kind, int(os.environ["LINOD_RUN"]), task, os.getpid(), time.time(), time.monotonic())
        fd = os.open(self.directory / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.write(fd, f"{line}\n".encode())
        finally:
            os.close(fd)

    def _hold(self, kind, task, name):
        """Lock a file until this process closes it or ends; where another holds it, write that down."""
        fd = os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.write(kind, task)
        return fd

    # In the world and its judge

    def size(self):
        """It has grown when a run has begun or ended."""
        try:
            return (self.directory / FILE).stat().st_size
        except FileNotFoundError:
            return 0

    def lines(self):
        try:
            text = (self.directory / FILE).read_text()
        except FileNotFoundError:
            return []
        return [Line.parse(line) for line in text.splitlines()]
