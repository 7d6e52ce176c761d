"""What is measured: each function starts a peer on a site of its own, looks, and returns its figures."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from .peers import Peer
from .sites import Mark, Site, Spec, daily, sleep_until, soon

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Measure:
    """`quiet`: it needs so little of the machine that all peers can be measured at the same time."""

    name: str
    take: Callable[[Peer], Figures]
    repeat: int = 1
    quiet: bool = False


def lateness(peer: Peer, tasks: int = 50, warm_up: int = 3, seconds: int = 20) -> Figures:
    """Fifty tasks, each every second: when they start, against when they were due."""
    first = soon(peer.lead + tasks * peer.lead_per_task)
    with peer.site([Spec(name=f"task{i}", every=1, first=first) for i in range(tasks)]) as site:
        peer.start(site)
        begin, end = first + warm_up, first + warm_up + seconds
        sleep_until(end + 2)
        pairs = due_and_marks(peer, site)
    late = [1000 * (mark.at - due) for due, mark in pairs if begin <= due < end]
    return {
        "p50_ms": quantile(late, 0.5),
        "p99_ms": quantile(late, 0.99),
        "max_ms": max(late, default=None),
        "own_grid_p99_ms": quantile(against_first(pairs, begin, end), 0.99),
        "missing": tasks * seconds - len(late),
    }


def due_and_marks(peer: Peer, site: Site) -> list[tuple[float, Mark]]:
    first = site.specs[0].first
    marks = [mark for mark in site.marks() if mark.at >= first]
    return list(zip(peer.due_times(site, marks), marks, strict=True))


def against_first(pairs: list[tuple[float, Mark]], begin: float, end: float) -> list[float]:
    """How far starts are from the grid that each task's own first start sets, in milliseconds."""
    offset: dict[str, float] = {}
    late = []
    for due, mark in pairs:
        if begin <= due < end:
            own = offset.setdefault(mark.task, mark.at - due)
            late.append(1000 * abs(mark.at - due - own))
    return late


def slow_neighbours(number: int) -> Callable[[Peer], Figures]:
    def gap(peer: Peer) -> Figures:
        """Tasks of 15 seconds beside one that is due every second: its longest silence."""
        first = soon(peer.lead)
        slow = [Spec(name=f"slow{i}", first=first + 3, sleep=15) for i in range(number)]
        with peer.site([Spec(name="fast", every=1, first=first), *slow]) as site:
            peer.start(site)
            sleep_until(first + 22)
            end = time.time()
            marks = site.marks()
        fast = [mark.at for mark in marks if mark.task == "fast" and mark.at > first]
        gaps = [later - earlier for earlier, later in zip(fast, [*fast[1:], end], strict=True)]
        return {"gap_s": max(gaps, default=None), "slow_started": sum(mark.task != "fast" for mark in marks)}

    return gap


def idle(peer: Peer, seconds: int = 60) -> Figures:
    """Two tasks every ten seconds and four daily ones, and the four alone: who is woken how often."""
    every_ten = [Spec(name=f"ten{i}", every=10) for i in range(2)]
    with peer.site([*every_ten, *daily(4)]) as busy, peer.site(daily(4)) as asleep:
        for site in (busy, asleep):
            peer.start(site)
        busy.wait_for("ten0")
        busy.wait_for("ten1")
        time.sleep(8)
        before = [(site.wakeups(), site.cpu(), len(site.marks())) for site in (busy, asleep)]
        time.sleep(seconds)
        after = [(site.wakeups(), site.cpu(), len(site.marks())) for site in (busy, asleep)]
    minute = 60 / seconds
    woken, woken_asleep = (by_role(later[0], earlier[0]) for earlier, later in zip(before, after, strict=True))
    runs = after[0][2] - before[0][2]
    return {
        "wakeups": woken.total() * minute,
        "wakeups_asleep": woken_asleep.total() * minute,
        "wakeups_per_run": (woken.total() - woken_asleep.total()) / runs if runs else None,
        "cpu_ms": 1000 * (after[0][1] - before[0][1]) * minute,
        "runs": runs * minute,
        **{f"wakeups of {role}": count * minute for role, count in woken.items()},
    }


def by_role(after: dict[tuple[str, str], int], before: dict[tuple[str, str], int]) -> Counter[str]:
    """Wake-ups of the threads that were there all the time."""
    woken: Counter[str] = Counter()
    for (role, thread), count in after.items():
        if (role, thread) in before:
            woken[role] += count - before[role, thread]
    return woken


def memory(peer: Peer) -> Figures:
    """Two tasks every ten seconds and four daily ones, after each of the two has run twice."""
    with peer.site([*(Spec(name=f"ten{i}", every=10) for i in range(2)), *daily(4)]) as site:
        first = peer.start(site)
        deadline = time.monotonic() + 45
        while min(Counter({"ten0": 0, "ten1": 0} | Counter(m.task for m in site.marks())).values()) < 2:
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        time.sleep(1)
        pss = {process.pid: process.pss() for process in site.processes()}
    return {"pss_mib": sum(pss.values()), "first_mib": pss.get(first), "processes": len(pss)}


def dispatch(peer: Peer, tasks: int = 2000) -> Figures:
    """Two thousand tasks that are due at the same instant and do next to nothing."""
    due = soon(peer.lead + tasks * 2 * peer.lead_per_task)
    with peer.site([Spec(name=f"task{i}", first=due) for i in range(tasks)]) as site:
        peer.start(site)
        sleep_until(due)
        while len(at := [mark.at for mark in site.marks()]) < tasks and time.time() < due + 20:
            time.sleep(0.2)
    return {
        "started": len(at),
        "early": sum(instant < due for instant in at),
        "first_ms": 1000 * (at[0] - due) if at else None,
        "all_ms": 1000 * (at[-1] - due) if at else None,
        "per_s": len(at) / (at[-1] - due) if at else None,
        "between_per_s": len(at) / (at[-1] - at[0]) if len(at) > 1 else None,
    }


def turn(peer: Peer, seconds: int = 30) -> Figures:
    """One task every second beside a hundred daily ones, and beside ten thousand: CPU for each run."""
    cost = {number: cpu_per_run(peer, number, seconds) for number in (100, 10_000)}
    few, many = cost[100], cost[10_000]
    return {"few_ms": few, "many_ms": many, "ratio": many / few if few and many else None}


def cpu_per_run(peer: Peer, others: int, seconds: int) -> float | None:
    with peer.site([Spec(name="tick", every=1), *daily(others)]) as site:
        peer.start(site)
        site.wait_for("tick")
        time.sleep(5)
        cpu, marks = site.cpu(), len(site.marks())
        time.sleep(seconds)
        cpu, marks = site.cpu() - cpu, len(site.marks()) - marks
    return 1000 * cpu / marks if marks else None


def start_up(peer: Peer, rounds: int = 7) -> Figures:
    """From exec to the first start of a task that is due at once, beside a bare django.setup()."""
    bare = "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'project.settings'; import django; django.setup();"
    bare += "from work.functions import FUNCTIONS; FUNCTIONS['first']()"
    took: dict[str, list[float]] = {"bare": [], "peer": []}
    with peer.site([Spec(name="first"), *daily(4)]) as site:
        for number in range(rounds):
            for kind in took:
                if number or kind == "peer":
                    peer.rewind(site)
                site.forget_marks()
                began = time.time()
                site.spawn("-c", bare) if kind == "bare" else peer.start(site)
                started = site.wait_for("first", 30)
                site.end()
                if number and started:  # the first round only writes the byte code
                    took[kind].append(started - began)
    ours, theirs = (statistics.median(took[kind]) if took[kind] else None for kind in ("peer", "bare"))
    return {
        "first_start_ms": ours and 1000 * ours,
        "bare_ms": theirs and 1000 * theirs,
        "more_percent": 100 * (ours / theirs - 1) if ours and theirs else None,
    }


def quantile(values: list[float], part: float) -> float | None:
    values = sorted(values)
    return values[math.ceil(part * len(values)) - 1] if values else None


MEASURES = [
    Measure("start-up", start_up),
    Measure("memory", memory),
    Measure("lateness", lateness, repeat=3),
    Measure("dispatch", dispatch, repeat=3),
    Measure("one-slow", slow_neighbours(1), quiet=True),
    Measure("twelve-slow", slow_neighbours(12), quiet=True),
    Measure("turn", turn, quiet=True),
    Measure("idle", idle, quiet=True),
]
