"""What a row of Lino says about when it is due, as a schedule and in words."""

from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from linod.errors import DeclarationError
from linod.site.lino.recurrence import Recurrence

BRUSSELS = ZoneInfo("Europe/Brussels")
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)  # a Friday


def recurrence(unit: str, every: int = 1, **said: Any) -> Recurrence:
    nothing: dict[str, Any] = dict.fromkeys(("start_date", "start_time", "end_date", "end_time"))
    return Recurrence(unit=unit, every=every, **{"weekdays": (), "positions": ()} | nothing | said)


def dues(said: Recurrence, count: int, after: datetime = NOON, zone: ZoneInfo = BRUSSELS) -> list[str]:
    schedule = said.schedule(zone.key).placed(zone.key, "seed")
    found: list[str] = []
    for _ in range(count):
        due = schedule.next(after)
        if due is None:
            break
        found.append(f"{due.astimezone(zone):%Y-%m-%d %H:%M:%S}")
        after = due
    return found


@pytest.mark.parametrize(
    ("said", "words", "expected"),
    [
        (
            recurrence("weekly", weekdays=(5,), start_time=time(4), start_date=date(2026, 11, 27)),
            "Every 1 week on saturday at 04:00:00",
            ["2026-11-28 04:00:00", "2026-12-05 04:00:00"],
        ),
        (
            recurrence("daily", 2, start_time=time(20, 30), start_date=date(2026, 11, 27)),
            "Every 2 days at 20:30:00",
            ["2026-11-27 20:30:00", "2026-11-29 20:30:00"],
        ),
        (recurrence("daily"), "Every 1 day at 00:00:00", ["2026-11-28 00:00:00", "2026-11-29 00:00:00"]),
        (
            recurrence("per_weekday", weekdays=(0, 2)),
            "Every 1 day on monday, wednesday at 00:00:00",
            ["2026-11-30 00:00:00", "2026-12-02 00:00:00"],
        ),
        (
            recurrence("monthly", start_date=date(2026, 8, 31)),
            "Every 1 month at 00:00:00",
            ["2026-11-30 00:00:00", "2026-12-31 00:00:00"],
        ),
        (
            recurrence("monthly", weekdays=(4,), positions=(-1,), start_time=time(6)),
            "Every 1 month (-1) on friday at 06:00:00",
            ["2026-12-25 06:00:00", "2027-01-29 06:00:00"],
        ),
        (
            recurrence("yearly", 2, start_date=date(2025, 3, 1)),
            "Every 2 years at 00:00:00",
            ["2027-03-01 00:00:00", "2029-03-01 00:00:00"],
        ),
        (
            recurrence("hourly", 4, start_time=time(6, 15), start_date=date(2026, 11, 1)),
            "Every 4 hours",
            ["2026-11-27 14:15:00", "2026-11-27 18:15:00"],
        ),
        (
            recurrence("minutely", 30, start_time=time(0), start_date=date(2026, 12, 24), end_date=date(2026, 12, 24)),
            "Every 30 minutes",
            ["2026-12-24 00:00:00", "2026-12-24 00:30:00"],
        ),
        (
            recurrence("secondly", 20, start_time=time(0), weekdays=(6,)),
            "Every 20 seconds on sunday",
            ["2026-11-29 00:00:00", "2026-11-29 00:00:20"],
        ),
        (
            recurrence("once", start_date=date(2027, 1, 1), start_time=time(4)),
            "Once at 2027-01-01 04:00:00",
            ["2027-01-01 04:00:00"],
        ),
        (recurrence("never", start_date=date(2026, 1, 1)), "Never", []),
    ],
)
def test_a_row_is_due_when_it_says(said: Recurrence, words: str, expected: list[str]) -> None:
    assert said.words() == words
    assert dues(said, 2) == expected


def test_hours_are_counted_from_a_start_time_of_today() -> None:
    """In 1970, clocks in London were an hour ahead of what they show in winter now."""
    london = ZoneInfo("Europe/London")
    said = recurrence("hourly", 4, start_time=time(6, 15))
    assert dues(said, 2, zone=london) == ["2026-11-27 14:15:00", "2026-11-27 18:15:00"]


def test_a_last_day_is_whole() -> None:
    said = recurrence("hourly", start_time=time(0), end_date=date(2026, 11, 27))
    assert dues(said, 100)[-1] == "2026-11-27 23:00:00"


@pytest.mark.parametrize("said", [recurrence("daily", 0), recurrence("secondly", -1), recurrence("easter")])
def test_what_makes_no_sense_is_refused(said: Recurrence) -> None:
    with pytest.raises(DeclarationError):
        said.schedule("UTC")
