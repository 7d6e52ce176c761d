"""A run that started and whose end nobody saw is lost; it is repeated, once, if its task says that this is safe."""

import signal

import pytest

from linod.runs import Outcome, Trigger
from tests.support.site import Site, until

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow


# Two tasks of which every run takes for ever, as long as there is a file.
TASKS = """
import os, time
import linod

def take_long():
    while os.path.exists("busy"):
        time.sleep(0.05)

for name in "one", "other":
    linod.task(every=2, name=name, rerun_lost=True)(take_long)
"""
# Room for one run, however long it takes.
NARROW = "LINOD = {'max_parallel': 1, 'slow_after': 3600.0, 'drain_timeout': 0.1}"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=lambda end: end.name)
@pytest.mark.claim("P6")
def test_the_repetition_of_a_lost_run_is_not_forgotten_when_the_daemon_ends_before_it_began(tmp_path, end):
    site = Site(tmp_path, TASKS)
    settings = site.path / "proj/settings.py"
    site.write("busy")
    with site.daemon() as daemon:
        daemon.wait_for(lambda: len([run for run in site.runs() if run.started]) == 2)
        daemon.kill()
    settings.write_text(f"{settings.read_text()}\n{NARROW}\n")

    # Both are to be repeated, and there is room for one.
    with site.daemon() as daemon:
        daemon.wait_for(lambda: [run for run in site.runs() if run.trigger is Trigger.RERUN and run.started])
        daemon.signal(end)
        daemon.wait()
    (site.path / "busy").unlink()

    with site.daemon() as daemon:
        until(lambda: {run.task for run in site.ended() if run.outcome is Outcome.SUCCEEDED} == {"one", "other"})
        assert daemon.terminate() == 0
    reruns = [run for run in site.ended() if run.trigger is Trigger.RERUN]
    assert sorted(run.task for run in reruns) == ["one", "other"], "each once"
    assert all(run.attempt == 2 for run in reruns)
    first, second = reruns
    assert first.outcome is (Outcome.LOST if end is signal.SIGKILL else Outcome.CANCELLED)
    assert second.outcome is Outcome.SUCCEEDED
