"""What `--list` prints: the declared tasks with their last and next run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ..site.load import Site

DOES_NOT_USE = "This site does not use linod."
HAS_NONE = "This site has no scheduled jobs."


def text(site: Site, last_starts: dict[str, datetime], now: datetime) -> Iterator[str]:
    """The lines of the list. Their words and form are fixed: others compare them."""
    zone = ZoneInfo(site.zone)
    yield f"{len(site.declarations)} scheduled jobs:"
    for number, row in enumerate(rows(site, last_starts, now), start=1):
        last, following = (shown(row[key], zone) for key in ("last_run", "next_run"))
        yield f"[{number}] {row['text']} (last run: {last}, next run: {following})"


def as_json(site: Site, last_starts: dict[str, datetime], now: datetime) -> dict[str, Any]:
    """The same for programs: instants in UTC, ISO 8601."""
    tasks = [
        {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}
        for row in rows(site, last_starts, now)
    ]
    return {"uses_linod": site.uses_linod, "tasks": tasks}


def rows(site: Site, last_starts: dict[str, datetime], now: datetime) -> Iterator[dict[str, Any]]:
    for declaration in site.declarations.values():
        task = declaration.task
        yield {
            "id": task.id,
            "name": task.label,
            "text": task.text,
            "enabled": task.policies.enabled,
            "last_run": last_starts.get(task.id),
            "next_run": task.schedule.next(now) if task.policies.enabled else None,
        }


def shown(instant: datetime | None, zone: ZoneInfo) -> str:
    return f"{instant.astimezone(zone):%Y-%m-%d %H:%M:%S}" if instant else "[never]"
