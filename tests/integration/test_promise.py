"""The promise: a run whose end nobody saw is lost, and repeated only where its task allows it; what never began is
caught up."""

import time

import pytest

from linod.archive import connect
from linod.instants import to_micros
from tests.support.site import Site, is_alive, time_of_day, until

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow

TASKS = """
import linod, os, time

def work(name):
    if os.path.exists(name):
        return
    open(name, "w").close()
    time.sleep(60)

@linod.task(every=1, rerun_lost=True, timeout=100)
def repeatable():
    work("repeatable")

@linod.task(every=1, timeout=100)
def precious():
    work("precious")
"""


# Lost


@pytest.mark.claim("P4", "P5", "P6")
def test_a_lost_run_is_recorded_and_repeated_only_where_that_is_safe(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with site.daemon() as daemon:
        until(lambda: all((site.path / name).exists() for name in ("repeatable", "precious")))
        daemon.kill()
    assert not site.ended(), "none is half reported"
    with site.daemon():
        lost, *later = site.wait_for_runs("repeatable", 3)
        assert (lost.outcome, lost.reason) == ("lost", "the daemon died while it was running")
        assert lost.started and not lost.ended
        [again] = [run for run in later if run.due == lost.due]
        assert (again.trigger, again.attempt, again.outcome) == ("rerun", 2, "succeeded")
        lost, *later = site.wait_for_runs("precious", 3)
        assert lost.outcome == "lost"
        assert not [run for run in later if run.due == lost.due]
    with site.daemon():
        site.wait_for_runs("precious", len(site.ended("precious")) + 1)
        assert sum(run.outcome == "lost" for run in site.runs()) == 2  # and stays so


@pytest.mark.claim("P4")
def test_what_a_lost_run_left_in_its_session_is_ended_by_the_successor(tmp_path):
    tasks = """
    import linod, os, subprocess, time

    @linod.task(every=0.5, timeout=100)
    def starts():
        if not os.path.exists("pid"):
            child = subprocess.Popen(["sleep", "60"])
            open("pid", "w").write(str(child.pid))
            time.sleep(60)
    """
    site = Site(tmp_path, tasks=tasks)
    with site.daemon() as daemon:
        pid_file = site.path / "pid"
        pid = int(until(lambda: pid_file.exists() and pid_file.read_text()))
        daemon.kill()
    assert is_alive(pid)
    with site.daemon():
        until(lambda: not is_alive(pid), timeout=10)


@pytest.mark.claim("P3")
def test_a_daemon_killed_at_random_moments_forgets_no_run(tmp_path):
    """Each run that began is in history with an outcome, whenever its daemon was killed."""
    tasks = """
    import linod, os

    @linod.task(every=0.1)
    def notes():
        with open("began", "a") as file:
            file.write(os.environ["LINOD_RUN"] + "\\n")
    """
    site = Site(tmp_path, tasks=tasks)
    for number in range(6):
        before = len(site.ended())
        with site.daemon() as daemon:
            daemon.wait_for(lambda before=before: len(site.ended()) > before + 3)
            time.sleep(0.013 * number)  # another moment each time
            daemon.kill()
    with site.daemon() as daemon:
        site.wait_for_runs("notes", len(site.ended()) + 5)
        assert daemon.terminate() == 0
    began = [int(line) for line in (site.path / "began").read_text().split()]
    assert len(began) == len(set(began))
    recorded = {run.id: run.outcome for run in site.runs()}
    assert {recorded.get(id) for id in began} <= {"succeeded", "lost"}


# Missed


def declare_daily(seconds, catch_up="once"):
    return f"""
    import linod

    @linod.task(at="{time_of_day(seconds)}", catch_up="{catch_up}")
    def daily():
        print("done")
    """


@pytest.mark.parametrize("catch_up", ["once", "none", "all"])
@pytest.mark.claim("P10")
def test_due_times_that_passed_while_no_daemon_ran_are_caught_up(tmp_path, catch_up):
    site = Site(tmp_path, tasks=declare_daily(3600, catch_up))
    with site.daemon() as daemon:
        until(lambda: known_tasks(site))
        daemon.kill()
    assert not site.runs()
    make_older(site, days=3)
    with site.daemon() as daemon:
        daemon.wait_for(lambda: site.runs() and all(run.outcome for run in site.runs()))
        assert daemon.terminate() == 0
    runs = site.runs()
    match catch_up:
        case "once":
            [run] = runs
            assert (run.trigger, run.outcome, run.dues) == ("catch-up", "succeeded", 3)
        case "all":
            assert [(run.trigger, run.outcome, run.dues) for run in runs] == [("catch-up", "succeeded", 1)] * 3
        case "none":
            [run] = runs
            assert (run.outcome, run.dues) == ("skipped", 3)
            assert run.reason == "no daemon ran, and the task wants no catch-up"
    with site.daemon() as daemon:
        daemon.wait_for("Next: daily")
        assert daemon.terminate() == 0
    assert len(site.runs()) == len(runs), "once is enough"


@pytest.mark.claim("P12")
def test_a_changed_time_is_not_missed(tmp_path):
    site = Site(tmp_path, tasks=declare_daily(3600))
    with site.daemon() as daemon:
        daemon.wait_for("Next: daily")
        assert daemon.terminate() == 0
    make_older(site, days=3)
    site.declare(declare_daily(7200))
    with site.daemon() as daemon:
        daemon.wait_for("Next: daily")
        assert daemon.terminate() == 0
    assert not site.runs()


@pytest.mark.claim("P7")
def test_a_claim_that_never_began_is_caught_up_and_not_lost(tmp_path):
    site = Site(tmp_path, tasks=declare_daily(8))
    with site.daemon() as daemon:
        until(lambda: known_tasks(site))
        db = connect(site.state / "history.sqlite3")
        [(due,)] = until(lambda: db.execute("SELECT due FROM runs WHERE started IS NULL").fetchall())
        db.close()
        assert due > now()
        daemon.kill()
    until(lambda: now() > due)
    with site.daemon() as daemon:
        [run] = site.wait_for_runs("daily")
        assert (run.trigger, run.outcome, run.attempt) == ("catch-up", "succeeded", 1)
        assert to_micros(run.due) == due
        assert "lost" not in daemon.output()


def known_tasks(site):
    with site.history() as archive:
        return archive.tasks()


def make_older(site, days):
    """Let the site have known its tasks for so many days longer, as if no daemon had run since."""
    db = connect(site.state / "history.sqlite3")
    db.execute("UPDATE tasks SET since = since - ?", (days * 86_400_000_000,))
    db.execute("DELETE FROM runs")
    db.close()


def now():
    """Microseconds, as history keeps instants."""
    return time.time_ns() // 1000
