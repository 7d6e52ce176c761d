"""What the processes of a site cost, read from /proc: no cgroup and no root is needed for it.

They are found by their working directory. Each site has one of its own, and no peer leaves it.
"""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
ROLES = {"linod": "daemon", "linod-forkserve": "fork server", "linod-worker": "workers"}


@dataclass(frozen=True)
class Process:
    pid: int

    def role(self) -> str:
        """What it is to linod; for a peer just the name of its program."""
        name = self._read("comm").strip()
        return ROLES.get(name, name)

    def pss(self) -> float:
        """Its part of the memory, shared pages divided among those that share them, in MiB."""
        match = re.search(r"^Pss:\s+(\d+)", self._read("smaps_rollup"), re.MULTILINE)
        return int(match[1]) / 1024 if match else 0.0

    def cpu(self) -> float:
        """Seconds of CPU used so far by its threads and by those of its children that were reaped."""
        own = sum(int(text.split()[0]) for text in self._of_threads("schedstat").values())
        stat = self._read("stat").rpartition(")")[2].split()
        return own / 1e9 + (int(stat[13]) + int(stat[14])) / TICK if stat else 0.0

    def wakeups(self) -> dict[str, int]:
        """How often each of its threads went to sleep of its own accord, and so was woken."""
        counter = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)
        found = {thread: counter.search(text) for thread, text in self._of_threads("status").items()}
        return {f"{self.pid}/{thread}": int(match[1]) for thread, match in found.items() if match}

    def _of_threads(self, file: str) -> dict[str, str]:
        with suppress(OSError):
            return {thread: self._read(f"task/{thread}/{file}") for thread in os.listdir(f"/proc/{self.pid}/task")}
        return {}

    def _read(self, file: str) -> str:
        try:
            return Path(f"/proc/{self.pid}/{file}").read_text()
        except OSError:
            return ""  # it has just ended


def processes_in(directory: Path) -> list[Process]:
    """All processes that work in a directory."""
    return [Process(int(name)) for name in os.listdir("/proc") if name.isdecimal() and works_in(name, directory)]


def works_in(pid: str, directory: Path) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/cwd") == str(directory)
    except OSError:
        return False  # ended, or somebody else's


def kill_all_in(directory: Path, patience: float = 10.0) -> None:
    """Kill what works in a directory until nothing does."""
    deadline = time.monotonic() + patience
    while (left := processes_in(directory)) and time.monotonic() < deadline:
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.05)
