"""How an author says when: keywords, or a job of the `schedule` package, turned into a schedule and its words.

The package gives the grammar and the wording only, it never computes a time. This is the one module that knows it,
and it does so without importing it: whoever holds a job has imported it already, and the daemon stays small.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DeclarationError
from .adjusted import Jittered, Until
from .base import Schedule
from .cron import Cron
from .phrase import Phrase
from .spans import UNITS, Span, span_of, times_of
from .zones import zone_name

if TYPE_CHECKING:
    from schedule import Job


class Declaration(NamedTuple):
    """When a task is due, as a value and in words: `Every 1 day at 20:00:00`, or `Cron "5 4 * * *"`."""

    schedule: Schedule
    text: str


def declare(
    job: Job | None = None,
    *,
    every: float | timedelta | str | None = None,
    at: str | time | Iterable[str | time] | None = None,
    cron: str | None = None,
    tz: str | tzinfo | None = None,
    jitter: float | timedelta | str = 0,
    until: datetime | None = None,
) -> Declaration:
    """The schedule that an author means.

    Say one of these: `every` (seconds, a timedelta or "15min"), `at` (one or several times of day), both of them
    (every so many days at that time), `cron`, or a job of the `schedule` package, finished or not.

    `tz` is a zone for local times instead of the site's. `jitter` moves each due time later by less than that. `until`
    (aware) is the last possible due time; one that has passed is no mistake, or a site would stop loading on that day.

    Raises DeclarationError for what cannot work, in words that say what to write instead.
    """
    _check_one_way(job=job, every=every, at=at, cron=cron)
    zone = zone_name(tz)
    if job is not None:
        schedule, text = from_job(job, zone, jitter)
    elif cron is not None:
        expression = Cron(cron, zone=zone)
        schedule, text = _jittered(expression, jitter), expression.text
    else:
        phrase = _phrase(every, at, zone)
        schedule, text = _jittered(phrase.schedule(), jitter), phrase.text
    if until is not None:
        schedule = Until(schedule, _instant(until))
    return Declaration(schedule, text)


def from_job(job: Job, tz: str | tzinfo | None = None, jitter: float | timedelta | str = 0) -> Declaration:
    """The schedule that a job of the `schedule` package means; `tz` is its zone unless it names one itself.

    The end set by `.until()` is a local time of that zone. Raises DeclarationError.
    """
    if not _is_job(job):
        raise DeclarationError(
            f"{job!r} is not a job of the schedule package.",
            'Write schedule.every().monday.at("09:00"), or a keyword: every=10, at="20:00", cron="5 4 * * *".',
        )
    # Version 1.1 has no zones.
    zone = zone_name(getattr(job, "at_time_zone", None)) or zone_name(tz)
    phrase = Phrase(
        count=job.interval,
        unit=job.unit or "",
        latest=job.latest,
        times=() if job.at_time is None else (job.at_time,),
        weekday=job.start_day,
        zone=zone,
    )
    schedule = _jittered(phrase.schedule(), jitter)
    if job.cancel_after is not None:
        schedule = Until(schedule, job.cancel_after, zone)
    return Declaration(schedule, phrase.text)


def call_text(job: Job) -> str:
    """The call that a finished job makes, as its repr shows it: `remind(7, urgent=True)`."""
    call = job.job_func
    if call is None:
        return "[None]"
    arguments = [str(value) if _is_job(value) else repr(value) for value in call.args]
    arguments += [f"{name}={value!r}" for name, value in call.keywords.items()]
    return f"{getattr(call, '__name__', repr(call))}({', '.join(arguments)})"


def take_registered_jobs() -> list[Job]:
    """The jobs that the site registered on the default scheduler of the `schedule` package, in that order.

    They are taken away from there: a second look must not find them again.
    """
    package = _package()
    if package is None:
        return []
    jobs = list(package.get_jobs())
    package.clear()
    return jobs


def _check_one_way(**ways: object) -> None:
    said = [name for name, value in ways.items() if value is not None]
    if said in (["job"], ["every"], ["at"], ["every", "at"], ["cron"]):
        return
    raise DeclarationError(
        f"{' and '.join(said)} don't go together." if said else "It isn't said when the task is due.",
        'Write every=10, or at="20:00", or both as in every="3 days", at="20:00", or cron="5 4 * * *".',
    )


def _phrase(
    every: float | timedelta | str | None, at: str | time | Iterable[str | time] | None, zone: str | None
) -> Phrase:
    span = Span(1, "days") if every is None else span_of(every, "every")
    if at is None:
        return Phrase(count=span.amount, unit=span.unit)
    days, rest = divmod(span.seconds, UNITS["days"])
    if rest != 0:  # or NaN
        raise DeclarationError(
            f"every={every!r} is not a whole number of days, so it can't have at={at!r}.",
            'Write for example every="3 days", at="20:00"; or cron="15 * * * *" for a minute of each hour.',
        )
    if span.unit != "weeks":
        span = Span(int(days), "days")
    return Phrase(count=span.amount, unit=span.unit, times=times_of(at), zone=zone)


def _jittered(schedule: Schedule, jitter: float | timedelta | str) -> Schedule:
    return schedule if jitter == 0 else Jittered(schedule, span_of(jitter, "jitter").seconds)


def _instant(until: object) -> datetime:
    if not isinstance(until, datetime) or until.tzinfo is None:
        raise DeclarationError(
            f"until={until!r} is not an instant: an end needs its time zone.",
            'Write until=datetime(2030, 12, 31, tzinfo=ZoneInfo("Europe/Brussels")), or tzinfo=UTC.',
        )
    return until


def _is_job(value: object) -> bool:
    package = _package()
    return package is not None and isinstance(value, package.Job)


def _package() -> Any:
    """The `schedule` package, where the site has imported it; None for another module of that name."""
    package = sys.modules.get("schedule")
    return package if hasattr(package, "default_scheduler") else None
