"""Decide whether a due run starts. Pure: facts come in, a decision goes out, and nothing else happens."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..runs import Outcome, Run, Trigger
from ..task import Task

MOST_CAUGHT_UP = 100  # runs of one task after a downtime, where it wants all
MOST_QUEUED = 100  # runs of one task that wait for their turn
ALWAYS_GOES_ON = 60.0  # seconds; a task more frequent than this has nothing to catch up
SPREAD = 60.0  # seconds over which catch-up is spread after a boot
JUST_BOOTED = 300.0  # seconds
ON_TIME = timedelta(minutes=10)  # without a resident daemon: the time between two passes, by and large
CLAIM_WITHIN = timedelta(seconds=12)  # due times that come within this are claimed when the loop is awake anyway
FORGIVEN = timedelta(days=1)  # a record from further in the future was made by a clock that was wrong


@dataclass(frozen=True, slots=True)
class Start:
    """It may begin."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It begins when another run has ended."""

    reason: str


@dataclass(frozen=True, slots=True)
class Replace:
    """The previous run is ended first."""


@dataclass(frozen=True, slots=True)
class Skip:
    """It doesn't begin at all."""

    reason: str


Decision = Start | Wait | Replace | Skip


def decide(task: Task, *, alive: int, waiting: int, trigger: Trigger = Trigger.SCHEDULE) -> Decision:
    """Whether a run that is due begins, given how many runs of its task are alive and how many wait to begin."""
    if not alive and not waiting:
        return Start()
    overlap = task.policies.overlap
    if trigger is Trigger.CATCH_UP and task.policies.catch_up == "all" and overlap != "allow":
        overlap = "queue"  # they all fall due at the same moment, and all are wanted
    match overlap:
        case "allow":
            return Start()
        case "queue" if waiting < MOST_QUEUED:
            return Wait("the previous run is still going on")
        case "queue":
            return Skip(f"{waiting} runs are waiting already")
        case "replace":
            return Replace()
    return Skip("the previous run is still going on" if alive else "the previous run has not started yet")


@dataclass(frozen=True, slots=True)
class CatchUp:
    """What to do about due times that have passed: runs to start, as (due, due times it stands for), and a skip."""

    runs: tuple[tuple[datetime, int], ...] = ()
    skipped: int = 0
    last_skipped: datetime | None = None
    reason: str = ""
    matters_little: bool = False  # nobody wants to read of the skip at each start


def catch_up(task: Task, after: datetime, now: datetime, *, resident: bool = True) -> CatchUp:
    """What to do about the due times later than `after` and not later than `now`, which nobody saw to.

    `resident`: a daemon that stays, so that a frequent task will be due again before it could be missed.
    """
    schedule = task.schedule
    last = schedule.previous(now)
    if last is None or last <= after:
        return CatchUp()
    count = schedule.count(after, now)
    if reason := not_caught_up(task, last, now, resident=resident):
        return CatchUp(skipped=count, last_skipped=last, reason=reason, matters_little=goes_on(task, resident=resident))
    if task.policies.catch_up != "all":
        return CatchUp(runs=((last, count),))
    due_times = [last]
    while len(due_times) < min(count, MOST_CAUGHT_UP):
        earlier = schedule.previous(due_times[0] - timedelta(microseconds=1))
        if earlier is None or earlier <= after:
            break
        due_times.insert(0, earlier)
    rest = count - len(due_times)
    return CatchUp(
        runs=tuple((due, 1) for due in due_times),
        skipped=rest,
        last_skipped=schedule.previous(due_times[0] - timedelta(microseconds=1)) if rest else None,
        reason=f"no daemon ran; only the last {MOST_CAUGHT_UP} due times are caught up" if rest else "",
    )


def not_caught_up(task: Task, due: datetime, now: datetime, *, resident: bool) -> str:
    """Why a due time that has passed is not caught up; empty where it is."""
    if goes_on(task, resident=resident):
        return "no daemon ran; a task this frequent just goes on"
    if task.policies.catch_up == "none" and (resident or now - due > ON_TIME):
        return "no daemon ran, and the task wants no catch-up"
    return ""


def goes_on(task: Task, *, resident: bool) -> bool:
    """Whether a task is due again so soon that there is nothing to catch up."""
    return resident and task.schedule.period < ALWAYS_GOES_ON


def is_due_time(task: Task, due: datetime) -> bool:
    """Whether a task, as it is declared now, is due then."""
    return task.schedule.previous(due) == due


def has_come(run: Run, now: datetime) -> bool:
    """Whether a run that has not begun is the only record of a due time which has passed.

    That of a catch-up had, though it may lie ahead now that the clock was set back.
    """
    return run.trigger is Trigger.CATCH_UP or (run.trigger is Trigger.SCHEDULE and run.due <= now)


def was_passed_over(task: Task, run: Run, *, accounted: datetime | None, now: datetime) -> bool:
    """Whether a later time on the wall was seen to while a run waited for its own, though the clock was set back since.

    An interval goes on at once then, so a claim may be for a due time that comes again.
    """
    later = accounted is not None and now < run.due <= accounted <= now + FORGIVEN
    return later and task.schedule.follows_the_wall and run.trigger is Trigger.SCHEDULE


def sees_to(run: Run, now: datetime) -> bool:
    """Whether what becomes of a run sees to its due time; a repetition does not, nor one by a clock that was wrong."""
    return run.trigger.is_first and run.due <= now + FORGIVEN


def reference(*, since: datetime, accounted: datetime | None, now: datetime) -> datetime:
    """From when on due times count as missed. A record from a clock that was far ahead of ours is ignored."""
    if accounted is not None and accounted <= now + FORGIVEN:
        return max(since, accounted) if since <= now + FORGIVEN else accounted
    return min(since, now)


def far_ahead(*, since: datetime, accounted: datetime | None, now: datetime) -> datetime | None:
    """The latest record of a task, where only a clock that was wrong by much can have made it."""
    latest = max(since, accounted or since)
    return latest if latest > now + FORGIVEN else None


def next_due(task: Task, *, accounted: datetime | None, now: datetime) -> datetime | None:
    """The next due time. After the clock was set back, intervals go on at once; a daily time isn't run again.

    Nor is an interval's that was accounted for while it was claimed and not yet due.
    """
    after, ahead = now, FORGIVEN if task.schedule.follows_the_wall else CLAIM_WITHIN
    if accounted is not None and now < accounted <= now + ahead:
        after = accounted
    return task.schedule.next(after)


def delay_after_boot(task: Task, uptime: float) -> float:
    """Seconds by which a catch-up run is put off, so that a host that has just booted isn't hit by all at once."""
    if uptime > JUST_BOOTED:
        return 0.0
    return zlib.crc32(task.id.encode()) / 2**32 * SPREAD


def retry_delay(task: Task, run: Run) -> float | None:
    """Seconds until a run that went wrong is tried again; None: not at all."""
    if run.outcome not in (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED):
        return None
    if run.trigger is Trigger.MANUAL:
        return None  # whoever asked for it sees that, and decides
    # The same each time it is computed, so that a daemon that was restarted keeps to it.
    share = zlib.crc32(f"{run.task} {run.due} {run.attempt}".encode()) / 2**32
    return task.policies.retry_after(run.attempt, share)


def resumed_retry(task: Task, run: Run, *, since: datetime, now: datetime) -> float | None:
    """The same for a run that went wrong before the daemon was stopped.

    Not if its task has been paused or changed since, or was due again.
    """
    if run.ended is None or run.ended < since or (delay := retry_delay(task, run)) is None:
        return None
    if (due := task.schedule.next(run.ended)) is not None and due <= now:
        return None
    return min(max(0.0, delay - (now - run.ended).total_seconds()), delay)


def wants_rerun(task: Task, run: Run) -> bool:
    """Whether a run whose end nobody saw is repeated. Once: what kills the daemon twice would kill it for ever."""
    return task.policies.rerun_lost and run.trigger is not Trigger.RERUN
