"""A daemon that hangs is ended by systemd, and its successor accounts for what it was doing."""

import pytest

from tests.support.site import time_of_day

TASKS = """
import os, time
import linod

def first(name):
    try:
        os.mkdir(name)
    except FileExistsError:
        return False
    return True

@linod.task(every=3600, rerun_lost=True)
def repeatable():
    time.sleep(60 if first("repeatable") else 0)

@linod.task(every=3600)
def unrepeatable():
    time.sleep(60 if first("unrepeatable") else 0)

@linod.task(at="AT")
def daily():
    pass

@linod.task(every=1)
def often():
    pass
"""


@pytest.fixture(scope="module")
def hung(server):
    """A site whose daemon was stopped in the middle of two runs and until after another due time.

    It has `before`, the daemon's pid then; another one has taken over, and its site is loaded.
    """
    site = server.add_site("hangs", TASKS.replace("AT", time_of_day(5)))
    site.say(WatchdogSec=3, RestartSec="100ms")
    site.start()
    asking = [server.start(f"linodctl run hangs {name}") for name in ("repeatable", "unrepeatable")]
    try:
        for name in ("repeatable", "unrepeatable"):
            site.wait_until_running(name)
        site.wait_for_runs("often")
        site.before = site.pid
        site.signal("STOP")
        server.wait(lambda: site.show("NRestarts", "ActiveState") == ["1", "active"])
        site.wait_for_runs("daily")
        yield site
    finally:
        for process in asking:
            process.kill()
            process.wait()
        site.remove()


def test_the_watchdog_ends_it_and_systemd_starts_another_one(hung):
    assert hung.pid != hung.before
    assert any(
        record.get("MESSAGE", "").startswith("linod@hangs.service: Watchdog timeout") for record in hung.records()
    )


def test_the_journal_shows_where_it_was_as_a_traceback_of_python(hung):
    written = [record["MESSAGE"] for record in hung.records(_PID=str(hung.before), _TRANSPORT="stdout")]
    assert any("Fatal Python error: Aborted" in line for line in written)
    assert any("linod/daemon/loop.py" in line for line in written)


def test_the_runs_that_it_left_are_lost(hung):
    for name in ("repeatable", "unrepeatable"):
        assert hung.runs(name)[0].outcome == "lost"
        [record] = hung.records(LINOD_TASK=name, LINOD_OUTCOME="lost")
        assert record["PRIORITY"] == "3"


def test_a_lost_run_is_repeated_where_its_task_allows_that(hung):
    [_lost, again] = hung.wait_for_runs("repeatable", 2)
    assert (again.outcome, again.trigger, again.attempt) == ("succeeded", "rerun", 2)
    assert [run.outcome for run in hung.runs("unrepeatable")] == ["lost"]


def test_what_fell_due_meanwhile_is_caught_up_once(hung):
    [run] = hung.runs("daily")
    assert run.outcome == "succeeded"


@pytest.mark.claim("P11")
def test_frequent_tasks_just_go_on(hung):
    number = len(hung.ended("often"))
    hung.wait_for_runs("often", number + 2)
    assert "catch-up" not in {run.trigger for run in hung.runs("often")}


def test_nothing_of_the_first_daemon_is_left(hung):
    pids = hung.server.ask(f"ps --no-headers -o pid --ppid {hung.before} || true")
    assert not pids
    assert hung.before not in hung.processes()
