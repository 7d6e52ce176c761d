"""How authors say when a task is due, and what they are told when that can't be."""

import subprocess
import sys
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import schedule
from schedule import every

from linod.errors import DeclarationError
from linod.schedules import (
    ClockGrid,
    Cron,
    Interval,
    Jittered,
    Until,
    WallClock,
    call_text,
    declare,
    from_job,
    take_registered_jobs,
)

ROOT = Path(__file__).resolve().parents[2]
ZONED = hasattr(every(), "at_time_zone")


@pytest.fixture(autouse=True)
def _empty_default_scheduler():
    schedule.clear()
    yield
    schedule.clear()


def remind(*_arguments, **_keywords):
    """A task of the tests."""


KEYWORDS = [
    ({"every": 10}, "Every 10 seconds", Interval(10)),
    ({"every": 10.0}, "Every 10 seconds", Interval(10)),
    ({"every": 1}, "Every 1 second", Interval(1)),
    ({"every": 0.5}, "Every 0.5 seconds", Interval(0.5)),
    ({"every": 3600}, "Every 3600 seconds", Interval(3600)),
    ({"every": timedelta(hours=1)}, "Every 1 hour", Interval(3600)),
    ({"every": timedelta(seconds=90)}, "Every 90 seconds", Interval(90)),
    ({"every": timedelta(milliseconds=500)}, "Every 0.5 seconds", Interval(0.5)),
    ({"every": "15min"}, "Every 15 minutes", Interval(900)),
    ({"every": "10 s"}, "Every 10 seconds", Interval(10)),
    ({"every": "2 hours"}, "Every 2 hours", Interval(7200)),
    ({"every": "1.5h"}, "Every 1.5 hours", Interval(5400)),
    ({"every": "1h30min"}, "Every 90 minutes", Interval(5400)),
    ({"every": "24 h"}, "Every 24 hours", Interval(86400)),
    ({"every": "1 Day"}, "Every 1 day", Interval(86400)),
    ({"at": "20:00"}, "Every 1 day at 20:00:00", WallClock((time(20),))),
    ({"at": "8:05:30"}, "Every 1 day at 08:05:30", WallClock((time(8, 5, 30),))),
    ({"at": time(20)}, "Every 1 day at 20:00:00", WallClock((time(20),))),
    ({"at": ["08:00", "20:00"]}, "Every 1 day at 08:00:00, 20:00:00", WallClock((time(8), time(20)))),
    ({"at": "20:00", "tz": "Asia/Tokyo"}, "Every 1 day at 20:00:00", WallClock((time(20),), zone="Asia/Tokyo")),
    (
        {"at": "20:00", "tz": ZoneInfo("Asia/Tokyo")},
        "Every 1 day at 20:00:00",
        WallClock((time(20),), zone="Asia/Tokyo"),
    ),
    ({"at": "20:00", "tz": UTC}, "Every 1 day at 20:00:00", WallClock((time(20),), zone="UTC")),
    ({"every": "3 days", "at": "20:00"}, "Every 3 days at 20:00:00", WallClock((time(20),), 3)),
    ({"every": 86400, "at": "20:00"}, "Every 1 day at 20:00:00", WallClock((time(20),))),
    ({"every": "1 week", "at": "20:00"}, "Every 1 week at 20:00:00", WallClock((time(20),), 7)),
    ({"cron": "5 4 * * *"}, 'Cron "5 4 * * *"', Cron("5 4 * * *")),
    ({"cron": "@daily", "tz": "UTC"}, 'Cron "@daily"', Cron("@daily", zone="UTC")),
    ({"every": 60, "jitter": "10s"}, "Every 60 seconds", Jittered(Interval(60), 10)),
    (
        {"every": 60, "until": datetime(2030, 1, 1, tzinfo=ZoneInfo("Europe/Brussels"))},
        "Every 60 seconds",
        Until(Interval(60), datetime(2029, 12, 31, 23, tzinfo=UTC)),
    ),
]


@pytest.mark.parametrize(("keywords", "text", "expected"), KEYWORDS)
def test_keywords(keywords, text, expected):
    assert declare(**keywords) == (expected, text)


JOBS = [
    (lambda: every(10).seconds, Interval(10)),
    (lambda: every().second, Interval(1)),
    (lambda: every(15).minutes, Interval(900)),
    (lambda: every().hour, Interval(3600)),
    (lambda: every().day, Interval(86400)),
    (lambda: every(2).weeks, Interval(2 * 604800)),
    (lambda: every(5).to(10).minutes, Jittered(Interval(450), 150)),
    (lambda: every(5).to(5).minutes, Interval(300)),
    (lambda: every().minute.at(":30"), ClockGrid(60, 30)),
    (lambda: every().hour.at(":15"), ClockGrid(3600, 900)),
    (lambda: every(2).hours.at("10:30"), ClockGrid(3600, 630, 2)),
    (lambda: every(2).to(5).hours.at(":15"), ClockGrid(3600, 900, 3, 1)),
    (lambda: every().day.at("20:00"), WallClock((time(20),))),
    (lambda: every(3).days.at("20:00:30"), WallClock((time(20, 0, 30),), 3)),
    (lambda: every(5).to(10).days.at("20:00"), WallClock((time(20),), 7, spread=2)),
    (lambda: every().monday, WallClock((time(0),), weekdays=(0,))),
    (lambda: every().sunday.at("09:00"), WallClock((time(9),), weekdays=(6,))),
    (lambda: every().to(3).monday.at("09:00"), WallClock((time(9),), 2, (0,), 1)),
    (lambda: every().day.at("20:00").tag("nightly"), WallClock((time(20),))),
    (
        lambda: every().hour.until("2039-07-01 18:30"),
        Until(Interval(3600), datetime(2039, 7, 1, 18, 30)),
    ),
]


@pytest.mark.parametrize(("job", "expected"), JOBS)
def test_jobs(job, expected):
    assert declare(job()).schedule == expected


@pytest.mark.parametrize(("job", "_expected"), JOBS)
def test_the_text_of_a_job_is_that_of_its_repr(job, _expected):
    finished = job().do(remind, 1, "a", urgent=True)
    assert repr(finished).startswith(f"{from_job(finished).text} do {call_text(finished)} (last run: ")
    assert call_text(finished) == "remind(1, 'a', urgent=True)"


def test_every_combination_of_the_grammar_has_due_times():
    at = {"minutes": ":30", "hours": ":15", "days": "20:00"}
    after = datetime(2026, 7, 14, tzinfo=UTC)
    for unit in ("seconds", "minutes", "hours", "days", "weeks"):
        for latest in (None, 5):
            for time_of_day in (None, at.get(unit)):
                job = getattr(every(2), unit)
                job = job if latest is None else job.to(latest)
                job = job if time_of_day is None else job.at(time_of_day)
                due = declare(job).schedule.placed("Europe/Brussels", "seed").next(after)
                assert due is not None
                assert after < due <= after + 10 * timedelta(**{unit: 1})


def test_an_irregular_number_of_days_keeps_the_time_of_day():
    placed = declare(every(5).to(10).days.at("20:00")).schedule.placed("UTC", "seed")
    due = placed.next(datetime(2026, 1, 1, tzinfo=UTC))
    gaps = set()
    for _ in range(100):
        following = placed.next(due)
        assert following.time() == time(20)
        gaps.add((following - due).days)
        due = following
    assert gaps == {5, 6, 7, 8, 9}


@pytest.mark.skipif(not ZONED, reason="schedule 1.1 has no zones")
def test_the_zone_of_a_job_goes_before_that_of_the_site():
    job = every().day.at("10:30", "Europe/Amsterdam").until("2039-07-01 18:30")
    expected = Until(
        WallClock((time(10, 30),), zone="Europe/Amsterdam"), datetime(2039, 7, 1, 18, 30), "Europe/Amsterdam"
    )
    assert declare(job).schedule == declare(job, tz="Asia/Tokyo").schedule == expected
    assert expected.placed("Asia/Tokyo", "seed").end == datetime(2039, 7, 1, 16, 30, tzinfo=UTC)


def test_keywords_complete_a_job():
    end = datetime(2039, 1, 1, tzinfo=UTC)
    found = declare(every().day.at("10:30"), tz="Asia/Tokyo", jitter=60, until=end).schedule
    assert found == Until(Jittered(WallClock((time(10, 30),), zone="Asia/Tokyo"), 60), end)


def test_no_jitter_goes_beyond_the_end_of_a_job():
    found = declare(every().day.at("10:30").until("2039-07-01"), jitter=60).schedule
    assert found == Until(Jittered(WallClock((time(10, 30),)), 60), datetime(2039, 7, 1))


def test_jobs_on_the_default_scheduler_are_found_in_their_order():
    first, second = every(10).seconds.do(remind), every().day.do(remind)
    _unfinished = every().hour
    assert take_registered_jobs() == [first, second]


def test_an_end_in_the_past_is_no_mistake():
    """A site must not stop loading on the day on which one of its tasks ends."""
    end = datetime(2001, 1, 1, tzinfo=UTC)
    assert declare(every=10, until=end).schedule.placed("UTC", "s").next(datetime(2026, 1, 1, tzinfo=UTC)) is None


MISTAKES = [
    ({"every": 0}, "cannot run every 0 seconds", "every=10"),
    ({"every": -5}, "cannot run every -5 seconds", "every=10"),
    ({"every": timedelta()}, "cannot run every 0", "every=10"),
    ({"every": "0 min"}, "cannot run every 0", "every=10"),
    ({"every": 0.01}, "the shortest interval is 0.1 seconds", "every=10"),
    ({"every": 10**30}, "the longest 100 years", "every=10"),
    ({"every": float("inf")}, "cannot run every inf", "every=10"),
    ({"every": float("nan")}, "cannot run every nan", "every=10"),
    ({"every": True}, "every=True is not a length of time", "every=10"),
    ({"every": "10"}, "every='10' is not a length of time", '"15min"'),
    ({"every": "a while"}, "is not a length of time", '"15min"'),
    ({"every": "1 month"}, "is not a length of time", '"15min"'),
    ({"every": "5h", "at": "20:00"}, "not a whole number of days", 'every="3 days"'),
    ({"every": float("nan"), "at": "20:00"}, "not a whole number of days", 'every="3 days"'),
    ({"every": 0, "at": "20:00"}, "cannot run every 0", "every=10"),
    ({"at": "25:00"}, "at='25:00' is not a time of day", 'at="20:00"'),
    ({"at": "24:00"}, "is not a time of day", "from 00:00 to 23:59"),
    ({"at": "8pm"}, "is not a time of day", 'at="20:00"'),
    ({"at": "20.00"}, "is not a time of day", 'at="20:00"'),
    ({"at": 20}, "is not a time of day", 'at="20:00"'),
    ({"at": []}, "is not a time of day", 'at="20:00"'),
    ({"at": ["08:00", "noon"]}, "at='noon' is not a time of day", 'at="20:00"'),
    ({"at": time(20, tzinfo=UTC)}, "is not a time of day", "the zone goes into tz="),
    ({"at": "20:00", "tz": "Europe/Brussel"}, "no time zone 'Europe/Brussel'", "Did you mean Europe/Brussels"),
    ({"at": "20:00", "tz": "brussels"}, "no time zone 'brussels'", "Did you mean Europe/Brussels?"),
    ({"at": "20:00", "tz": "Europe"}, "no time zone 'Europe'", ""),
    ({"at": "20:00", "tz": "/etc/localtime"}, "no time zone", ""),
    ({"at": "20:00", "tz": 2}, "2 is not the name of a time zone", 'tz="Europe/Brussels"'),
    ({"every": 10, "tz": "Mars/Olympus"}, "no time zone", ""),
    ({"cron": "61 * * * *"}, "is not an expression of cron", 'cron="5 4 * * mon"'),
    ({"cron": "* * * *"}, "has 4 fields, not five", 'cron="5 4 * * mon"'),
    ({"cron": "* * * * * *"}, "has 6 fields, not five", 'cron="5 4 * * mon"'),
    ({"cron": "@reboot"}, "is not an expression of cron", "@daily"),
    ({"cron": "0 0 31 2 *"}, "matches no date at all", 'cron="5 4 * * mon"'),
    ({"cron": "R * * * *"}, "random fields", "jitter=60"),
    ({"cron": 5}, "cron=5 is not a text", 'cron="5 4 * * mon"'),
    ({"every": 10, "jitter": 10}, "jitter of 10 seconds doesn't fit", "shorter than the time between two runs"),
    ({"every": 10, "jitter": -1}, "jitter of -1 seconds doesn't fit", "longer than 0"),
    ({"every": 10, "jitter": True}, "jitter=True is not a length of time", "jitter=10"),
    ({"every": 10, "until": datetime(2039, 1, 1)}, "an end needs its time zone", 'tzinfo=ZoneInfo("Europe/Brussels")'),
    ({"every": 10, "until": "2039-01-01"}, "an end needs its time zone", "tzinfo=UTC"),
    ({"every": 10, "until": datetime.min.replace(tzinfo=UTC)}, "between the years 1970 and 9999", "leave out until="),
    ({"every": 10, "until": datetime.max.replace(tzinfo=UTC)}, "between the years 1970 and 9999", "leave out until="),
    ({"every": 10, "cron": "@daily"}, "every and cron don't go together", "Write every=10, or"),
    ({"at": "20:00", "cron": "@daily"}, "at and cron don't go together", "Write every=10, or"),
    ({}, "isn't said when the task is due", "Write every=10, or"),
    ({"job": 10}, "10 is not a job", "every=10"),
]


@pytest.mark.parametrize(("keywords", "problem", "remedy"), MISTAKES)
def test_mistakes_in_keywords_are_answered_with_what_to_write(keywords, problem, remedy):
    with pytest.raises(DeclarationError) as caught:
        declare(**keywords)
    assert problem in caught.value.message
    assert remedy in caught.value.hint


JOB_MISTAKES = [
    (lambda: every(0).seconds, "cannot run every 0 seconds", "every=10"),
    (lambda: every(-1).days.at("20:00"), "cannot run every -86400 seconds", "every=10"),
    (lambda: every(10), "every(10) has no unit", "schedule.every(10).seconds"),
    (lambda: every(5).to(3).seconds, "every(5).to(3) goes backward", "every(3).to(5)"),
    (lambda: every(5).to(10**12).seconds, "the longest 100 years", "every=10"),
    (lambda: every(1.5).days.at("20:00"), "whole number of days", "every(2)"),
    (lambda: every(True).seconds, "True is not a number of seconds", "every(10)"),
    (lambda: every("10").seconds, "'10' is not a number of seconds", "every(10)"),
    (lambda: every().monday.day, "monday doesn't go with days", "every().monday"),
    (lambda: every().hour.until(datetime.max), "between the years 1970 and 9999", "leave out until="),
    (lambda: every().day.at("20:00").second, "no time of day", "every().day"),
]


@pytest.mark.parametrize(("job", "problem", "remedy"), JOB_MISTAKES)
def test_mistakes_in_jobs_are_answered_with_what_to_write(job, problem, remedy):
    with pytest.raises(DeclarationError) as caught:
        declare(job())
    assert problem in caught.value.message
    assert remedy in caught.value.hint


WITHOUT_CRONITER = """
import sys
sys.modules["croniter"] = None
import linod
linod.task(cron="11 11 * * *")(print)
"""


def test_a_missing_croniter_is_named_with_the_way_to_install_it(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True, timeout=60)
    python = f"{tmp_path}/env/bin/python"
    for interpreter, how in (
        (python, f"Run {python} -m pip install croniter"),
        ("/usr/bin/python3", "Run apt install python3-croniter"),
    ):
        done = subprocess.run(
            [interpreter, "-c", WITHOUT_CRONITER],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert f"croniter, which is not installed. {how}" in done.stderr
