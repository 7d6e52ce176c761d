"""Processes that run the tasks of a site by Lino's own command, which takes no lock: found, and ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import LinodError
from ..linux import birth, descendants, processes
from ..sites import is_same_file
from ..state import OWN
from .survey import who_runs

MANAGE, COMMAND = "manage.py", "linod"
TERM_PATIENCE = 90.0  # seconds; a daemon of ours may drain, Lino's own ends at once
KILL_PATIENCE = 10.0
PAUSE = 0.05

Process = tuple[int, int | None]  # pid and birth: for ever one process


def runs_tasks_of(pid: int, directory: Path) -> bool:
    """Whether a process was started as `manage.py linod` of the site in a directory, wherever it works."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
        place = next((i for i, word in enumerate(words) if os.path.basename(word) == MANAGE), None)
        if place is None or COMMAND not in words[place + 1 :]:
            return False
        at_home = os.path.join(f"/proc/{pid}/cwd", os.path.dirname(words[place]))
        return is_same_file(Path(at_home), directory)
    except OSError:
        return False  # it has ended, or is not for us to see


def find(directory: Path, states: Iterable[Path] = ()) -> list[int]:
    """Processes that run its tasks, those of our own command among them."""
    found = [pid for pid in processes() if runs_tasks_of(pid, directory)]
    holders = [who_runs(state)[0] for state in (directory / OWN, *states)]
    return sorted({*found, *(pid for pid in holders if pid)})


def end_all(directory: Path, states: Iterable[Path]) -> list[int]:
    """End all of them and what is below them. Returns their pids; raises LinodError if one does not end."""
    ended: list[int] = []
    while pids := find(directory, states):
        for pid in pids:
            end((pid, birth(pid)), [(one, birth(one)) for one in descendants(pid)])
        ended += pids
    return ended


def end(process: Process, below: list[Process]) -> None:
    """End a process politely: it may take what is below it along. What then remains has less time."""
    send([process], signal.SIGTERM)
    wait([process], TERM_PATIENCE)
    everything = [process, *below]
    for number in (signal.SIGTERM, signal.SIGKILL):
        send(everything, number)
        if wait(everything, KILL_PATIENCE):
            return
    raise LinodError(f"Process {process[0]} runs the tasks of this site, and cannot be ended.")


def wait(some: list[Process], patience: float) -> bool:
    """Wait until all of them have ended; False where that takes too long."""
    deadline = time.monotonic() + patience
    while any(map(is_alive, some)):
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE)
    return True


def send(some: list[Process], number: int) -> None:
    """Signal these very processes, and never one that has got a pid of theirs since."""
    for process in filter(is_alive, some):
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(process[0])
            try:
                if is_alive(process):
                    signal.pidfd_send_signal(fd, number)
            finally:
                os.close(fd)


def is_alive(process: Process) -> bool:
    pid, born = process
    if born is None or birth(pid) != born:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
