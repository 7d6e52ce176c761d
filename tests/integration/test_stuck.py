"""A run that no signal ends, because the kernel waits for a disk: it is told, harms nobody, and ends with the wait."""

from contextlib import contextmanager

import pytest

from tests.integration.test_linodctl import ctl, start_ctl
from tests.support.disk import Disk
from tests.support.host import Host
from tests.support.site import Site, state_of, until
from tests.support.smtp import Server

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow

TASKS = """
import os
import linod

@linod.task(every=3600, timeout=1, grace=1, lock="disk")
def writes():
    with open(os.environ["DISK"] + "/written", "a") as file:
        file.write("x")

@linod.task(every=3600, lock="disk")
def reads():
    pass

@linod.task(every=0.5)
def often():
    pass
"""
STUCK = "writes is stuck: it was killed 10 s ago and is still there"
LEFT_BEHIND = "no signal could end it, and the daemon was stopped"


@pytest.fixture
def disk(tmp_path):
    with Disk(tmp_path / "disk", mebibytes=16) as disk:
        yield disk


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def make_site(host, path, disk, settings=""):
    site = Site(path / "myprj", tasks=TASKS, settings=settings, DISK=str(disk.path))
    host.add("myprj", site)
    return site


@contextmanager
def asking(host, task):
    """Within the block, linodctl runs a task and hears how it fares."""
    process = start_ctl(host, "run", "myprj", task)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def hanging_run(site):
    """The run that waits for the disk."""
    run = until(lambda: next((run for run in site.runs("writes") if run.started), None))
    until(lambda: state_of(run.pid) == "D", what="a wait that no signal ends")
    return run


def complaint(host):
    """The exit code and the line of linodctl status, as soon as that names a run that is stuck."""
    code, said, _ = ctl(host, "status", "myprj")
    return (code, said) if "is stuck" in said else None


@pytest.mark.claim("P14", "P18", "P19")
def test_a_run_that_no_signal_ends_is_told_and_ends_when_the_disk_answers(tmp_path, host, disk):
    with Server(tmp_path / "mails") as server:
        mail = f"""
        ADMINS = [("Anna", "anna@example.org")]
        EMAIL_HOST, EMAIL_PORT = "127.0.0.1", {server.port}
        LINOD = {{"alert_every": 0}}
        """
        site = make_site(host, tmp_path, disk, mail)
        with site.daemon() as daemon:
            site.wait_for_runs("often")
            disk.hang()
            with asking(host, "writes") as writing:
                run = hanging_run(site)
                daemon.wait_for("writes is ended: it took longer than its timeout of 1 s")
                daemon.wait_for(STUCK)
                assert state_of(run.pid) == "D"
                until(lambda: server.mails, what="a mail")
                assert server.mails[0]["Subject"].endswith(STUCK)
                code, said = until(lambda: complaint(host), timeout=60)
                assert code == 2 and f"writes is stuck: run {run.id} goes on " in said
                _, _, refusal = ctl(host, "cancel", "myprj", run.id)
                assert "is being ended already: it took longer than its timeout of 1 s" in refusal
                with asking(host, "reads") as reading:
                    site.wait_for_runs("often", len(site.ended("often")) + 5)
                    assert not site.ended("writes") and not site.ended("reads"), "the lock is taken"
                    disk.answer()
                    [run] = site.wait_for_runs("writes")
                    assert (run.outcome, run.reason) == ("timed_out", "it took longer than its timeout of 1 s")
                    assert writing.wait(20) == 124 and reading.wait(20) == 0
            assert ctl(host, "run", "myprj", "writes")[0] == 0
            until(lambda: len(server.mails) == 2, what="another mail")
            assert "writes has ended well again" in server.mails[1].get_content()
            assert daemon.terminate() == 0


@pytest.mark.claim("P4", "P8", "P22")
def test_a_daemon_that_stops_leaves_it_behind_and_its_successor_waits_for_it(tmp_path, host, disk):
    site = make_site(host, tmp_path, disk, 'LINOD = {"drain_timeout": 0.5}')
    with site.daemon() as daemon:
        site.wait_for_runs("often")
        disk.hang()
        with asking(host, "writes"):
            run = hanging_run(site)
            assert daemon.terminate() == 0
        assert "writes is left behind: no signal ends it. " in daemon.output()
    assert state_of(run.pid) == "D"
    [run] = site.runs("writes")
    assert (run.outcome, run.reason) == (None, LEFT_BEHIND)
    assert "Outcome: its end was not seen" in ctl(host, "show", "myprj", run.id)[1]
    with site.daemon() as daemon:
        assert daemon.wait() == 75
        assert "Workers of a daemon that has ended still hold " in daemon.output()
    disk.answer()
    with site.daemon() as daemon:
        [run] = site.wait_for_runs("writes")
        assert (run.outcome, run.reason) == ("lost", LEFT_BEHIND)
        assert ctl(host, "run", "myprj", "writes")[0] == 0
        assert daemon.terminate() == 0
