"""Instants as people type them: `2h`, `yesterday`, `2026-11-24 20:00`."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, time, timedelta

SPAN = re.compile(r"-?(\d+(?:\.\d+)?) ?(s|sec|min|m|h|d|w|seconds?|minutes?|hours?|days?|weeks?)(?: ago)?")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def instant(text: str) -> datetime:
    """An instant of the past, aware; what is no span is in the host's zone. Raises argparse's error."""
    now = datetime.now(UTC)
    wanted = text.strip().lower()
    if match := SPAN.fullmatch(wanted):
        try:
            return now - timedelta(seconds=float(match[1]) * SECONDS[match[2][0]])
        except OverflowError:
            pass
    if wanted in ("today", "yesterday"):
        day = now.astimezone().date() - timedelta(days=wanted == "yesterday")
        return datetime.combine(day, time()).astimezone()
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.combine(now.astimezone().date(), time.fromisoformat(text.strip())).astimezone()
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is no time; write one like "2h" or "2026-11-24 20:00"') from None
