"""systemctl stop: what runs may end, but not for ever."""

import time

import pytest

TASKS = """
import os, signal, time
import linod

@linod.task(every=3600)
def polite():
    time.sleep(1.5)
    print("finished")

@linod.task(every=3600, grace=1)
def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)

@linod.task(every=3600, grace=40)
def slow_to_end():
    try:
        time.sleep(60)
    finally:
        time.sleep(4)
        open("cleaned-up", "w").close()
"""


@pytest.fixture
def stops(server, add_site):
    """Start a site with one of its tasks running; returns a function that does it."""
    runs = []

    def start(task, drain_timeout=0.5, **directives):
        site = add_site("stops", TASKS, settings=f"LINOD = {{'drain_timeout': {drain_timeout}}}")
        site.say(**directives)
        site.start()
        runs.append(server.start(f"linodctl run stops {task} >/dev/null 2>&1"))
        site.wait_until_running(task)
        return site

    yield start
    for process in runs:
        process.kill()
        process.wait()


def seconds_to_stop(site):
    begun = time.monotonic()
    site.stop()
    return time.monotonic() - begun


@pytest.mark.claim("P22")
def test_a_run_may_end_and_is_recorded_as_succeeded(stops):
    site = stops("polite", drain_timeout=30)
    assert seconds_to_stop(site) < 10
    [run] = site.runs("polite")
    assert (run.outcome, run.output) == ("succeeded", "finished")
    assert site.show("ActiveState", "Result") == ["inactive", "success"]


@pytest.mark.claim("P22")
def test_a_run_that_ignores_term_is_killed_and_recorded(stops):
    site = stops("deaf")
    assert seconds_to_stop(site) < 10
    [run] = site.runs("deaf")
    assert run.outcome == "cancelled"
    assert site.show("ActiveState", "Result") == ["inactive", "success"]


def test_stop_takes_no_longer_than_the_limit_of_the_unit(stops):
    site = stops("deaf", drain_timeout=60, TimeoutStopSec=2)
    assert seconds_to_stop(site) < 6
    assert site.active == "failed"
    assert not site.processes()


def test_a_run_that_systemd_has_killed_is_lost(stops):
    site = stops("deaf", drain_timeout=60, TimeoutStopSec=1)
    site.stop()
    site.start()
    [run] = site.wait_for_runs("deaf")
    assert run.outcome == "lost"


def test_a_task_that_has_announced_a_longer_grace_than_usual_gets_it(stops):
    """The stop lasts longer than TimeoutStopSec, because the daemon asks systemd for more time."""
    site = stops("slow_to_end", TimeoutStopSec=2)
    assert 4 < seconds_to_stop(site) < 15
    assert site.show("ActiveState", "Result") == ["inactive", "success"]
    assert site.exists("cleaned-up")


@pytest.mark.claim("P22")
def test_nothing_starts_any_more_once_a_stop_was_asked_for(server, add_site):
    site = add_site(
        "drains",
        """
        import time
        import linod

        @linod.task(every=0.3)
        def often():
            pass

        @linod.task(every=3600)
        def long():
            time.sleep(2)
        """,
    )
    site.start()
    site.wait_for_runs("often")
    asking = server.start("linodctl run drains long >/dev/null")
    site.wait_until_running("long")
    server.run(f"systemctl stop --no-block {site.unit}")
    server.wait(lambda: "Stopping" in site.status)
    begun = len(site.ended("often"))
    server.wait(lambda: site.active == "inactive")
    assert asking.wait(10) == 0
    assert len(site.ended("often")) <= begun + 1
    assert [run.outcome for run in site.runs("long")] == ["succeeded"]
