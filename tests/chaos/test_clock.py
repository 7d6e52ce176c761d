"""The clock of a world is the clock of its processes, and their timers follow it."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.clock import Clock
from tests.support.site import ROOT

START = datetime(2027, 3, 28, 0, 59, 59, tzinfo=UTC)
SLEEPER = """
import select, sys, time
from datetime import UTC, datetime, timedelta
from linod.linux import WallClockTimer

timer, began = WallClockTimer(), time.monotonic()
timer.set(datetime.now(UTC) + timedelta(seconds=float(sys.argv[1])))
print("armed", flush=True)
assert select.select([timer], [], [], 60)[0]
print(datetime.now(UTC).timestamp(), time.time(), time.monotonic() - began)
"""


def sleeper(clock, seconds):
    """A process that waits for a timer of the wall clock, and then tells what time it is."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(seconds)],
        env={**os.environ, **clock.environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "armed\n"
    return process


def told(process):
    text, _errors = process.communicate(timeout=60)
    return [float(number) for number in text.split()]


def test_a_timer_fires_at_its_time(tmp_path):
    clock = Clock(tmp_path, start=START)
    by_datetime, by_time, waited = told(sleeper(clock, 0.5))
    assert by_datetime == pytest.approx(by_time, abs=5)
    assert START.timestamp() < by_time < clock.now().timestamp()
    assert waited >= 0.5


@pytest.mark.parametrize("by", [timedelta(hours=2), timedelta(hours=-2)], ids=["forward", "back"])
def test_a_timer_fires_when_the_clock_is_set(tmp_path, by):
    clock = Clock(tmp_path, start=START)
    process = sleeper(clock, 3600)
    clock.move(by, process.pid)
    _by_datetime, by_time, _waited = told(process)
    assert abs(by_time - (START + by).timestamp()) < 50
