"""Processes that run the tasks of a site by Lino's own command, which takes no lock: found, and ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import LinodError
from ..linux import birth, descendants, has_locked, processes
from ..originals import runs_tasks_of
from ..state import OWN
from .footing import opened

TERM_PATIENCE = 90.0  # seconds; a daemon of ours may drain, Lino's own ends at once
KILL_PATIENCE = 10.0
PAUSE = 0.05
MOST_ROUNDS = 10  # of ending all that is found

Process = tuple[int, int | None]  # pid and birth: for ever one process


def find(directory: Path, states: Iterable[Path] = ()) -> list[int]:
    """Processes that run its tasks, those of our own command among them."""
    found = [pid for pid in processes() if runs_tasks_of(pid, directory)]
    holders = [holder_of(state) for state in (directory / OWN, *states)]
    return sorted({*found, *filter(None, holders)})


def holder_of(state: Path) -> int | None:
    """The process that has locked a state directory, and not only one whose pid somebody has written there."""
    from ..daemon.lock import open_to_look, read_holder

    try:
        with opened(state) as place:  # not where a link of the site's user leads to the state of another's site
            fd = open_to_look(Path(f"/proc/self/fd/{place}"))
    except LinodError:
        return None
    if fd is None:
        return None
    try:
        pid = read_holder(fd)[0]
        return pid if has_locked(pid, os.fstat(fd)) else None
    except OSError:
        return None  # it has ended, or that is no file
    finally:
        os.close(fd)


def end_all(directory: Path, states: Iterable[Path]) -> list[int]:
    """End all of them and what is below them. Returns their pids; raises LinodError if one does not end."""
    ended: list[int] = []
    for _ in range(MOST_ROUNDS):
        if not (pids := find(directory, states)):
            return ended
        for pid in pids:
            end((pid, birth(pid)), [(one, birth(one)) for one in descendants(pid)])
        ended += pids
    raise LinodError(f"The tasks of this site are run anew each time they were ended, last by process {ended[-1]}.")


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
