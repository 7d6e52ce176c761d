"""Any schedule: its laws, and its due times beside those of a slow model that looks at the clock minute by minute."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import schedule as schedule_package
from hypothesis import assume, example, given
from hypothesis import strategies as st

from linod.errors import DeclarationError
from linod.instants import EPOCH, MICROSECOND
from linod.schedules import (
    Calendar,
    ClockGrid,
    Cron,
    Interval,
    Jittered,
    OnDays,
    Schedule,
    Since,
    Until,
    WallClock,
    declare,
    from_dict,
    from_job,
)
from linod.schedules.phrase import WEEKDAYS
from linod.site.lino.recurrence import Recurrence

MINUTE = timedelta(minutes=1)
SEED = "seed"
ZONES = sorted(name for name in available_timezones() if "/" in name and not name.startswith(("posix", "right")))
# Summer time of half an hour, of the other hemisphere, a day that was left out, a Ramadan, and none.
SPECIAL = (
    *("Australia/Lord_Howe", "America/New_York", "Europe/Brussels", "Pacific/Apia", "Africa/Casablanca", "UTC"),
    *("America/Caracas", "Asia/Kathmandu", "Antarctica/Troll", "America/Sao_Paulo", "Africa/Monrovia", "Europe/Dublin"),
)
zones = st.sampled_from(SPECIAL) | st.sampled_from(ZONES)


def offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()


def around_a_change(zone: str, year: int, part: float) -> datetime:
    """An instant within a day of a change of the zone's offset in that year, else anywhere in it."""
    start = datetime(year, 1, 1, tzinfo=UTC)
    wall = ZoneInfo(zone)
    days = [start + timedelta(days=number) for number in range(366)]
    changes = [day for day, next_day in pairwise(days) if offset(day, wall) != offset(next_day, wall)]
    chosen = changes[int(part * len(changes)) % len(changes)] if changes else days[int(part * 365)]
    return chosen + timedelta(days=2 * part - 0.5)


instants = st.datetimes(datetime(1970, 1, 10), datetime(2200, 1, 1), timezones=st.just(UTC))
changes = st.builds(around_a_change, zones, st.integers(1971, 2199), st.floats(0, 1))
moments = instants | changes
of_day = st.times().map(lambda at: at.replace(microsecond=0))
on_minutes = st.builds(time, st.integers(0, 23), st.integers(0, 59))
weekdays = st.sets(st.integers(0, 6), max_size=4).map(tuple)


# Schedules of all kinds

numbers = st.integers(1, 59)


def cron_field(least: int, most: int) -> st.SearchStrategy[str]:
    value = st.integers(least, most)
    part = st.one_of(
        value.map(str),
        st.tuples(value, value).map(lambda pair: f"{min(pair)}-{max(pair)}"),
        st.builds("*/{}".format, st.integers(1, most)),
        st.builds(
            lambda pair, step: f"{min(pair)}-{max(pair)}/{step}", st.tuples(value, value), st.integers(1, max(1, most))
        ),
    )
    return st.just("*") | st.lists(part, min_size=1, max_size=3).map(",".join)


expressions = st.tuples(
    cron_field(0, 59), cron_field(0, 23), cron_field(1, 28), cron_field(1, 12), cron_field(0, 6)
).map(" ".join)
intervals = st.builds(Interval, st.floats(0.1, 1e7) | st.integers(1, 10_000_000))
grids = st.builds(
    lambda unit, offset, every, spread, zone: ClockGrid(unit, offset % unit, every, min(spread, every - 1), zone),
    st.sampled_from([60, 3600]),
    st.integers(0, 3599),
    st.integers(1, 60),
    st.integers(0, 9),
    zones,
)
wall_clocks = st.builds(
    lambda times, every, weekdays, spread, zone: WallClock(
        tuple(times), every, weekdays, min(spread, every - 1), zone=zone
    ),
    st.sets(of_day, min_size=1, max_size=4),
    st.integers(1, 40),
    weekdays,
    st.integers(0, 9),
    zones,
)
crons = st.builds(lambda expression, zone: Cron(expression, zone=zone), expressions, zones)
calendars = st.builds(
    lambda unit, first, at, every, weekdays, positions, zone: Calendar(
        unit, first, at, every, weekdays, tuple(positions) if unit == "months" else (), zone=zone
    ),
    st.sampled_from(["days", "weeks", "months", "years"]),
    st.dates(date(1900, 1, 1), date(2150, 1, 1)),
    of_day,
    st.integers(1, 50),
    weekdays,
    st.sets(st.sampled_from([1, 2, 4, -1, -3]), max_size=2),
    zones,
)
some_days = st.builds(OnDays, st.builds(Interval, st.floats(600, 86400)) | grids, weekdays.filter(bool), zones)
bare = st.one_of(intervals, grids, wall_clocks, crons, calendars, some_days)
jittered = st.builds(lambda base, part: Jittered(base, base.period * part), bare, st.floats(0.01, 0.99))
endless = bare | jittered
bounded = st.one_of(endless, st.builds(Since, endless, moments), st.builds(Until, endless, moments))


def near(schedule: Schedule, at: datetime, number: int) -> list[datetime]:
    """So many due times after an instant."""
    found: list[datetime] = []
    due = schedule.next(at)
    while due is not None and len(found) < number:
        found.append(due)
        due = schedule.next(due)
    return found


@given(bounded, moments, zones)
def test_the_laws(schedule: Schedule, at: datetime, zone: str) -> None:
    schedule = schedule.placed(zone, SEED)
    before, after = schedule.previous(at), schedule.next(at)
    assert before is None or before <= at
    assert after is None or at < after
    if before is not None:
        assert schedule.previous(before) == before
        assert schedule.next(before) == after
    if after is not None:
        assert schedule.previous(after) == after
        assert schedule.previous(after - MICROSECOND) == before
        assert schedule.next(after - MICROSECOND) == after


@given(bounded, moments, zones, st.integers(1, 12))
def test_the_way_back_is_the_way_there(schedule: Schedule, at: datetime, zone: str, number: int) -> None:
    schedule = schedule.placed(zone, SEED)
    there = near(schedule, at, number)
    assert all(earlier < later for earlier, later in pairwise(there))
    assume(there)
    back = [there[-1]]
    while len(back) < len(there):
        due = schedule.previous(back[-1] - MICROSECOND)
        assert due is not None
        back.append(due)
    assert back[::-1] == there
    assert schedule.count(at, there[-1]) == len(there)
    assert schedule.count(there[0], there[-1]) == len(there) - 1
    assert schedule.count(there[0], there[-1] - MICROSECOND) == max(0, len(there) - 2)


@given(bounded, moments, zones)
def test_it_travels_as_json(schedule: Schedule, at: datetime, zone: str) -> None:
    placed = schedule.placed(zone, SEED)
    arrived = from_dict(json.loads(json.dumps(placed.as_dict())))
    assert arrived == placed
    assert near(arrived, at, 3) == near(placed, at, 3)
    assert schedule.period == arrived.period > 0


# The slow model


def minutes(begin: datetime, days: int) -> Iterator[datetime]:
    for number in range(1440 * days):
        yield begin + number * MINUTE


def whole_minutes(zone: ZoneInfo, begin: datetime, days: int) -> bool:
    """Whether all offsets from UTC in these days are whole minutes, as the model needs."""
    looks = (begin + timedelta(hours=6 * number) for number in range(4 * days + 1))
    return all(offset(look, zone).seconds % 60 == 0 for look in looks)


def seen_on_the_wall(is_due: Callable[[datetime], bool], zone: ZoneInfo, begin: datetime, days: int) -> list[datetime]:
    """When a clock on the wall first shows a due local time or goes beyond it, minute by minute."""
    # What it has shown before, also in a repeated hour or day.
    warm_up = 2
    latest = max((begin - timedelta(days=warm_up)).astimezone(zone).replace(tzinfo=None), datetime.min)
    found = []
    for instant in minutes(begin - timedelta(days=warm_up) + MINUTE, days + warm_up):
        shown = instant.astimezone(zone).replace(tzinfo=None)
        if shown > latest:
            passed = int((shown - latest) / MINUTE)
            if any(is_due(latest + (number + 1) * MINUTE) for number in range(passed)) and instant > begin:
                found.append(instant)
            latest = shown
    return found


def compared(schedule: Schedule, model: list[datetime], begin: datetime, days: int) -> None:
    end = begin + timedelta(days=days)
    found = [due for due in near(schedule, begin, len(model) + 5) if due <= end]
    assert found == model
    for due, following in pairwise([begin, *model[:50]]):
        assert schedule.previous(following - MICROSECOND) == (due if due is not begin else schedule.previous(begin))


def on_the_minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


@given(
    st.sets(on_minutes, min_size=1, max_size=4), st.integers(1, 3), weekdays, zones, st.integers(1971, 2199), st.data()
)
def test_a_wall_clock_beside_the_model(
    times: set[time], every: int, days: tuple[int, ...], zone: str, year: int, data: st.DataObject
) -> None:
    begin = on_the_minute(around_a_change(zone, year, data.draw(st.floats(0, 1))))
    wall = ZoneInfo(zone)
    assume(whole_minutes(wall, begin - timedelta(days=2), 5))
    first = date(1, 1, 1)

    def is_due(local: datetime) -> bool:
        passed = (local.date() - first).days
        if days:
            return local.time() in times and local.weekday() in days and passed // 7 % every == 0
        return local.time() in times and passed % every == 0

    schedule = WallClock(tuple(times), every, days, zone=zone)
    compared(schedule.placed("UTC", SEED), seen_on_the_wall(is_due, wall, begin, 3), begin, 3)


def matches(field: str, value: int, least: int, most: int) -> bool:
    """Whether a value is one of a field of cron, read as its manual says."""
    for part in field.split(","):
        span, _slash, step = part.partition("/")
        low, dash, high = span.partition("-")
        first, last = (least, most) if span == "*" else (int(low), int(high if dash else low))
        if value in range(first, last + 1, int(step or 1)):
            return True
    return False


def is_restricted(field: str, least: int, most: int) -> bool:
    return not all(matches(field, value, least, most) for value in range(least, most + 1))


@given(expressions, zones, st.integers(1971, 2199), st.floats(0, 1))
@example("0-0 20-20/2 * * *", "Australia/Lord_Howe", 1971, 0.0)
def test_cron_beside_the_model(expression: str, zone: str, year: int, part: float) -> None:
    begin = on_the_minute(around_a_change(zone, year, part))
    wall = ZoneInfo(zone)
    assume(whole_minutes(wall, begin - timedelta(days=2), 4))
    minute, hour, day, month, weekday = expression.split()
    # Where both are, either will do. (What allows all in other words than * is one thing here and another there.)
    assume((day == "*" or is_restricted(day, 1, 31)) and (weekday == "*" or is_restricted(weekday, 0, 6)))
    both_restricted = "*" not in (day, weekday)

    def is_due(local: datetime) -> bool:
        on_day = matches(day, local.day, 1, 31), matches(weekday, local.isoweekday() % 7, 0, 7)
        right_day = any(on_day) if both_restricted else all(on_day)
        return (
            right_day
            and matches(minute, local.minute, 0, 59)
            and matches(hour, local.hour, 0, 23)
            and matches(month, local.month, 1, 12)
        )

    model = seen_on_the_wall(is_due, wall, begin, 2)
    compared(Cron(expression, zone=zone).placed("UTC", SEED), model, begin, 2)


@given(
    st.sampled_from(["days", "weeks", "months", "years"]),
    st.integers(-800, 5),
    on_minutes,
    st.integers(1, 9),
    weekdays,
    zones,
    st.integers(1975, 2199),
    st.floats(0, 1),
)
def test_a_calendar_beside_the_model(
    unit: str, ago: int, at: time, every: int, days: tuple[int, ...], zone: str, year: int, part: float
) -> None:
    begin = on_the_minute(around_a_change(zone, year, part))
    wall = ZoneInfo(zone)
    assume(whole_minutes(wall, begin - timedelta(days=2), 5))
    first = begin.date() + timedelta(days=ago)
    due_days = set(days_of_calendar(unit, first, every, days, begin.date() + timedelta(days=20)))
    model = seen_on_the_wall(lambda local: local.time() == at and local.date() in due_days, wall, begin, 3)
    schedule = Calendar(unit, first, at, every, days, zone=zone).placed("UTC", SEED)
    end = begin + timedelta(days=3)
    assert [due for due in near(schedule, begin, len(model) + 5) if due <= end] == model


def days_of_calendar(unit: str, first: date, every: int, days: tuple[int, ...], end: date) -> Iterator[date]:
    """Day by day, counting units as they begin."""
    monday = first - timedelta(days=first.weekday())
    day = first
    while day <= end:
        match unit:
            case "days":
                counts = (day - first).days % every == 0
            case "weeks":
                counts = (day - monday).days // 7 % every == 0 and day.weekday() in (days or (first.weekday(),))
            case "months":
                passed = 12 * (day.year - first.year) + day.month - first.month
                counts = passed % every == 0 and is_day_of_month(day, first.day)
            case _:
                counts = (day.year - first.year) % every == 0 and day.month == first.month
                counts = counts and is_day_of_month(day, first.day)
        if counts:
            moved = day
            while days and unit != "weeks" and moved.weekday() not in days:
                moved += timedelta(days=1)
            yield moved
        day += timedelta(days=1)


def is_day_of_month(day: date, wanted: int) -> bool:
    """Whether it is that day of the month, or the last one of a month that lacks it."""
    return day.day == wanted or (day.day < wanted and (day + timedelta(days=1)).day == 1)


@given(
    st.sampled_from([60, 3600]), st.integers(0, 59), st.integers(1, 20), zones, st.integers(1971, 2199), st.floats(0, 1)
)
def test_a_grid_of_the_clock_beside_the_model(
    unit: int, minute: int, every: int, zone: str, year: int, part: float
) -> None:
    begin = on_the_minute(around_a_change(zone, year, part))
    wall = ZoneInfo(zone)
    assume(whole_minutes(wall, begin, 2))
    into = 60 * minute % unit

    def is_due(instant: datetime) -> bool:
        shift = offset(instant, wall) // timedelta(seconds=1) % unit
        return ((instant - EPOCH) // timedelta(seconds=1) + shift - into) % (unit * every) == 0

    model = [instant for instant in minutes(begin + MINUTE, 2) if is_due(instant)]
    compared(ClockGrid(unit, into, every, zone=zone), model, begin, 2)


@given(
    st.integers(60, 86_400), st.floats(0, 0.99), weekdays.filter(bool), zones, st.integers(1971, 2199), st.floats(0, 1)
)
def test_an_interval_on_some_days_beside_the_model(
    seconds: int, phase: float, days: tuple[int, ...], zone: str, year: int, part: float
) -> None:
    begin = around_a_change(zone, year, part)
    wall = ZoneInfo(zone)
    base = Interval(seconds, float(int(phase * seconds)))
    step = timedelta(seconds=seconds)
    due = EPOCH + timedelta(seconds=int(phase * seconds))
    due += ((begin - due) // step + 1) * step
    model = []
    while due <= begin + timedelta(days=3):
        if due.astimezone(wall).weekday() in days:
            model.append(due)
        due += step
    found = near(OnDays(base, days, zone), begin, len(model) + 1)
    assert [due for due in found if due <= begin + timedelta(days=3)] == model


@given(endless.filter(lambda schedule: not isinstance(schedule, Jittered)), st.floats(0.01, 0.99), moments)
def test_jitter_moves_each_due_time_and_no_other(base: Schedule, part: float, at: datetime) -> None:
    base = base.placed("UTC", SEED)
    moved = Jittered(base, base.period * part).placed("UTC", SEED)
    dues = near(base, at, 6)
    assume(len(dues) == 6)
    found = near(moved, dues[0] - MICROSECOND, 5)
    for due, following, later in zip(dues, dues[1:], found, strict=False):
        assert due <= later < following
        assert later - due <= timedelta(seconds=base.period * part)


# What authors write

words = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"\A[0-9]{1,3}(\.[0-9])? ?(s|sec|min|h|hours?|days?|w|month)( ?[0-9]{1,2} ?(s|min))?\Z"),
    st.from_regex(r"\A[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?\Z"),
    st.sampled_from(["²", "1e9", "٣min", "1min\n", "20:00\n", "24:00", "9" * 400 + "h", "0.0s", "*", "inf", "nan"]),
)
anything: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        words,
        st.binary(max_size=4),
        st.timedeltas(),
        st.times(),
        st.times(timezones=st.just(UTC)),
        st.dates(),
        st.datetimes(),
        st.datetimes(timezones=st.just(UTC)),
        st.just(UTC),
        expressions,
        zones,
        st.integers(10**300, 10**310),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
    max_leaves=3,
)
keywords = st.dictionaries(st.sampled_from(["every", "at", "cron", "tz", "jitter", "until"]), anything, max_size=3)
likely = st.fixed_dictionaries(
    {},
    optional={
        "every": st.integers(0, 100) | words | st.timedeltas(timedelta(0), timedelta(days=9)),
        "at": words | of_day | st.lists(words | of_day, max_size=3),
        "cron": expressions | words,
        "tz": zones | words,
        "jitter": st.floats(0, 100) | words,
        "until": moments,
    },
)


@given(keywords | likely, moments)
@example({"every": timedelta.max}, EPOCH)
@example({"every": "1h", "jitter": 10**400}, EPOCH)
def test_a_declaration_is_a_schedule_or_refused(said: dict[str, Any], at: datetime) -> None:
    try:
        declaration = declare(**said)
    except DeclarationError as error:
        assert str(error).strip()
        return
    stands(declaration.schedule, at)
    assert declaration.text


def stands(schedule: Schedule, at: datetime) -> None:
    """That a schedule which was accepted can be worked with."""
    placed = from_dict(json.loads(json.dumps(schedule.placed("Europe/Brussels", SEED).as_dict())))
    after = placed.next(at)
    assert after is None or after > at
    assert after is None or placed.previous(after) == after
    before = placed.previous(at)
    assert before is None or before <= at


@given(st.text(max_size=20) | st.from_regex(r"\A[0-9*/,@hrlw#? \-a-z]{0,20}\Z"), moments)
@example("@reboot", EPOCH)
@example("* * * * *\n", EPOCH)
@example("0 0 30 2 *", EPOCH)
@example("0 0 L * *", EPOCH)
@example("0 0 * * sun#5", EPOCH)
def test_an_expression_of_cron_is_one_or_refused(expression: str, at: datetime) -> None:
    try:
        schedule = Cron(expression, zone="Europe/Brussels")
    except DeclarationError as error:
        assert str(error).strip()
        return
    stands(schedule, at)


calls = st.lists(
    st.one_of(
        st.sampled_from(["second", "seconds", "minute", "minutes", "hour", "hours", "day", "days", "week", "weeks"]),
        st.sampled_from(WEEKDAYS),
        st.tuples(st.just("to"), st.integers(-1, 40) | st.floats()),
        st.tuples(st.just("at"), words | st.sampled_from([":15", "30:15", "10:30", "10:30:15"])),
        st.tuples(st.just("until"), words | moments | st.timedeltas(timedelta(0), timedelta(days=900))),
        st.tuples(st.just("tag"), words),
    ),
    max_size=4,
)


@given(st.integers(-1, 60) | st.floats() | anything, calls, moments)
def test_a_job_of_the_package_is_a_schedule_or_refused(count: Any, called: list[Any], at: datetime) -> None:
    job = built(count, called)
    assume(job is not None)
    try:
        declaration = from_job(job)
    except DeclarationError as error:
        assert str(error).strip()
        return
    stands(declaration.schedule, at)


def built(count: Any, called: list[Any]) -> schedule_package.Job | None:
    """A job as its author would have got it; None where the package itself refuses it."""
    job = schedule_package.Scheduler().every(count)
    try:
        for call in called:
            job = getattr(job, call[0])(call[1]) if isinstance(call, tuple) else getattr(job, call)
    except Exception:
        return None
    return job


rows = st.builds(
    Recurrence,
    unit=st.sampled_from(
        [
            "secondly",
            "minutely",
            "hourly",
            "daily",
            "per_weekday",
            "weekly",
            "monthly",
            "yearly",
            "once",
            "never",
            "easter",
        ]
    ),
    every=st.integers(-2, 50) | st.integers(),
    weekdays=weekdays,
    positions=st.sets(st.sampled_from([1, 2, 3, 4, -4, -3, -2, -1]), max_size=3).map(tuple),
    start_date=st.none() | st.dates(),
    start_time=st.none() | st.times(),
    end_date=st.none() | st.dates(),
    end_time=st.none() | st.times(),
)


@given(rows, zones, moments)
def test_a_row_of_lino_is_a_schedule_or_refused(row: Recurrence, zone: str, at: datetime) -> None:
    assert row.words()
    try:
        schedule = row.schedule(zone)
    except DeclarationError as error:
        assert str(error).strip()
        return
    stands(schedule, at)


# What arrives


def mutated(values: dict[str, Any], path: list[int], new: Any) -> Any:
    """The same with another value somewhere."""
    changed = json.loads(json.dumps(values))
    inner = changed
    for number, step in enumerate(path):
        names = list(inner)
        name = names[step % len(names)]
        if number < len(path) - 1 and isinstance(inner[name], dict):
            inner = inner[name]
            continue
        inner[name] = new
        break
    return changed


json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), words, zones, st.sampled_from(["2026-01-01", "12:00"])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


@given(bounded, st.lists(st.integers(0, 9), min_size=1, max_size=3), json_values, moments)
def test_what_arrives_is_a_schedule_or_refused(schedule: Schedule, path: list[int], new: Any, at: datetime) -> None:
    values = mutated(schedule.placed("Europe/Brussels", SEED).as_dict(), path, new)
    try:
        arrived = from_dict(values)
    except ValueError as error:
        assert str(error)
        return
    stands(arrived, at)
