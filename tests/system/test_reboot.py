"""After a reboot: who was enabled is back, and what was missed is done once."""

import time

import pytest

from tests.support.site import time_of_day, until

DAILY = """
import linod

@linod.task(at="AT")
def daily():
    pass

@linod.task(every=1)
def often():
    pass
"""
DATABASE_AT_START = """
import linod
from django.db import connection

connection.cursor().execute("SELECT 1")

@linod.task(every=1)
def often():
    pass
"""
CAUGHT_UP_WITHIN = 90  # seconds: after a boot, catch-up is spread over a minute


def is_off_when_due(server, site, seconds):
    """Let the daily task of a site be due after so many seconds; whether the server was switched off by then."""
    due = time.time() + seconds
    site.declare(DAILY.replace("AT", time_of_day(seconds)))
    site.systemctl("enable --now")
    site.wait_for_runs("often")
    server.power_off()
    in_time = not site.runs("daily")
    until(lambda: time.time() > due, timeout=seconds)
    server.boot()
    return in_time


def test_an_enabled_site_is_back_and_has_caught_up_once(server, add_site):
    # A busy machine takes its time.
    for number, seconds in enumerate((4, 10, 30, 90)):
        site = add_site(f"enabled-{number}")
        if is_off_when_due(server, site, seconds):
            break
    assert site.active == "active"
    [run] = site.wait_for_runs("daily", timeout=CAUGHT_UP_WITHIN)
    assert (run.trigger, run.outcome) == ("catch-up", "succeeded")
    site.wait_for_runs("often", len(site.ended("often")) + 2)
    assert len(site.runs("daily")) == 1


def test_a_site_that_was_not_enabled_stays_down(server, add_site):
    site = add_site("not-enabled", DAILY.replace("AT", "23:59"))
    site.start()
    server.reboot()
    assert site.active == "inactive"


def test_the_host_waits_for_runs_that_end_soon_when_it_goes_down(server, add_site):
    site = add_site(
        "going-down",
        """
        import time
        import linod

        @linod.task(every=3600)
        def work():
            time.sleep(1.5)
        """,
    )
    site.systemctl("enable --now")
    server.start("linodctl run going-down work >/dev/null 2>&1")
    site.wait_until_running("work")
    server.reboot()
    [run] = site.runs("work")
    assert run.outcome == "succeeded"


@pytest.mark.claim("P4")
def test_a_run_that_a_power_failure_has_ended_is_lost(server, add_site):
    site = add_site(
        "power-failure",
        """
        import os, time
        import linod

        @linod.task(every=3600, rerun_lost=True)
        def work():
            if not os.path.exists("begun"):
                open("begun", "w").close()
                time.sleep(100)
        """,
    )
    site.systemctl("enable --now")
    asking = server.start("linodctl run power-failure work >/dev/null 2>&1")
    server.wait(lambda: site.exists("begun"))
    server.kill()
    asking.wait(10)
    server.boot()
    [lost, again] = site.wait_for_runs("work", 2)
    assert lost.outcome == "lost"
    assert (again.outcome, again.trigger) == ("succeeded", "rerun")


def test_a_site_whose_database_is_down_at_boot_waits_for_it_and_recovers(server, add_site):
    settings = "DATABASES['default']['NAME'] = 'data/db.sqlite3'"
    site = add_site("database-down", DATABASE_AT_START, settings=settings)
    site.systemctl("enable")
    server.reboot()
    server.wait(lambda: site.active == "active")
    assert "waiting for the site: OperationalError: unable to open database file" in site.status
    server.run(f"mkdir {site.directory}/data && chown www-data: {site.directory}/data")
    site.wait_for_runs("often")
    assert "waiting" not in site.status
