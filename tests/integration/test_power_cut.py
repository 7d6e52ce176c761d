"""What is left when the power fails: a copy of the disk at one moment, with nothing of what was still in memory."""

import pytest

from linod.linux import boot_id
from tests.support.disk import SUDO, Disk
from tests.support.site import Site, time_of_day

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow

BOOT_ID = "/proc/sys/kernel/random/boot_id"
TASKS = """
import os, time
import linod

def work(name):
    with open(name, "a") as ledger:
        ledger.write(os.environ["LINOD_RUN"] + "\\n")
    time.sleep(60)

@linod.task(at="{daily}")
def daily():
    work("daily")

@linod.task(at="{daily}", rerun_lost=True)
def repeatable():
    work("repeatable")

@linod.task(every=0.5)
def often():
    pass
"""


class Rebooted(Site):
    """A site on a host that was booted again, as far as a process can see it."""

    def command(self, *arguments):
        another = self.write("another-boot-id", boot_id()[::-1])
        private = ["unshare", "--mount", "sh", "-c", f'mount --bind "$0" {BOOT_ID} && exec "$@"', str(another)]
        return [*SUDO, *(["-E"] if SUDO else []), *private, *super().command(*arguments)]


@pytest.mark.claim("P25")
def test_a_run_that_a_power_cut_has_ended_is_lost_and_not_run_twice(tmp_path):
    state = tmp_path / "state"
    site = Site(tmp_path / "site", STATE_DIRECTORY=str(state))
    site.declare(TASKS.format(daily=time_of_day(6)))
    rest = tmp_path / "rest"
    with Disk(state, mebibytes=32) as disk, site.daemon() as daemon:
        daemon.wait_for(lambda: all((site.path / task).exists() for task in ("daily", "repeatable")))
        disk.cut_power(rest)
        daemon.kill()
    site = Rebooted(site.path, tasks=(site.path / "app/tasks.py").read_text(), STATE_DIRECTORY=str(state))
    with Disk(state, image=rest), site.daemon() as daemon:
        [lost] = daemon.wait_for(lambda: site.runs("daily"))
        assert (lost.outcome, lost.reason) == ("lost", "the host was restarted")
        daemon.wait_for(lambda: len(began(site, "repeatable")) == 2)
        again, lost = site.runs("repeatable")[::-1]
        assert (lost.outcome, again.trigger, again.due) == ("lost", "rerun", lost.due)
        site.wait_for_runs("often", len(site.ended("often")) + 2)
        daemon.kill()
    assert len(began(site, "daily")) == 1


def began(site, task):
    """The ids of the runs of a task that began, by its own account."""
    return (site.path / task).read_text().split()
