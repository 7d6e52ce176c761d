"""A run: one execution of a task for one due time, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the task raised an exception
    TIMED_OUT = "timed_out"  # it took longer than its timeout and was ended
    CANCELLED = "cancelled"  # a person, a replacement or the end of the drain ended it
    CRASHED = "crashed"  # its process died: a signal, os._exit, the kernel's memory killer
    LOST = "lost"  # nobody saw the end: the host or the daemon died
    SKIPPED = "skipped"  # it never started, and the reason is recorded

    @property
    def bad(self) -> bool:
        """Whether a maintainer should look at it."""
        return self in BAD


BAD = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED, Outcome.LOST})


class Trigger(StrEnum):
    """Why a run was started."""

    SCHEDULE = "schedule"
    CATCH_UP = "catch-up"  # its due time passed while no daemon ran, or before the clock was set back
    RETRY = "retry"  # the previous attempt failed
    RERUN = "rerun"  # the previous attempt was lost and its task says rerun_lost
    MANUAL = "manual"  # a person asked for it

    @property
    def is_first(self) -> bool:
        """Whether it sees to its due time. A repetition is for one that was seen to, and a person's wish for none."""
        return self in (Trigger.SCHEDULE, Trigger.CATCH_UP)


@dataclass(kw_only=True, slots=True)
class Run:
    """One execution for one due time, from its claim to its outcome.

    All datetimes are aware UTC. `started` is None until a worker was told to begin, `ended` until the end was seen;
    a run that is lost has no `ended`. Durations are seconds, memory is KiB.
    """

    id: int
    task: str
    due: datetime
    lap: int = 0  # how often the clock was set back before; intervals come by the same due times again
    trigger: Trigger = Trigger.SCHEDULE
    attempt: int = 1
    dues: int = 1  # how many due times this record accounts for: a catch-up stands for all that were missed
    boot: str = ""  # the kernel's boot id under which it was claimed
    pid: int | None = None
    born: int | None = None  # start time of that process in clock ticks since boot: with the pid it names one process
    started: datetime | None = None
    ended: datetime | None = None
    outcome: Outcome | None = None
    reason: str = ""  # one line: the exception, the signal, why it was skipped
    traceback: str = ""
    output: str = ""  # the last part of what it wrote and logged
    output_bytes: int = 0  # all that it wrote, also what was not kept
    duration: float | None = None  # seconds by the monotonic clock
    cpu: float | None = None  # user and system seconds, its ended children included
    peak_memory: int | None = None  # KiB, the largest resident set during the run
