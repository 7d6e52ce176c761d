"""The figures of all peers in one table, with linod's beside their targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ByPeer = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One line: a figure, and what linod's shall be, given those of all."""

    measure: str
    figure: str
    label: str
    digits: int = 1
    target: str = ""
    met: Callable[[ByPeer], bool] | None = None


def less(limit: float) -> Callable[[ByPeer], bool]:
    return lambda values: values["linod"] < limit


ROWS = [
    Row("lateness", "p50_ms", "50 tasks every second: late p50 ms", 1),
    Row("lateness", "p99_ms", "… p99 ms", 1, "< 5", less(5)),
    Row("lateness", "max_ms", "… max ms", 1),
    Row("lateness", "own_grid_p99_ms", "… p99 ms from the grid of the first start", 1),
    Row("lateness", "missing", "… starts missing", 0, "0", less(1)),
    Row("one-slow", "gap_s", "one task of 15 s: gap of a one-second task, s", 2, "< 1.1", less(1.1)),
    Row("twelve-slow", "gap_s", "twelve tasks of 15 s: gap, s", 2, "< 1.1", less(1.1)),
    Row("twelve-slow", "slow_started", "… of them started", 0, "12", lambda values: values["linod"] == 12),
    Row("idle", "wakeups", "six tasks: wake-ups a minute", 0),
    Row("idle", "wakeups_per_run", "… for each run", 1),
    Row("idle", "wakeups_asleep", "nothing due: wake-ups a minute", 0, "0", less(0.5)),
    Row("idle", "cpu_ms", "six tasks: CPU ms a minute", 0),
    Row(
        "memory",
        "pss_mib",
        "six tasks: PSS of all processes, MiB",
        1,
        "≤ 1.5 original",
        lambda values: values["linod"] <= 1.5 * values["original"],
    ),
    Row("memory", "first_mib", "… of the first process (linod: the daemon)", 1, "< 16", less(16)),
    Row(
        "dispatch",
        "per_s",
        "2,000 tasks due at once: runs a second, from the due time to the last start",
        0,
        "> aps-process",
        lambda values: values["linod"] > values["aps-process"],
    ),
    Row("dispatch", "between_per_s", "… from the first start to the last", 0),
    Row("dispatch", "first_ms", "… first start, ms", 1),
    Row("dispatch", "all_ms", "… last start, ms", 0),
    Row("dispatch", "started", "… started", 0, "2000", lambda values: values["linod"] == 2000),
    Row("turn", "few_ms", "100 tasks: CPU ms a run", 2),
    Row("turn", "many_ms", "10,000 tasks: CPU ms a run", 2),
    Row("turn", "ratio", "… ratio", 2, "about 1", less(1.2)),
    Row("start-up", "first_start_ms", "start-up: exec to first start, ms", 0),
    Row("start-up", "bare_ms", "… bare django.setup(), ms", 0),
    Row("start-up", "more_percent", "… more than that, %", 0, "≤ 20", less(20.5)),
]
NOTES = """
Medians. linod keeps its history; its due times are those of its history, with spread phases, and those of the peers
are on whole seconds. Huey's own scheduler knows minutes only: what is due more often is enqueued by a ticker on the
same grid, whose cost is not counted. Where nothing is due, a wake-up is due to nothing but the peer itself.
Wake-ups are voluntary context switches of threads that lived all the time.
"""


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table of the medians, and how linod's wake-ups are divided."""
    peers = list(dict.fromkeys(result["peer"] for result in results))
    lines = [f"| | {' | '.join(peers)} | target for linod | |", "|---|" + "---:|" * len(peers) + "---|---|"]
    for row in ROWS:
        values = medians(results, row.measure, row.figure)
        if values:
            cells = [number(values.get(peer), row.digits) for peer in peers]
            lines.append(f"| {row.label} | {' | '.join(cells)} | {row.target} | {verdict(row, values)} |")
    return "\n".join([*lines, NOTES, *wakeups_of_linod(results)])


def medians(results: list[dict[str, Any]], measure: str, figure: str) -> ByPeer:
    values: dict[str, list[float]] = {}
    for result in results:
        value = result["figures"].get(figure)
        if result["measure"] == measure and value is not None:
            values.setdefault(result["peer"], []).append(value)
    return {peer: statistics.median(found) for peer, found in values.items()}


def verdict(row: Row, values: ByPeer) -> str:
    if row.met is None:
        return ""
    try:
        return "met" if row.met(values) else "MISSED"
    except KeyError:
        return "not compared"


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def wakeups_of_linod(results: list[dict[str, Any]]) -> list[str]:
    for result in results:
        if result["measure"] == "idle" and result["peer"] == "linod":
            figures = result["figures"]
            parts = [f"{k.removeprefix('wakeups of ')} {v:.0f}" for k, v in figures.items() if " of " in k]
            return [f"linod's wake-ups a minute, for {figures['runs']:.0f} runs: {', '.join(parts)}."]
    return []
