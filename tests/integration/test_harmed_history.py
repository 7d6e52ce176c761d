"""History is damaged, deleted or moved away while the daemon runs: tasks go on, and nothing is run twice.

Each run of a task writes its due time into a file, so that what was run is known without history.
"""

import os
import shutil
import signal
from collections import Counter

import pytest

from linod.archive import FILE, put_aside
from linod.caller import ask
from linod.wire import Ask, Pause
from tests.support.site import Site, until

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow

TASKS = """
import os, time
import linod

def note(name):
    with open(name, "a") as file:
        file.write(f"{os.environ['LINOD_RUN']}\\n")

@linod.task(every=0.5)
def often():
    note("often")

@linod.task(every=1)
def paused():
    note("paused")

@linod.task(every=1, timeout=60, overlap="skip")
def long():
    note("long")
    while not os.path.exists("enough"):
        time.sleep(0.05)
    print("done")

@linod.task(every=3600, catch_up="once")
def rare():
    note("rare")
"""


def garbage(state):
    for path in state.glob(f"{FILE}*"):
        if not path.name.endswith("-shm"):
            path.write_bytes(os.urandom(20_000))


def delete(state):
    for path in state.glob(f"{FILE}*"):
        path.unlink()


def move_the_directory(state):
    state.rename(state.with_name("elsewhere"))


def remove_the_directory(state):
    shutil.rmtree(state)


def noted(site, name):
    """The runs of a task, as it has written them down itself."""
    path = site.path / name
    return path.read_text().split() if path.exists() else []


@pytest.fixture
def busy(tmp_path):
    """A site with a long run, a paused task, and its daemon."""
    site = Site(tmp_path / "site", tasks=TASKS)
    with site.daemon() as daemon:
        site.wait_for_runs("often", 2)
        until(lambda: noted(site, "long"))
        assert site.manage("linod", "--run", "rare").returncode == 0
        yield site, daemon


HARMS = [garbage, delete, move_the_directory, remove_the_directory]


@pytest.mark.claim("H1", "H3", "H4")
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("killed", [False, True], ids=["goes on", "is killed"])
def test_tasks_go_on_and_nothing_is_run_twice(busy, harm, killed):
    site, daemon = busy
    before = site.runs()
    harm(site.state)
    daemon.wait_for(f"{site.state / FILE} was ")
    until(lambda: len(site.ended("often")) >= 2, what="new runs in history")
    assert [run.outcome for run in site.runs("long") if run.started] == [None]
    if harm is garbage:
        assert len(put_aside(site.state)) == 1
    else:
        assert {run.id for run in before} <= {run.id for run in site.runs()}
    if not killed:
        (site.path / "enough").touch()
        [run] = site.wait_for_runs("long")[:1]
        assert (run.outcome, run.output) == ("succeeded", "done")
        assert daemon.terminate() == 0
    else:
        daemon.kill()
        (site.path / "enough").touch()
    with site.daemon() as second:
        site.wait_for_runs("often", len(site.ended("often")) + 3)
        assert second.terminate() == 0
        assert "History is older" not in second.output()
    if killed:
        assert site.ended("long")[0].outcome == "lost"
    for name in ("often", "long", "rare"):
        twice = [run for run, times in Counter(noted(site, name)).items() if times > 1]
        assert not twice, f"{name}: {twice}"
    assert len(noted(site, "rare")) == 1
    assert daemon.output().count(f"{site.state / FILE} was ") == 1


@pytest.mark.claim("H2")
def test_a_pause_outlives_the_file(busy):
    site, daemon = busy
    (site.path / "enough").touch()
    ask(site.state / "control", Pause(task="paused", reason="broken", by="ann"))
    garbage(site.state)
    daemon.wait_for("and a new history has begun")
    until(lambda: site.state.exists() and pauses(site) == ["app.tasks.paused"])
    daemon.kill()
    number = len(noted(site, "paused"))
    with site.daemon() as second:
        site.wait_for_runs("often", len(site.ended("often")) + 3)
        assert second.terminate() == 0
    assert len(noted(site, "paused")) == number


def pauses(site):
    with site.history() as archive:
        return list(archive.pauses())


@pytest.mark.parametrize("take", [move_the_directory, remove_the_directory], ids=lambda take: take.__name__)
def test_a_daemon_whose_directory_was_taken_away_is_the_only_one_and_can_be_asked(busy, take):
    site, daemon = busy
    take(site.state)
    daemon.wait_for("It is written anew")
    until((site.state / "control").is_socket)
    assert ask(site.state / "control", Ask()).pid == daemon.pid
    second = site.manage("linod")
    assert second.returncode == 75
    assert f"are being run already, by process {daemon.pid}." in second.stdout
    (site.path / "enough").touch()
    assert daemon.terminate() == 0


def test_of_two_daemons_the_one_stops_whose_directory_was_taken_away(busy):
    site, daemon = busy
    daemon.signal(signal.SIGSTOP)
    move_the_directory(site.state)
    with site.daemon() as second:
        site.wait_for_runs("often")
        daemon.signal(signal.SIGCONT)
        (site.path / "enough").touch()
        assert daemon.wait() == 0
        assert f"The tasks of this site are run by process {second.pid} as well" in daemon.output()
        site.wait_for_runs("often", len(site.ended("often")) + 2)
        assert second.terminate() == 0
        assert f"{FILE} was" not in second.output()
        assert put_aside(site.state) == []
