"""Pauses as values and sentences. What a pause means for the plan is told in plan.py."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ..archive import PauseRecord
from ..names import find_task
from ..words import clock

SITE = ""  # stands in the place of a task where the whole site is meant
LONGEST = 300  # characters of what a person has written


def make_pause(before: PauseRecord | None, *, task: str, reason: str, by: str, now: datetime) -> PauseRecord:
    """A pause from now on; one that is there already keeps its time and takes the new reason."""
    return PauseRecord(task=task, since=before.since if before else now, reason=one_line(reason), by=one_line(by))


def find_pausable(name: str, labels: Mapping[str, str], pauses: Mapping[str, PauseRecord]) -> str:
    """The id of a task that can be paused or resumed, also one that is declared no more; raises UnknownTask."""
    return name if name == SITE or name in pauses else find_task(name, labels)


def describe_pause(pause: PauseRecord) -> str:
    """Since when, by whom and why."""
    reason = f": {pause.reason}" if pause.reason else ""
    return f"paused since {clock(pause.since)} by {pause.by}{reason}"


def say_paused(label: str, pause: PauseRecord, before: PauseRecord | None) -> str:
    """The answer to who has paused something."""
    subject = label or "The whole site"
    if before is None:
        return f"{subject} is paused."
    return f"{subject} has been {describe_pause(pause)}."


def say_resumed(label: str, before: PauseRecord | None, site: PauseRecord | None) -> str:
    """The answer to who wants something resumed; `site`: a pause of the whole site that is still there."""
    subject = label or "The whole site"
    state = "is resumed" if before else "is not paused"
    return f"{subject} {state}, but the whole site is {describe_pause(site)}." if site else f"{subject} {state}."


def one_line(text: str) -> str:
    """What a person has written, as it can be shown anywhere."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:LONGEST]
