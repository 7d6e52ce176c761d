"""The words of a mail about tasks: what has changed, since when, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..words import clock, count

OVER = {"failing": "is well again", "late": "begins in time again", "stuck": "has ended well again"}
MOST_NAMED = 3  # tasks in a subject
MOST_CHANGES = 2  # of one task that are told one by one


def subject(site: str, alerts: Sequence[Mapping[str, Any]], more: int) -> str:
    """One line that tells the most."""
    total = len(alerts) + more
    if total == 1:
        return f"{site}: {'a test' if is_test(alerts) else headline(alerts[0])}"
    names = list(dict.fromkeys(alert["name"] for alert in alerts))
    others = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{site}: {count(total, 'change')} of tasks: {', '.join(names[:MOST_NAMED])}{others}"


def text(site: str, host: str, alerts: Sequence[Mapping[str, Any]], more: int, *, linked: bool) -> str:
    """The whole mail. `linked`: linodctl knows the site."""
    if is_test(alerts):
        return f"The background tasks of {site} on {host}: {alerts[0]['reason']}\n"
    parts = [f"The background tasks of {site} on {host}:"]
    parts += [paragraph(site, alert, before, linked=linked) for alert, before in condensed(alerts)]
    if more:
        parts.append(f"And {count(more, 'more change')}, for which there was no room.")
    if linked:
        parts.append(f"All that is wrong now: linodctl status {site}")
    parts.append("There is no further mail about a task until this has changed.")
    return "\n\n".join(parts) + "\n"


def condensed(alerts: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], int]]:
    """What is worth a paragraph: of a task that goes to and fro, the last change, and how many there were before it."""
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for alert in alerts:
        by_task.setdefault(alert["task"], []).append(alert)
    for changes in by_task.values():
        if len(changes) > MOST_CHANGES:
            yield changes[-1], len(changes) - 1
        else:
            yield from ((alert, 0) for alert in changes)


def is_test(alerts: Sequence[Mapping[str, Any]]) -> bool:
    return any(alert["event"] == "test" for alert in alerts)


def headline(alert: Mapping[str, Any]) -> str:
    name, reason = alert["name"], alert["reason"]
    match alert["event"]:
        case "failed":
            return f"{name} {alert['outcome'].replace('_', ' ')}: {reason}"
        case "lost":
            return f"a run of {name} was lost: {reason}"
        case "late":
            return f"{name} is late: {reason}"
        case "stuck":
            return f"{name} is stuck: {reason}"
        case "paused":
            return f"{name} is paused: {reason}"
    return f"{name} {OVER.get(alert['was'], 'is well again')}"


def paragraph(site: str, alert: Mapping[str, Any], before: int, *, linked: bool) -> str:
    lines = [f"* {headline(alert)}", f"  {history(alert)}"]
    if before:
        lines.append(f"  It goes to and fro: it had changed {count(before, 'time')} before that.")
    if linked:
        lines += [f"  {step}" for step in what_to_type(site, alert)]
    if alert["detail"]:
        lines += ["", *(f"    {line}" for line in alert["detail"].strip().splitlines())]
    return "\n".join(lines)


def history(alert: Mapping[str, Any]) -> str:
    """Since when, and how often."""
    at, since = local(alert["at"]), local(alert["since"])
    run = f" (run {alert['run']})" if alert["run"] is not None else ""
    times = count(alert["times"], "time")
    match alert["event"]:
        case "failed" | "lost":
            again = f", {times} in a row, since {since}" if alert["times"] > 1 else ""
            return f"At {at}{run}{again}."
        case "late":
            return f"It was due at {since}{run}."
        case "stuck":
            return f"It began at {since}{run}."
        case "paused":
            return f"At {at}. It does not run until somebody resumes it."
    was = f"gone wrong {times}" if alert["times"] else f"been {alert['was']}"
    return f"At {at}{run}. It had {was} since {since}."


def what_to_type(site: str, alert: Mapping[str, Any]) -> list[str]:
    name = shlex.quote(alert["name"])
    if alert["event"] == "recovered":
        return [f"linodctl history {site} {name}"]
    show = [f"linodctl show {site} {alert['run']}"] if alert["run"] is not None else []
    resume = [f"linodctl resume {site} {name}"] if alert["event"] == "paused" else []
    return [f"linodctl why {site} {name}", *show, f"linodctl logs {site} {name}", *resume]


def local(text: str) -> str:
    """An instant as the clock of this host shows it."""
    return clock(datetime.fromisoformat(text)) if text else ""
