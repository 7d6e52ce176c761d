"""When a task is due: the laws of every schedule, and both changes of summer time in four zones."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linod.errors import DeclarationError
from linod.schedules import (
    Calendar,
    ClockGrid,
    Cron,
    Interval,
    Jittered,
    Never,
    OnDays,
    Schedule,
    Since,
    Until,
    WallClock,
    from_dict,
)

ZONES = ("Europe/Brussels", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu", "UTC")
EXPRESSIONS = ("* * * * *", "30 2 * * *", "*/20 1-3 * * *", "0 0 29 2 *", "5 4 1,15 * mon", "@hourly")


def instant(text: str) -> datetime:
    """`03-29 01:00` of 2026, or with a year in front, in UTC."""
    return datetime.fromisoformat(text if text.count("-") == 2 else f"2026-{text}").replace(tzinfo=UTC)


def dues(schedule: Schedule, after: str, count: int) -> list[datetime]:
    found = [instant(after)]
    for _ in range(count):
        due = schedule.next(found[-1])
        assert due is not None
        found.append(due)
    return found[1:]


# Summer time. Brussels skips 02:00 to 03:00 on 29 March and repeats it on 25 October, at 01:00 UTC both times.
# New York skips 02:00 to 03:00 on 8 March (07:00 UTC) and repeats 01:00 to 02:00 on 1 November (06:00 UTC).
# Lord Howe repeats 01:30 to 02:00 on 5 April (15:00 UTC of the 4th) and skips 02:00 to 02:30 on 4 October (15:30 UTC of
# the 3rd). Apia went from 29 December 2011, 24:00 straight to the 31st (10:00 UTC of the 30th).
CHANGES = [
    ("Europe/Brussels", "01:59", "03-28 12:00", ["03-29 00:59", "03-29 23:59"]),
    ("Europe/Brussels", "02:00", "03-28 12:00", ["03-29 01:00", "03-30 00:00"]),
    ("Europe/Brussels", "02:30", "03-28 00:00", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
    ("Europe/Brussels", "03:00", "03-28 12:00", ["03-29 01:00", "03-30 01:00"]),
    ("Europe/Brussels", "02:30", "10-24 12:00", ["10-25 00:30", "10-26 01:30"]),
    ("Europe/Brussels", "02:59:59", "10-24 12:00", ["10-25 00:59:59", "10-26 01:59:59"]),
    ("Europe/Brussels", "03:00", "10-24 12:00", ["10-25 02:00", "10-26 02:00"]),
    ("America/New_York", "02:30", "03-07 12:00", ["03-08 07:00", "03-09 06:30"]),
    ("America/New_York", "01:30", "10-31 12:00", ["11-01 05:30", "11-02 06:30"]),
    ("America/New_York", "00:59", "10-31 12:00", ["11-01 04:59", "11-02 05:59"]),
    ("Australia/Lord_Howe", "01:45", "04-04 00:00", ["04-04 14:45", "04-05 15:15"]),
    ("Australia/Lord_Howe", "02:00", "04-04 00:00", ["04-04 15:30", "04-05 15:30"]),
    ("Australia/Lord_Howe", "02:15", "10-03 00:00", ["10-03 15:30", "10-04 15:15"]),
    ("Australia/Lord_Howe", "02:30", "10-03 00:00", ["10-03 15:30", "10-04 15:30"]),
    (
        "Pacific/Apia",
        "20:00",
        "2011-12-29 00:00",
        ["2011-12-29 06:00", "2011-12-30 06:00", "2011-12-30 10:00", "2011-12-31 06:00"],
    ),
]


IN_CRON = [change for change in CHANGES if len(change[1]) == len("hh:mm")]  # it has no seconds


@pytest.mark.parametrize(
    ("language", "zone", "at", "after", "expected"),
    [("wall clock", *change) for change in CHANGES] + [("cron", *change) for change in IN_CRON],
)
@pytest.mark.claim("P15")
def test_change_of_summer_time(language: str, zone: str, at: str, after: str, expected: list[str]) -> None:
    """A skipped time is due at the first instant after the gap, a repeated one in its first pass only."""
    of_day = time.fromisoformat(at)
    cron = Cron(f"{of_day.minute} {of_day.hour} * * *", zone=zone)
    schedule = cron if language == "cron" else WallClock((of_day,), zone=zone)
    assert dues(schedule, after, len(expected)) == [instant(due) for due in expected]


def test_local_times_in_one_gap_are_one_due_time() -> None:
    schedule = WallClock((time(2, 15), time(2, 45), time(3, 0), time(3, 10)), zone="Europe/Brussels")
    assert dues(schedule, "03-29 00:00", 3) == [instant("03-29 01:00"), instant("03-29 01:10"), instant("03-30 00:15")]


@pytest.mark.claim("P15")
def test_a_repeated_hour_is_silent_in_its_second_pass() -> None:
    schedule = Cron("*/20 * * * *", zone="Europe/Brussels")
    assert dues(schedule, "10-25 00:30", 2) == [instant("10-25 00:40"), instant("10-25 02:00")]
    assert schedule.previous(instant("10-25 01:59")) == instant("10-25 00:40")


def test_intervals_go_on_through_a_change() -> None:
    schedule = Interval(1200, phase=60)
    assert [due.minute for due in dues(schedule, "10-24 23:59", 9)] == [1, 21, 41] * 3


def test_a_minute_of_the_hour_goes_on_in_both_passes_and_is_missing_in_a_gap() -> None:
    schedule = ClockGrid(3600, 900, zone="Europe/Brussels")
    assert dues(schedule, "10-25 00:00", 3) == [instant(f"10-25 0{hour}:15") for hour in (0, 1, 2)]
    assert dues(schedule, "03-29 00:30", 2) == [instant("03-29 01:15"), instant("03-29 02:15")]


def test_a_minute_of_the_hour_follows_half_an_hour_of_summer_time() -> None:
    schedule = ClockGrid(3600, 900, zone="Australia/Lord_Howe")
    local = [due.astimezone(ZoneInfo("Australia/Lord_Howe")).time() for due in dues(schedule, "10-03 14:00", 3)]
    assert local == [time(1, 15), time(3, 15), time(4, 15)]
    assert dues(schedule, "10-03 14:00", 2) == [instant("10-03 14:45"), instant("10-03 16:15")]
    assert dues(schedule, "04-04 13:30", 3) == [instant("04-04 14:15"), instant("04-04 15:45"), instant("04-04 16:45")]


# What days and weeks count from


def test_every_third_day_does_not_depend_on_when_one_looks() -> None:
    schedule = WallClock((time(20),), 3, zone="UTC")
    assert schedule.next(instant("07-14 21:00")) in dues(schedule, "01-01 00:00", 80)


def test_weekdays_and_weeks_begin_on_monday() -> None:
    monday_and_friday = WallClock((time(9),), weekdays=(4, 0), zone="UTC")
    assert [due.weekday() for due in dues(monday_and_friday, "07-14 00:00", 4)] == [4, 0, 4, 0]
    every_seventh_day = WallClock((time(9),), 7, zone="UTC")
    assert {due.weekday() for due in dues(every_seventh_day, "07-14 00:00", 4)} == {0}


def test_every_second_monday() -> None:
    schedule = WallClock((time(9),), 2, weekdays=(0,), zone="Europe/Brussels")
    first, second = dues(schedule, "07-14 00:00", 2)
    assert (first.weekday(), second - first) == (0, timedelta(days=14))


def test_an_interval_does_not_drift_in_ten_years() -> None:
    schedule = Interval(0.1, phase=0.05)
    start = schedule.next(instant("2016-01-01"))
    assert start is not None
    assert schedule.next(start + timedelta(seconds=0.1 * 3_155_760_000, microseconds=-1)) == start + timedelta(
        seconds=315_576_000
    )


@given(st.floats(0.1, 86400), st.integers(1, 3_650))
def test_an_interval_stays_on_its_grid(seconds: float, days: int) -> None:
    schedule = Interval(seconds).placed("UTC", "seed")
    step = timedelta(microseconds=round(seconds * 1_000_000))
    first, much_later = (schedule.next(instant("2016-01-01") + timedelta(days=shift)) for shift in (0, days))
    assert first is not None
    assert much_later is not None
    assert (much_later - first) % step == timedelta()


# The laws of every schedule

zones = st.sampled_from(ZONES)
intervals = st.builds(Interval, st.floats(0.1, 1e7))
grids = st.builds(
    lambda unit, offset, every, spread, zone: ClockGrid(unit, offset % unit, every, min(spread, every - 1), zone),
    st.sampled_from([60, 3600]),
    st.integers(0, 3599),
    st.integers(1, 30),
    st.integers(0, 5),
    zones,
)
wall_clocks = st.builds(
    lambda times, every, weekdays, spread, zone: WallClock(
        tuple(times), every, tuple(weekdays), min(spread, every - 1), zone=zone
    ),
    st.sets(st.times().map(lambda at: at.replace(microsecond=0)), min_size=1, max_size=4),
    st.integers(1, 10),
    st.sets(st.integers(0, 6), max_size=3),
    st.integers(0, 3),
    zones,
)
crons = st.builds(lambda expression, zone: Cron(expression, zone=zone), st.sampled_from(EXPRESSIONS), zones)
calendars = st.builds(
    lambda unit, first, at, every, weekdays, positions, zone: Calendar(
        unit, first, at, every, tuple(weekdays), tuple(positions) if unit == "months" else (), zone=zone
    ),
    st.sampled_from(["days", "weeks", "months", "years"]),
    st.dates(date(1900, 1, 1), date(1970, 1, 1)),
    st.times().map(lambda at: at.replace(microsecond=0)),
    st.integers(1, 8),
    st.sets(st.integers(0, 6), max_size=3),
    st.sets(st.sampled_from([1, 2, 4, -1, -3]), max_size=2),
    zones,
)
on_days = st.builds(OnDays, st.one_of(intervals, grids), st.just((0, 1, 2, 3, 4, 5, 6)), zones)
some_days = st.builds(OnDays, st.builds(Interval, st.floats(60, 86400)), st.just((1, 5)), zones)
bare = st.one_of(intervals, grids, wall_clocks, crons, calendars, on_days, some_days)
jittered = st.builds(lambda base, part: Jittered(base, base.period * part), bare, st.floats(0.01, 0.99))
endless = st.one_of(bare, jittered)
around_changes = st.sampled_from(
    [
        instant(f"{day} 12:00")
        for day in ("03-28", "10-24", "03-07", "10-31", "04-04", "10-03", "2011-12-29", "2028-02-28")
    ]
)
instants = st.one_of(
    st.builds(lambda day, shift: day + shift, around_changes, st.timedeltas(timedelta(hours=-6), timedelta(days=1))),
    st.datetimes(datetime(1971, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
)

naive_ends = st.datetimes(datetime(1970, 1, 3), datetime(9999, 12, 29))


@settings(max_examples=60, deadline=None)
@given(endless, instants)
def test_previous_and_next_enclose_an_instant_and_nothing_lies_between(schedule: Schedule, at: datetime) -> None:
    schedule = schedule.placed("Europe/Brussels", "seed")
    before, after = schedule.previous(at), schedule.next(at)
    assert before is not None
    assert after is not None
    assert before <= at < after
    assert schedule.next(before) == after
    assert schedule.previous(after) == after
    assert schedule.previous(before) == before
    assert schedule.previous(after - timedelta(microseconds=1)) == before


@settings(max_examples=60, deadline=None)
@given(endless, instants)
def test_due_times_strictly_increase(schedule: Schedule, at: datetime) -> None:
    schedule = schedule.placed("America/New_York", "seed")
    found = [at]
    for _ in range(20):
        due = schedule.next(found[-1])
        assert due is not None
        assert due.tzinfo is UTC
        found.append(due)
    assert all(earlier < later for earlier, later in pairwise(found))


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.builds(Until, endless, instants),
        st.builds(Until, endless, naive_ends),
        st.builds(Since, endless, instants),
        st.just(Never()),
        endless,
    )
)
def test_a_schedule_survives_json(schedule: Schedule) -> None:
    for each in (schedule, schedule.placed("Europe/Brussels", "seed")):
        assert from_dict(json.loads(json.dumps(each.as_dict()))) == each


@settings(max_examples=100, deadline=None)
@given(endless)
def test_a_place_is_final(schedule: Schedule) -> None:
    placed = schedule.placed("Europe/Brussels", "seed")
    assert placed == schedule.placed("Europe/Brussels", "seed") == placed.placed("Asia/Tokyo", "another seed")


@settings(deadline=None)
@given(st.sampled_from(ZONES), st.integers(0, 59), instants)
def test_the_local_clock_shows_the_minute_of_an_hourly_grid(zone: str, minute: int, at: datetime) -> None:
    due = ClockGrid(3600, minute * 60, zone=zone).next(at)
    assert due is not None
    assert due.astimezone(ZoneInfo(zone)).minute == minute


# Places


def test_the_phase_is_the_same_in_every_process() -> None:
    assert Interval(3600).placed("UTC", "site a.b").phase == 35.811465
    assert Interval(3600, phase=0).placed("UTC", "site a.b").phase == 0


def test_phases_of_fifty_tasks_spread_over_the_interval() -> None:
    phases = [Interval(50).placed("UTC", f"site tasks.task{number}").phase or 0 for number in range(50)]
    assert len({int(phase) for phase in phases}) > 25
    assert all(0 <= phase < 50 for phase in phases)


@pytest.mark.parametrize(
    "schedule",
    [
        Interval(10),
        WallClock((time(20),)),
        WallClock((time(20),), 3, spread=1, zone="UTC"),
        Cron("@daily"),
        ClockGrid(3600, 0),
        Jittered(Interval(10, phase=0), 5),
        Until(Interval(10, phase=0), datetime(2030, 1, 1)),
    ],
)
def test_an_unplaced_schedule_says_what_it_lacks(schedule: Schedule) -> None:
    for ask in (schedule.next, schedule.previous):
        with pytest.raises(ValueError, match=r"before it was given its place with placed\(zone, seed\)"):
            ask(instant("01-01"))


def test_a_naive_instant_is_refused() -> None:
    with pytest.raises(ValueError, match="naive"):
        Interval(10, phase=0).next(datetime(2026, 1, 1))


def test_an_aware_instant_of_any_zone_is_understood() -> None:
    at = instant("01-01 12:00")
    schedule = WallClock((time(20),), zone="Asia/Tokyo")
    assert schedule.next(at.astimezone(ZoneInfo("Asia/Tokyo"))) == schedule.next(at)


# Jitter and end


def test_jitter_moves_each_due_time_by_another_part() -> None:
    schedule = Jittered(WallClock((time(20),)), 1800).placed("UTC", "seed")
    moves = [due - due.replace(hour=20, minute=0, second=0, microsecond=0) for due in dues(schedule, "01-01", 100)]
    assert all(timedelta() <= move < timedelta(minutes=30) for move in moves)
    assert len(set(moves)) == 100
    assert timedelta(minutes=12) < sum(moves, timedelta()) / 100 < timedelta(minutes=18)


def test_an_irregular_interval_keeps_its_bounds() -> None:
    schedule = Jittered(Interval(450), 150).placed("UTC", "seed")
    gaps = [later - earlier for earlier, later in pairwise(dues(schedule, "01-01", 500))]
    assert timedelta(minutes=5) < min(gaps) < timedelta(minutes=6)
    assert timedelta(minutes=9) < max(gaps) < timedelta(minutes=10)


def test_jitter_as_long_as_the_period_is_refused() -> None:
    with pytest.raises(DeclarationError, match="jitter of 86400 seconds doesn't fit"):
        Jittered(WallClock((time(20),)), 86400)


def test_the_end_is_the_last_possible_due_time() -> None:
    end = instant("01-03 20:00")
    schedule = Until(WallClock((time(20),), zone="UTC"), end)
    assert schedule.next(instant("01-02 20:00")) == end
    assert schedule.next(end) is None
    assert schedule.previous(instant("2030-01-01")) == end


def test_a_naive_end_is_a_local_time_of_the_site() -> None:
    schedule = Until(Interval(10), datetime(2026, 7, 1, 12)).placed("Europe/Brussels", "seed")
    assert schedule.end == instant("07-01 10:00")


def test_the_start_is_the_first_possible_due_time() -> None:
    start = instant("07-01 20:00")
    schedule = Since(WallClock((time(20),), zone="UTC"), start)
    assert schedule.next(instant("01-01 00:00")) == start
    assert schedule.previous(start - timedelta(seconds=1)) is None
    assert schedule.previous(start) == start
    assert schedule.count(instant("06-01 00:00"), instant("07-02 20:00")) == 2


# Days of the calendar


def local(schedule: Schedule, after: str, count: int) -> list[str]:
    """Due times as the clock in Brussels shows them."""
    placed = schedule.placed("Europe/Brussels", "seed")
    return [f"{due.astimezone(ZoneInfo('Europe/Brussels')):%Y-%m-%d %H:%M}" for due in dues(placed, after, count)]


def test_weekly_at_four_on_saturday_is_due_on_the_next_saturday_at_four() -> None:
    schedule = Calendar("weeks", date(2026, 11, 27), time(4), weekdays=(5,))
    assert local(schedule, "11-27 12:00", 2) == ["2026-11-28 04:00", "2026-12-05 04:00"]
    assert local(schedule, "11-28 02:59", 1) == ["2026-11-28 04:00"]
    assert local(schedule, "11-28 03:00", 1) == ["2026-12-05 04:00"]


def test_every_second_week_is_counted_from_the_week_of_the_first_day() -> None:
    schedule = Calendar("weeks", date(2026, 7, 15), time(9), 2, (0, 3))
    days = ["2026-07-16", "2026-07-27", "2026-07-30", "2026-08-10"]
    assert local(schedule, "01-01 00:00", 4) == [f"{day} 09:00" for day in days]


def test_every_third_day_is_counted_from_the_first_day() -> None:
    schedule = Calendar("days", date(2026, 7, 15), time(20), 3)
    assert local(schedule, "01-01 00:00", 2) == ["2026-07-15 20:00", "2026-07-18 20:00"]
    assert local(schedule, "07-18 18:00", 1) == ["2026-07-21 20:00"]


def test_a_day_that_is_none_of_the_weekdays_gives_way_to_the_next_that_is() -> None:
    workdays = (0, 1, 2, 3, 4)
    daily = Calendar("days", date(2026, 7, 16), time(9), weekdays=workdays)
    days = ["2026-07-16", "2026-07-17", "2026-07-20", "2026-07-21"]
    assert local(daily, "01-01 00:00", 4) == [f"{day} 09:00" for day in days]
    monthly = Calendar("months", date(2026, 8, 1), time(9), weekdays=workdays)
    assert local(monthly, "01-01 00:00", 2) == ["2026-08-03 09:00", "2026-09-01 09:00"]


def test_a_month_that_lacks_the_day_has_its_last_one_and_nothing_drifts() -> None:
    schedule = Calendar("months", date(2027, 1, 31), time(4))
    days = ["2027-01-31", "2027-02-28", "2027-03-31", "2027-04-30", "2027-05-31"]
    assert local(schedule, "01-01 00:00", 5) == [f"{day} 04:00" for day in days]
    yearly = Calendar("years", date(2028, 2, 29), time(4))
    assert local(yearly, "01-01 00:00", 3) == ["2028-02-29 04:00", "2029-02-28 04:00", "2030-02-28 04:00"]


def test_the_first_and_the_last_friday_of_a_month() -> None:
    schedule = Calendar("months", date(2026, 7, 10), time(4), weekdays=(4,), positions=(1, -1))
    assert local(schedule, "01-01 00:00", 3) == ["2026-07-31 04:00", "2026-08-07 04:00", "2026-08-28 04:00"]


def test_an_interval_on_some_days_only() -> None:
    schedule = OnDays(Interval(3600, phase=0), (5, 6))
    friday_evening = "07-17 21:00"
    assert local(schedule, friday_evening, 2) == ["2026-07-18 00:00", "2026-07-18 01:00"]
    monday = instant("07-20 12:00")
    assert schedule.placed("Europe/Brussels", "seed").previous(monday) == instant("07-19 21:00")


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Calendar("moons", date(2026, 1, 1)),
        lambda: Calendar("days", date(2026, 1, 1), every=0),
        lambda: Calendar("weeks", date(2026, 1, 1), weekdays=(7,)),
        lambda: Calendar("weeks", date(2026, 1, 1), positions=(1,)),
        lambda: Calendar("months", date(2026, 1, 1), positions=(5,)),
        lambda: OnDays(Interval(10), ()),
    ],
)
def test_what_no_calendar_has_is_refused(declare: Callable[[], Schedule]) -> None:
    with pytest.raises(DeclarationError):
        declare()


def test_what_is_never_due_is_not_due() -> None:
    assert Never().next(instant("01-01 00:00")) is None
    assert Never().previous(instant("01-01 00:00")) is None


# Policy and extremes


@pytest.mark.parametrize(
    ("schedule", "period"),
    [
        (Interval(10), 10),
        (ClockGrid(3600, 0, 2), 7200),
        (WallClock((time(20),)), 86400),
        (WallClock((time(8), time(20))), 43200),
        (WallClock((time(9),), weekdays=(0,)), 604800),
        (WallClock((time(9),), weekdays=(0, 2, 6)), 86400),
        (Cron("*/5 9-17 * * mon-fri"), 300),
        (Cron("@weekly"), 604800),
        (Jittered(Interval(10), 5), 10),
        (Until(Interval(10), instant("2030-01-01")), 10),
        (Since(Interval(10), instant("2030-01-01")), 10),
        (Calendar("days", date(2026, 1, 1), every=3), 259200),
        (Calendar("weeks", date(2026, 1, 1), weekdays=(0, 1)), 86400),
        (Calendar("months", date(2026, 1, 31)), 28 * 86400),
        (Never(), float("inf")),
    ],
)
def test_period_is_the_shortest_usual_distance(schedule: Schedule, period: float) -> None:
    assert schedule.period == period


@pytest.mark.parametrize("zone", ["Etc/GMT-14", "UTC", "Etc/GMT+12"])
@pytest.mark.parametrize(
    "schedule",
    [
        Interval(10),
        WallClock((time(20),)),
        Cron("@daily"),
        Cron("0 0 29 2 *"),
        ClockGrid(3600, 1),
        Jittered(Interval(10), 5),
        Calendar("days", date(1, 1, 1), time(20)),
        Calendar("weeks", date(1, 1, 1), weekdays=(6,)),
        Calendar("months", date(2026, 1, 31)),
        Calendar("years", date(9999, 12, 31)),
        OnDays(Interval(10), (2,)),
        Since(Interval(10), datetime(9999, 12, 1, tzinfo=UTC)),
        Never(),
    ],
)
def test_the_ends_of_the_calendar_are_no_error(schedule: Schedule, zone: str) -> None:
    placed = schedule.placed(zone, "seed")
    assert placed.next(datetime.max.replace(tzinfo=UTC)) is None
    assert placed.previous(datetime.min.replace(tzinfo=UTC)) is None
    placed.previous(datetime.max.replace(tzinfo=UTC))
    placed.next(datetime.min.replace(tzinfo=UTC))


def test_cron_looks_back_over_29_february() -> None:
    schedule = Cron("0 0 29 2 *", zone="UTC")
    assert schedule.previous(instant("2027-06-01")) == instant("2024-02-29")
    assert Cron("0 12 * 2 *", zone="UTC").previous(instant("2024-06-01")) == instant("2024-02-29 12:00")


def test_a_range_of_one_value_is_that_value() -> None:
    schedule = Cron("5-5 20-20/2 * jan-jan mon-mon", zone="UTC")
    assert schedule.expression == "5 20 * jan mon"
    assert Cron("1-15 5-5,7 * * 1-1", zone="UTC").expression == "1-15 5,7 * * 1"
    assert schedule.next(instant("2026-01-01")) == instant("2026-01-05 20:05")


@pytest.mark.parametrize("values", [{}, {"kind": "moon"}, {"kind": "interval"}, {"kind": "interval", "minutes": 5}])
def test_values_of_another_version_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="version of linod"):
        from_dict(values)


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"kind": []},
        {"kind": "interval", "seconds": 5, "phase": "0"},
        {"kind": "interval", "seconds": 5, "phase": float("nan")},
        {"kind": "interval", "seconds": 5, "phase": -1},
        {"kind": "clock-grid", "unit": -60, "offset": 0, "every": -1},
        {"kind": "clock-grid", "unit": 60, "offset": 60},
        {"kind": "wall-clock", "times": ["12:00"], "weekdays": [], "every": 2, "spread": 2},
        {"kind": "wall-clock", "times": ["12:00"], "weekdays": [], "every": 1.5},
        {"kind": "on-days", "weekdays": [1], "zone": "Mars/Olympus", "base": {"kind": "interval", "seconds": 60}},
        {"kind": "since", "start": "2026-01-01", "base": {"kind": "interval", "seconds": 60}},
    ],
)
def test_values_that_no_schedule_has_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        from_dict(values)


def test_a_schedule_within_too_many_others_is_refused() -> None:
    end = {"kind": "until", "end": "2030-01-01T00:00:00+00:00", "zone": None}
    values: dict[str, object] = {"kind": "interval", "seconds": 60}
    for _ in range(5000):
        values = end | {"base": values}
    with pytest.raises(ValueError, match="This is no until"):
        from_dict(values)


def test_schedules_bring_neither_schedule_nor_croniter_nor_django_into_the_daemon() -> None:
    heavy = ("schedule", "croniter", "django", "hashlib", "difflib")
    code = f"import sys, linod.schedules; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_equal_times_in_another_order_are_the_same_schedule() -> None:
    assert WallClock((time(20), time(8), time(20))) == WallClock((time(8), time(20)))
    assert Cron("5  4 * * *") == Cron("5 4 * * *")
