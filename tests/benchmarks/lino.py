"""Measure linod beside Lino's own command, on real sites: `python -m tests.benchmarks.lino [2021] [2026]`.

Both run the same tasks on copies of the same site, one after the other.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ..support.lino import KINDS, LinoSite
from ..support.site import until
from .processes import Process, kill_all_in, processes_in

STARTS = 5
SETTLED = 30.0  # seconds: all that is to be run at the start has been run
LOOK = 60.0  # seconds in which nothing but a task every ten seconds is run
SAYS_READY = {"linod": "tasks. Next:", "2021": "6 scheduled jobs:", "2026": "Start task runner"}
FIGURES = {
    "start_s": ("exec until tasks are run, s", 1),
    "pss_mib": ("PSS of all processes, MiB", 0),
    "worker_mib": ("… of each worker", 0),
    "cpu_ms": ("idle: CPU ms a minute", 0),
}


def main() -> None:
    # A context is left, and its site ended, also when we are told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("| Lino | | linod | its own command |\n|---|---|---:|---:|", flush=True)
    for kind in sys.argv[1:] or KINDS:
        ours, theirs = (measure(kind, who) for who in ("linod", "original"))
        for figure, (words, digits) in FIGURES.items():
            print(f"| {kind} | {words} | {shown(ours, figure, digits)} | {shown(theirs, figure, digits)} |", flush=True)


def shown(figures: dict[str, float], figure: str, digits: int) -> str:
    return f"{figures[figure]:.{digits}f}" if figure in figures else "-"


def measure(kind: str, who: str) -> dict[str, float]:
    """Start one of them on a site of its own, look, and end it."""
    with tempfile.TemporaryDirectory() as directory:
        site = LinoSite(directory, kind)
        said = Path(directory, "said")
        try:
            # The first start only writes the byte code.
            _first, *starts = [run(site, who, said, until_ready=True) for _ in range(1 + STARTS)]
            figures = {"start_s": statistics.median(starts)}
            run(site, who, said, until_ready=False)
            time.sleep(SETTLED)
            before = cpu(processes_in(site.path))
            time.sleep(LOOK)
            processes = processes_in(site.path)
            figures["cpu_ms"] = 1000 * (cpu(processes) - before) * 60 / LOOK
            figures["pss_mib"] = sum(process.pss() for process in processes)
            if workers := [process.pss() for process in processes if process.role() == "workers"]:
                figures["worker_mib"] = sum(workers) / len(workers)
            return figures
        finally:
            kill_all_in(site.path)


def run(site: Any, who: str, said: Path, *, until_ready: bool) -> float:
    """Start it; returns the seconds until it says that tasks are run. `until_ready`: then end it."""
    command = ["-m", "linod"] if who == "linod" else ["manage.py", "linod"]
    path = site.environment["PYTHONPATH"] if who == "linod" else ""
    environment = site.environment | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""}
    words = SAYS_READY["linod" if who == "linod" else site.kind]
    (site.path / "log/lino.log").write_text("")
    with said.open("w") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            [str(site.path / "env/bin/python"), *command],
            cwd=site.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    until(lambda: words in said.read_text() + site.log or process.poll() is not None, 120, "a start")
    took = time.monotonic() - began
    if until_ready:
        process.terminate()
        process.wait(60)
        kill_all_in(site.path)
    return took


def cpu(processes: list[Process]) -> float:
    return sum(process.cpu() for process in processes)


if __name__ == "__main__":
    main()
