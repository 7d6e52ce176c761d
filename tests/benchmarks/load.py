"""Many tasks for a long time: `python -m tests.benchmarks.load`, by default ten thousand, two hundred due each second.

Nothing may be missed: each due time of each task is computed anew from its schedule, and must be in history as a run of
its own that has succeeded. And the memory of the daemon must stay what it was.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from linod.archive import FILE, Archive, connect_read_only
from linod.instants import from_micros, to_micros
from linod.schedules import Schedule
from linod.task import Task

from .measures import quantile
from .peers import PEERS
from .processes import Process
from .sites import Site, Spec, sleep_until

START_WITHIN = 120.0  # seconds for all tasks to be known
END_WITHIN = 30.0  # seconds after the last due time for its run to be over
SHOWN = 10  # of the due times that were missed
TOLERATED_MIB = 2.0  # of growth: what an allocator keeps, and pages that it comes to use


@dataclass(frozen=True, kw_only=True)
class Look:
    """What there was at one moment."""

    minute: float
    daemon_mib: float
    all_mib: float
    processes: int
    load: float  # of the machine

    def __str__(self) -> str:
        return (
            f"minute {self.minute:4.1f}: daemon {self.daemon_mib:.1f} MiB, all {self.processes} processes"
            f" {self.all_mib:.1f} MiB; load of the machine {self.load:.1f}"
        )


@dataclass(frozen=True, kw_only=True)
class Account:
    """What has become of all due times of some minutes."""

    due: int
    outcomes: Counter[str]  # of those that have a run of their own
    missed: list[str]  # the due times without a run that has succeeded
    unplanned: int  # runs for what was not due


def main() -> None:
    options = read_arguments()
    # A context is left, and its site ended, also when we are told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peer = PEERS["linod"]
    every = options.tasks / options.rate
    if not every.is_integer():
        sys.exit(
            f"{options.tasks} tasks cannot be due {options.rate} times a second: each would run every {every:g} s."
        )
    with peer.site([Spec(name=f"task{number}", every=int(every)) for number in range(options.tasks)]) as site:
        daemon = Process(peer.start(site))
        wait_for(site, "Next: ")
        begin = datetime.now(UTC).timestamp() + every  # once each, for all to be as warm as it will be
        sleep_until(begin)
        cpu, wakeups = daemon.cpu(), of_loop(daemon)
        looks = list(look_around(site, daemon, begin, options.minutes))
        cpu, wakeups = daemon.cpu() - cpu, of_loop(daemon) - wakeups
        end = begin + 60 * options.minutes
        wait_for_the_last(site, end)
        site.end()
        sys.exit(report(site, options, (begin, end), looks, cpu, wakeups))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (10)")
    parser.add_argument("--tasks", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--rate", type=int, default=200, help="how many of them are due each second (200)")
    return parser.parse_args()


# While it runs


def wait_for(site: Site, words: str) -> None:
    deadline = time.monotonic() + START_WITHIN
    while words not in site.log():
        if time.monotonic() > deadline:
            sys.exit(f"It has not started within {START_WITHIN:g} s:\n{site.log()[-2000:]}")
        time.sleep(0.1)


def look_around(site: Site, daemon: Process, begin: float, minutes: float) -> Iterator[Look]:
    """Look each minute, at the beginning, and at the end."""
    for minute in [*range(math.ceil(minutes)), minutes]:
        sleep_until(begin + 60 * minute)
        pss = [process.pss() for process in site.processes()]
        look = Look(
            minute=minute,
            daemon_mib=daemon.pss(),
            all_mib=sum(pss),
            processes=len(pss),
            load=os.getloadavg()[0],
        )
        print(look, flush=True)
        yield look


def of_loop(daemon: Process) -> int:
    """How often the daemon's loop has been woken; its other threads don't count."""
    return daemon.wakeups().get(f"{daemon.pid}/{daemon.pid}", 0)


def wait_for_the_last(site: Site, end: float) -> None:
    """Wait until no run of what was due up to the end goes on."""
    deadline = time.monotonic() + END_WITHIN
    with Archive(site.path / ".linod") as archive:
        while time.monotonic() < deadline:
            time.sleep(0.5)
            if not any(run.due.timestamp() <= end for run in archive.unfinished()):
                return


# Afterwards


def report(
    site: Site, options: argparse.Namespace, window: tuple[float, float], looks: list[Look], cpu: float, wakeups: int
) -> int:
    """Print all figures; returns the exit code."""
    account, late = balance(site, *(datetime.fromtimestamp(instant, UTC) for instant in window))
    ran = account.outcomes.total()
    seconds = 60 * options.minutes
    daemon = [look.daemon_mib for look in looks]
    everything = [look.all_mib for look in looks]
    for label, value in {
        "tasks": f"{options.tasks:,}, {options.rate} due each second for {options.minutes:g} minutes",
        "due times": f"{account.due:,}",
        "outcomes": ", ".join(f"{count:,} {outcome}" for outcome, count in account.outcomes.items()),
        "missed": f"{len(account.missed):,}",
        "run, though not due": f"{account.unplanned:,}",
        "late": f"p50 {shown(late, 0.5)} ms, p99 {shown(late, 0.99)} ms, at most {shown(late, 1.0)} ms",
        "daemon": growth(looks, daemon),
        "all processes": growth(looks, everything),
        "CPU of the daemon": f"{1e6 * cpu / max(1, ran):.0f} µs a run, {100 * cpu / seconds:.1f} % of a processor",
        "turns": f"{wakeups / seconds:.0f} a second, each {1e6 * cpu / max(1, wakeups):.0f} µs, its history included",
        "history": f"{(site.path / '.linod' / FILE).stat().st_size / 2**20:.1f} MiB",
    }.items():
        print(f"{label + ':':20} {value}")
    if account.missed or account.unplanned:
        print("FAILED: not each due time has had its run.", *account.missed[:SHOWN], sep="\n  ")
    if leaks := max(daemon[-1] - daemon[0], 0.0) > TOLERATED_MIB:
        print(f"FAILED: the daemon has grown by more than {TOLERATED_MIB:g} MiB.")
    return int(bool(account.missed or account.unplanned or leaks))


def balance(site: Site, begin: datetime, end: datetime) -> tuple[Account, list[float]]:
    """Compare what was due with what was run, and how late each was as its task saw it, in milliseconds."""
    state = site.path / ".linod"
    with Archive(state) as archive:
        schedules = {row["id"]: Task.from_dict(json.loads(row["task"])).schedule for row in archive.tasks()}
    if len(schedules) != len(site.specs):
        sys.exit(f"History knows {len(schedules)} tasks, not {len(site.specs)}.")
    wanted = {(task, due) for task, schedule in schedules.items() for due in due_times(schedule, begin, end)}
    with closing(connect_read_only(state / FILE)) as db:
        rows = db.execute(
            "SELECT task, due, id, coalesce(outcome, 'unfinished') FROM runs WHERE due > ? AND due <= ?",
            (to_micros(begin), to_micros(end)),
        ).fetchall()
    runs = {(task, due): outcome for task, due, _id, outcome in rows}
    account = Account(
        due=len(wanted),
        outcomes=Counter(outcome for key, outcome in runs.items() if key in wanted),
        missed=[
            f"{task} at {from_micros(due)}: {runs.get((task, due), 'no run')}"
            for task, due in sorted(wanted)
            if runs.get((task, due)) != "succeeded"
        ],
        unplanned=len(rows) - len(wanted & runs.keys()),
    )
    due_of = {id: due for _task, due, id, _outcome in rows}
    return account, [1000 * mark.at - due_of[mark.run] / 1000 for mark in site.marks() if mark.run in due_of]


def due_times(schedule: Schedule, begin: datetime, end: datetime) -> Iterator[int]:
    due = schedule.next(begin)
    while due is not None and due <= end:
        yield to_micros(due)
        due = schedule.next(due)


def shown(values: list[float], part: float) -> str:
    value = quantile(values, part)
    return "-" if value is None else f"{value:.1f}"


def growth(looks: list[Look], mib: list[float]) -> str:
    slope = statistics.linear_regression([look.minute for look in looks], mib).slope
    return f"PSS {mib[0]:.1f} MiB, at the end {mib[-1]:.1f}, {1024 * slope:+.0f} KiB a minute"


if __name__ == "__main__":
    main()
