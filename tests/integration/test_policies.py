"""How runs of a task are treated: overlap, locks, retries, fresh processes, and what a task's declaration changes."""

from datetime import UTC, datetime
from itertools import pairwise
from textwrap import dedent

import pytest

from linod.caller import ask
from linod.wire import Done, Reload, Resume
from tests.support.site import Site, until

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow


SLOW = """
import linod, time

@linod.task(every=0.5, overlap="{overlap}", timeout=100)
def slow():
    time.sleep(1.2)
"""


def started(site, task):
    return [run for run in site.ended(task) if run.started]


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow", "replace"])
@pytest.mark.claim("P13")
def test_overlap(tmp_path, overlap):
    site = Site(tmp_path, tasks=SLOW.format(overlap=overlap))
    with site.daemon() as daemon:
        until(lambda: len(started(site, "slow")) >= 3)
        daemon.signal(15)
        daemon.wait()
    runs = started(site, "slow")
    skipped = [run for run in site.runs("slow") if run.outcome == "skipped"]
    at_once = [later.started < earlier.ended for earlier, later in pairwise(runs)]
    match overlap:
        case "skip":
            assert not any(at_once)
            assert {run.reason for run in skipped} == {"the previous run is still going on"}
        case "queue":
            assert not any(at_once) and not skipped
            dues = [run.due for run in runs]
            assert [round((b - a).total_seconds(), 1) for a, b in pairwise(dues)] == [0.5] * (len(dues) - 1)
        case "allow":
            assert all(at_once) and not skipped
        case "replace":
            assert not any(at_once)
            assert {run.outcome for run in runs[:2]} == {"cancelled"}
            assert runs[0].reason == "a newer run replaces it"


@pytest.mark.claim("P14")
def test_tasks_that_share_a_lock_never_run_at_the_same_time(tmp_path):
    tasks = """
    import linod, time

    @linod.task(every=0.5, lock="ledger", overlap="queue")
    def one():
        time.sleep(0.2)

    @linod.task(every=0.5, lock="ledger")
    def other():
        time.sleep(0.2)

    @linod.task(every=0.5)
    def free():
        time.sleep(0.2)
    """
    site = Site(tmp_path, tasks=tasks)
    with site.daemon() as daemon:
        for task in "one", "other", "free":
            until(lambda task=task: len(started(site, task)) >= 4)
        assert daemon.terminate() == 0
    locked = sorted(started(site, "one") + started(site, "other"), key=lambda run: run.started)
    assert all(earlier.ended <= later.started for earlier, later in pairwise(locked))


@pytest.mark.claim("P14")
def test_a_crash_releases_the_lock(tmp_path):
    tasks = """
    import linod, os

    @linod.task(every=0.5, lock="ledger")
    def crashes():
        os._exit(1)

    @linod.task(every=0.5, lock="ledger")
    def other():
        pass
    """
    site = Site(tmp_path, tasks=tasks)
    with site.daemon():
        until(lambda: len(started(site, "crashes")) >= 2 and len(started(site, "other")) >= 2)


LONG = """
import linod, os, time

@linod.task(every=1, {long})
def long():
    while not os.path.exists("go"):
        time.sleep(0.02)

@linod.task(every=0.5, lock="ledger")
def other():
    pass
"""


def load(site, tasks):
    """Let the daemon of a site load other tasks."""
    site.declare(tasks)
    assert ask(site.path, Reload(), None) == Done(text="The site is loaded anew.")


def test_a_lock_that_is_given_another_name_while_it_is_held_is_released(tmp_path):
    site = Site(tmp_path, tasks=LONG.format(long="lock='ledger'"))
    with site.daemon():
        until(lambda: [run for run in site.runs("long") if run.started])
        load(site, LONG.format(long="lock='journal'"))
        number = len(started(site, "other"))
        site.write("go")
        until(lambda: len(started(site, "other")) > number)


@pytest.mark.parametrize("name", ["long", "renamed"])
def test_what_runs_when_a_task_goes_and_comes_is_the_previous_run_of_the_new_one(tmp_path, name):
    site = Site(tmp_path, tasks=LONG.format(long=""))
    with site.daemon() as daemon:
        [first] = until(lambda: [run for run in site.runs("long") if run.started])
        if name == "long":
            load(site, LONG.replace("@linod.task(every=1, {long})", ""))
        load(site, LONG.format(long=f"name='app.tasks.{name}', renamed_from='app.tasks.long'"))
        skipped = until(lambda: [run for run in site.runs(name) if run.outcome == "skipped"])
        assert skipped[0].reason == "the previous run is still going on"
        site.write("go")
        assert site.wait_for_runs(name)[0].id == first.id
        assert daemon.terminate() == 0
    runs = started(site, name)
    assert all(earlier.ended <= later.started for earlier, later in pairwise(runs))


def test_a_task_that_is_disabled_while_it_waits_for_its_retry_is_not_tried_again(tmp_path):
    tasks = LONG.format(long="") + dedent("""
    @linod.task(every="1 hour", retries=3, retry_delay=2{more})
    def fails():
        raise ValueError("no")
    """)
    site = Site(tmp_path, tasks=tasks.format(more="").replace('"1 hour"', "1"))
    with site.daemon() as daemon:
        daemon.wait_for("fails is tried again in 2")
        load(site, tasks.format(more=", enabled=False"))
        loaded, others = datetime.now(UTC), len(started(site, "other"))
        until(lambda: len(started(site, "other")) > others + 6)  # longer than until the retry
        assert not [run for run in site.runs("fails") if run.started and run.started > loaded]


@pytest.mark.claim("P20")
def test_retries_wait_longer_each_time(tmp_path):
    tasks = """
    import linod

    @linod.task(every=6, retries=3, retry_delay=0.3)
    def fails():
        raise ValueError("no")
    """
    site = Site(tmp_path, tasks=tasks)
    with site.daemon():
        until(lambda: any(run.attempt == 4 for run in site.ended("fails")))
        runs = site.ended("fails")
    last = next(run for run in runs if run.attempt == 4)
    family = [run for run in runs if run.due == last.due]
    assert [(run.attempt, run.trigger) for run in family] == [(1, "schedule"), (2, "retry"), (3, "retry"), (4, "retry")]
    pauses = [(later.started - earlier.ended).total_seconds() for earlier, later in pairwise(family)]
    for pause, expected in zip(pauses, (0.3, 0.6, 1.2), strict=True):
        assert expected <= pause < expected + 0.5


def test_a_fresh_task_has_a_process_of_its_own_for_each_run(tmp_path):
    tasks = """
    import linod

    @linod.task(every=0.5, fresh=True)
    def fresh():
        pass

    @linod.task(every=0.5)
    def shared():
        pass
    """
    site = Site(tmp_path, tasks=tasks)
    with site.daemon() as daemon:
        until(lambda: len(started(site, "fresh")) >= 4)
        assert daemon.terminate() == 0
    pids = [run.pid for run in started(site, "fresh")]
    assert len(set(pids)) == len(pids)
    assert not set(pids) & {run.pid for run in started(site, "shared")}


def test_a_task_that_is_not_enabled_does_not_run(tmp_path):
    tasks = """
    import linod

    @linod.task(every=0.3, enabled=False)
    def off():
        pass

    @linod.task(every=0.3)
    def on():
        pass
    """
    site = Site(tmp_path, tasks=tasks)
    with site.daemon():
        site.wait_for_runs("on", 4)
        assert not site.runs("off")


def test_jitter_spreads_due_times(tmp_path):
    tasks = """
    import linod

    @linod.task(every=1, jitter=0.8)
    def spread():
        pass
    """
    site = Site(tmp_path, tasks=tasks)
    with site.daemon():
        runs = site.wait_for_runs("spread", 5)
    gaps = [(later.due - earlier.due).total_seconds() for earlier, later in pairwise(runs)]
    assert len({round(gap, 2) for gap in gaps}) > 1
    assert all(0.1 < gap < 1.9 for gap in gaps)


def test_a_renamed_task_keeps_its_history(tmp_path):
    tasks = """
    import linod

    @linod.task(every=0.5)
    def old():
        pass
    """
    site = Site(tmp_path, tasks=tasks)
    with site.daemon() as daemon:
        site.wait_for_runs("old", 2)
        assert daemon.terminate() == 0
    number = len(site.ended("old"))
    site.declare(tasks.replace("old", "new").replace("every=0.5", "every=0.5, renamed_from='app.tasks.old'"))
    with site.daemon() as daemon:
        site.wait_for_runs("new", number + 2)
        assert daemon.terminate() == 0
    assert not site.runs("old")
    ids = [run.id for run in site.runs("new")]
    assert ids == sorted(set(ids))


def test_an_async_function_is_awaited_and_may_be_timed_out(tmp_path):
    tasks = """
    import asyncio, linod

    @linod.task(every=1)
    async def sings():
        await asyncio.sleep(0.1)
        print("la")

    @linod.task(every=1)
    async def fails():
        await asyncio.sleep(0)
        raise ValueError("off key")

    @linod.task(every=2, timeout=0.5)
    async def hangs():
        try:
            await asyncio.sleep(60)
        finally:
            print("cleaned up")
    """
    site = Site(tmp_path, tasks=tasks)
    with site.daemon():
        [run, *_] = site.wait_for_runs("sings")
        assert (run.outcome, run.output) == ("succeeded", "la")
        assert site.wait_for_runs("fails")[0].reason == "ValueError: off key"
        run = site.wait_for_runs("hangs")[0]
        assert run.outcome == "timed_out"
        assert run.duration < 3
        assert "cleaned up" in run.output


@pytest.mark.claim("P21")
def test_a_task_that_goes_wrong_again_and_again_is_paused_until_somebody_resumes_it(tmp_path):
    site = Site(
        tmp_path,
        tasks="""
        import linod

        @linod.task(every=0.2, retries=5, retry_delay=0.1)
        def breaks():
            raise ValueError("no luck")
        """,
        settings="LINOD = {'pause_after': 3}\n",
    )
    with site.daemon() as daemon:
        daemon.wait_for("breaks is paused by linod: it has failed 3 times in a row: ValueError: no luck")
        assert len(site.ended("breaks")) == 3
        assert isinstance(ask(site.path, Resume(task="breaks", by="a test")), Done)
        daemon.wait_for(lambda: daemon.output().count("breaks is paused by linod: it has failed 3 times") == 2)
        assert len(site.ended("breaks")) == 6
