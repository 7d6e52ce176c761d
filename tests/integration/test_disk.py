"""The disk of the state directory is full, hangs, or can only be read: tasks go on, and what to do is told."""

import os
import sqlite3
import time
from contextlib import closing

import pytest

from linod.archive import FILE
from linod.caller import ask
from linod.wire import Ask
from tests.support.disk import Disk
from tests.support.site import Site, time_of_day, until

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow

TASKS = """
import os
import linod

def note():
    with open("noted", "a") as file:
        file.write(f"{os.environ['LINOD_RUN']}\\n")

@linod.task(every=0.5)
def often():
    note()

@linod.task(every=1800, catch_up="all")
def seldom():
    note()
"""


def noted(site):
    return (site.path / "noted").read_text().split()


def site_on(disk, path):
    return Site(path / "site", tasks=TASKS, STATE_DIRECTORY=str(disk.path))


def longest_answer(site, seconds):
    """How long its daemon took to answer, at worst, while it was asked again and again."""
    longest, end = 0.0, time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        ask(site.state / "control", Ask())
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.05)
    return longest


@pytest.mark.claim("H9")
def test_a_task_waits_five_seconds_for_a_disk_also_where_nothing_else_happens(tmp_path):
    due = time.time() + 25
    site = Site(
        tmp_path / "site",
        tasks=f"""
import linod

@linod.task(at="{time_of_day(25)}")
def rare():
    open("noted", "w").close()
""",
    )
    with site.daemon() as daemon:
        daemon.wait_for("rare")
        with closing(sqlite3.connect(site.state / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # for which SQLite waits ten seconds
            assert time.time() < due - 12, "it is not claimed yet"
            until((site.path / "noted").exists, timeout=40)
            assert time.time() - due < 5
            other.execute("ROLLBACK")


@pytest.mark.claim("H7", "H9")
def test_while_a_disk_hangs_the_loop_waits_for_nothing_and_tasks_go_on(tmp_path):
    with Disk(tmp_path / "disk", mebibytes=16) as disk:
        site = site_on(disk, tmp_path)
        with site.daemon() as daemon:
            site.wait_for_runs("often", 2)
            disk.hang()
            assert longest_answer(site, 8) < 2
            assert "History cannot be written (the disk has not answered for 5 s)" in daemon.output()
            number = len(noted(site))
            assert longest_answer(site, 4) < 2
            assert len(noted(site)) >= number + 4
            disk.answer()
            daemon.wait_for("History can be written again")
            until(lambda: len(site.ended("often")) > number + 4)
            assert daemon.terminate() == 0
        assert sorted(str(run.id) for run in site.ended()) == sorted(noted(site))


@pytest.mark.claim("H8")
def test_what_ran_while_the_disk_was_full_is_not_run_again_after_a_sigkill(tmp_path):
    with Disk(tmp_path / "disk", mebibytes=1, kind="tmpfs") as disk:
        site = site_on(disk, tmp_path)
        with site.daemon() as daemon:
            site.wait_for_runs("often", 2)
            disk.fill()
            daemon.wait_for("History cannot be written")
            number = len(noted(site))
            until(lambda: len(noted(site)) > number + 3)
            daemon.kill()
        disk.make_room()
        ids = noted(site)
        with site.daemon() as daemon:
            daemon.wait_for("History is older than what has happened: it lacks ")
            site.wait_for_runs("often", len(site.ended("often")) + 2)
            assert daemon.terminate() == 0
    assert len(set(noted(site))) == len(noted(site)) > len(ids)


@pytest.mark.claim("H10")
def test_a_start_on_a_full_disk_says_what_to_do(tmp_path):
    with Disk(tmp_path / "disk", mebibytes=1, kind="tmpfs") as disk:
        disk.fill()
        site = site_on(disk, tmp_path)
        with site.daemon() as daemon:
            assert daemon.wait() == 1
            assert f"{disk.path} cannot be written: No space left on device. See to its disk" in daemon.output()
            assert "Traceback" not in daemon.output()


@pytest.mark.claim("H10")
@pytest.mark.parametrize(("room", "before"), [(4096, False), (120_000, False), (0, True)])
def test_so_does_one_where_the_space_ends_in_the_middle_of_it(tmp_path, room, before):
    """`before`: a daemon had been there."""
    with Disk(tmp_path / "disk", mebibytes=1, kind="tmpfs") as disk:
        site = site_on(disk, tmp_path)
        if before:
            with site.daemon() as daemon:
                site.wait_for_runs("often")
                assert daemon.terminate() == 0
        disk.fill()
        with (disk.path / "ballast").open("r+b") as file:
            file.truncate(file.seek(0, os.SEEK_END) - room)
        with site.daemon() as daemon:
            assert daemon.wait() == 1
            assert "on a disk that is not full" in daemon.output()
            assert "Traceback" not in daemon.output()


@pytest.mark.claim("H7", "H10")
def test_a_disk_that_fails_stops_no_task_and_what_is_lost_is_told(tmp_path):
    with Disk(tmp_path / "disk", mebibytes=16) as disk:
        site = site_on(disk, tmp_path)
        with site.daemon() as daemon:
            site.wait_for_runs("often", 2)
            disk.fail()
            daemon.wait_for("History cannot be written")
            number = len(noted(site))
            until(lambda: len(noted(site)) > number + 3)
            assert daemon.terminate(60) == 0
            assert daemon.output().count("History cannot be written") == 2, "when it began, and at the end"
        with site.daemon() as daemon:
            assert daemon.wait() == 1
            assert f"{disk.path} cannot be written: Read-only file system. See to its disk" in daemon.output()
        assert len(site.ended("often")) >= 2, "it can still be read"
