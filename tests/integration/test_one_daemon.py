"""One daemon a site, and none of its processes outlives it."""

import os
import signal
import subprocess

import pytest

from linod.linux import descendants
from tests.support.site import Site, is_alive, until

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow


LONG = """
import linod, os, subprocess, time

@linod.task(every=0.5)
def quick():
    pass

@linod.task(every=0.5, timeout=100)
def long():
    open("began", "a").close()
    time.sleep(60)
"""


@pytest.mark.claim("P8")
def test_a_second_daemon_names_the_first_and_leaves(tmp_path):
    site = Site(tmp_path, tasks=LONG)
    with site.daemon() as first, site.daemon() as second:
        site.wait_for_runs("quick")
        # Either may have been the first; on a busy machine the one that was started later.
        [late] = until(lambda: [daemon for daemon in (first, second) if daemon.process.poll() is not None])
        daemon = second if late is first else first
        assert late.wait() == 75
        assert f"are being run already, by process {daemon.pid}." in late.output()
        third = site.manage("linod")
        assert third.returncode == 75
        assert str(daemon.pid) in third.stdout + third.stderr
        number = len(site.ended("quick"))
        site.wait_for_runs("quick", number + 1)


@pytest.mark.claim("P9")
def test_a_daemon_that_dies_takes_all_its_processes_along(tmp_path):
    site = Site(tmp_path, tasks=LONG)
    with site.daemon() as daemon:
        until((site.path / "began").exists)
        site.wait_for_runs("quick")
        below = descendants(daemon.pid)
        assert len(below) >= 3
        daemon.kill()
        until(lambda: not any(map(is_alive, below)), timeout=1.5, what="the end of all processes")


@pytest.mark.claim("P8")
def test_a_successor_waits_for_the_last_worker(tmp_path):
    site = Site(tmp_path, tasks=LONG)
    with site.daemon() as daemon:
        until((site.path / "began").exists)
        daemon.kill()
        with site.daemon() as successor:
            successor.wait_for("long, due at")
            site.wait_for_runs("quick", len(site.ended("quick")) + 2)
            assert successor.process.poll() is None


def test_a_lock_file_with_rubbish_is_no_obstacle(tmp_path):
    site = Site(tmp_path, tasks=LONG)
    site.write(".linod/lock", "rubbish \x00 4711")
    with site.daemon() as daemon:
        site.wait_for_runs("quick")
        assert (site.state / "lock").read_text().split()[0] == str(daemon.pid)


def test_a_lock_that_cannot_be_written_is_told_in_words(tmp_path):
    site = Site(tmp_path, tasks=LONG)
    (site.state / "lock").mkdir(parents=True)
    told = site.manage("linod")
    assert told.returncode == 1
    assert f"{site.state} cannot be written: Is a directory." in told.stdout + told.stderr
    (site.state / "lock").rmdir()
    limited = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *site.command("linod")]
    told = subprocess.run(limited, cwd=site.path, env=site.environment, capture_output=True, text=True, timeout=60)
    assert told.returncode == 1
    assert f"{site.state} cannot be written: File too large." in told.stdout + told.stderr


def test_the_lock_survives_a_worker_that_outlives_its_daemon(tmp_path):
    """A worker that unset its death signal keeps the site locked, so that its task is not run twice at a time."""
    tasks = """
    import ctypes, linod, os, time

    @linod.task(every=0.5, timeout=100)
    def clings():
        ctypes.CDLL(None).prctl(1, 0)  # PR_SET_PDEATHSIG: none
        open("pid", "w").write(str(os.getpid()))
        time.sleep(60)
    """
    site = Site(tmp_path, tasks=tasks)
    pid_file = site.path / "pid"
    with site.daemon() as daemon:
        pid = int(until(lambda: pid_file.exists() and pid_file.read_text()))
        try:
            daemon.kill()
            with site.daemon() as successor:
                assert successor.wait(30) == 75
                assert "Workers of a daemon that has ended still hold" in successor.output()
        finally:
            os.kill(pid, signal.SIGKILL)
        with site.daemon() as successor:
            successor.wait_for("clings, due at")
