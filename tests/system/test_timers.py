"""linod-run@: a site without a resident process, looked after once a minute."""

import time

import pytest

from tests.support.site import time_of_day, until

TASKS = """
import os
import linod

with open("loaded", "a") as file:
    file.write("x")

@linod.task(at="AT")
def daily():
    print("done")
"""
SOONER = "[Timer]\nOnCalendar=\nOnCalendar=*-*-* *:*:*\nRandomizedDelaySec=0\nAccuracySec=10ms\n"


@pytest.fixture
def site(server, add_site):
    """A site whose daily task falls due some seconds after it was looked at first."""
    site = add_site("timed", TASKS.replace("AT", time_of_day(4)))
    site.due = time.time() + 4
    site.pass_unit, site.timer = "linod-run@timed.service", "linod-run@timed.timer"
    server.run(f"systemctl start {site.pass_unit}")
    return site


def times_loaded(site):
    return len(site.read("loaded"))


def test_a_pass_runs_what_is_due_since_the_last_one(site):
    assert site.runs("daily") == []
    until(lambda: time.time() > site.due)
    site.server.run(f"systemctl start {site.pass_unit}")
    [run] = site.runs("daily")
    assert (run.outcome, run.output) == ("succeeded", "done")


def test_a_pass_without_anything_due_does_not_load_the_site(site):
    until(lambda: time.time() > site.due)
    site.server.run(f"systemctl start {site.pass_unit}")
    loaded = times_loaded(site)
    for _ in range(3):
        site.server.run(f"systemctl start {site.pass_unit}")
    assert times_loaded(site) == loaded
    assert len(site.runs("daily")) == 1


def test_the_timer_starts_a_pass(site):
    site.drop_in(SOONER, unit=site.timer)
    site.server.run(f"systemctl start {site.timer}")
    site.wait_for_runs("daily")
    assert len(site.runs("daily")) == 1


def test_starting_the_daemon_stops_the_timer(site):
    site.server.run(f"systemctl start {site.timer}")
    site.start()
    assert site.server.show(site.timer, "ActiveState") == "inactive"
    assert site.active == "active"


def test_starting_the_timer_stops_the_daemon(site):
    site.start()
    site.server.run(f"systemctl start {site.timer}")
    site.server.wait(lambda: site.active == "inactive")
    assert site.server.show(site.timer, "ActiveState") == "active"


def test_a_pass_beside_the_daemon_leaves_the_work_to_it(site):
    site.start()
    pid = site.pid
    site.server.run(f"systemctl start {site.pass_unit}")
    assert (site.active, site.pid) == ("active", pid)
    [run] = site.wait_for_runs("daily")
    assert run.trigger == "schedule"
    assert site.server.show(site.pass_unit, "Result") == "success"


def test_a_pass_says_nothing_where_nothing_was_to_do(site):
    until(lambda: time.time() > site.due)
    site.server.run(f"systemctl start {site.pass_unit}")
    before = len(site.server.records(site.pass_unit))
    site.server.run(f"systemctl start {site.pass_unit}")
    assert len(site.server.records(site.pass_unit)) == before


def test_what_was_missed_while_the_host_was_down_is_run_by_the_timer_after_the_boot(site):
    server = site.server
    site.drop_in(SOONER, unit=site.timer)
    server.run(f"systemctl enable {site.timer}")
    server.power_off()
    until(lambda: time.time() > site.due)
    server.boot()
    [run] = site.wait_for_runs("daily", timeout=90)
    assert run.outcome == "succeeded"
    assert site.active == "inactive"
