"""The file of history: who can read it, and what happens when it cannot be written or read.

Other users are real ones, by number; without root, sudo makes us those.
"""

import os
import shutil
import subprocess
import sysconfig
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.disk import SUDO, Disk, as_root
from tests.support.site import ROOT, Site, until

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow


OWNER, MEMBER, STRANGER, GROUP = 61_234, 61_235, 61_236, 61_300
# The system's, which everybody may execute; ours may lie in somebody's home.
PYTHON = "/usr/bin/python3"
LIBRARIES = ("django", "asgiref", "sqlparse", "schedule", "sdnotify.py", "sdnotify", "typing_extensions.py")
TASKS = """
import linod

@linod.task(every=0.5)
def ping():
    print("pong")
"""
READ = """
import sys
from pathlib import Path
from linod.archive import Archive
from linod.errors import LinodError

try:
    with Archive(Path(sys.argv[1])) as archive:
        print(len(archive.runs()), "runs")
except LinodError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """linod and what it needs, where everybody can read it."""
    path = tmp_path_factory.mktemp("library")
    shutil.copytree(ROOT / "linod", path / "linod")
    for name in LIBRARIES:
        source = Path(sysconfig.get_path("purelib"), name)
        if source.is_dir():
            shutil.copytree(source, path / name, ignore=shutil.ignore_patterns("LC_MESSAGES"))
        elif source.exists():
            shutil.copy(source, path / name)
    open_to_all(path)
    return path


def open_to_all(path):
    """Let everybody enter a directory of ours below /tmp."""
    for place in (path, *path.parents):
        if place.stat().st_uid == os.geteuid() and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o555)


class People:
    """A site that belongs to one user and one group, and people who use it."""

    def __init__(self, path, library):
        open_to_all(path)
        self.site = Site(path / "site", tasks=TASKS)
        self.environment = {"PYTHONPATH": str(library), "PYTHONDONTWRITEBYTECODE": "1"}
        as_root("chown", "-R", f"{OWNER}:{GROUP}", self.site.path)
        as_root("chmod", "2775", self.site.path)

    def start(self, uid, *command, group=None):
        """Start Python as somebody, in the site's directory."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        who = [f"--reuid={uid}", f"--regid={uid}", f"--groups={group or uid}"]
        return subprocess.Popen(
            [*SUDO, "setpriv", *who, "env", *variables, PYTHON, *map(str, command)],
            cwd=self.site.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, uid, *command, group=None):
        """Exit code, and what somebody sees."""
        process = self.start(uid, *command, group=group)
        output = process.communicate(timeout=60)[0]
        return process.returncode, output.strip()

    def linod(self, uid, *arguments, group=None):
        return self.run(uid, self.site.path / "manage.py", "linod", *arguments, group=group)

    def read(self, uid, group=None):
        """What somebody sees who looks at the history."""
        return self.run(uid, "-c", READ, self.site.state, group=group)[1]

    @contextmanager
    def daemon(self):
        """The owner's daemon, after some runs; yields a function that signals it and waits for its end."""
        process = self.start(OWNER, self.site.path / "manage.py", "linod", group=GROUP)

        def end(signal):
            as_root("kill", f"-{signal}", (self.site.state / "lock").read_text().split()[0])
            process.wait(20)

        try:
            number = len(self.ended())
            until(lambda: len(self.ended()) >= number + 2 or process.poll() is not None, what="two runs")
            assert process.poll() is None, process.stdout.read()
            yield end
        finally:
            if process.poll() is None:
                as_root("kill", "-KILL", process.pid)
            process.stdout.close()
            process.wait(20)

    def ended(self):
        return self.site.ended("ping") if self.site.state.exists() else []


@pytest.fixture
def people(tmp_path, library):
    return People(tmp_path, library)


@pytest.mark.claim("S20")
def test_members_of_the_group_read_history_whether_the_daemon_is_up_stopped_or_killed(people):
    def is_shown_to_members():
        return people.read(MEMBER, GROUP).endswith(" runs") and not people.read(MEMBER, GROUP).startswith("0 ")

    with people.daemon() as end:
        assert is_shown_to_members()
        end("TERM")
    assert is_shown_to_members()
    with people.daemon() as end:
        assert is_shown_to_members()
        end("KILL")
    assert is_shown_to_members()


@pytest.mark.claim("S20")
def test_others_are_told_why_they_cannot_read_history(people):
    with people.daemon():
        told = people.read(STRANGER)
        assert f"can be read by root, its owner and members of the group {GROUP}, not by {STRANGER}." in told
        assert "Traceback" not in told


def test_a_member_lists_the_tasks_with_their_last_runs(people):
    with people.daemon():
        code, output = people.linod(MEMBER, "--list", group=GROUP)
        assert code == 0
        assert "do ping()" in output and "[never]" not in output


def test_a_directory_that_cannot_be_written_is_a_clear_sentence(people):
    as_root("chmod", "555", people.site.path)
    code, output = people.linod(OWNER, group=GROUP)
    assert code == 1
    assert f"The state directory {people.site.state} cannot be made: Permission denied." in output
    assert "STATE_DIRECTORY" in output and "Traceback" not in output


def test_somebody_elses_state_directory_is_a_clear_sentence(people):
    with people.daemon() as end:
        end("TERM")
    code, output = people.linod(STRANGER)
    assert code == 1
    assert f"cannot be written by {STRANGER}" in output
    assert "Traceback" not in output


def test_a_file_that_is_no_database_is_put_aside(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with site.daemon() as daemon:
        site.wait_for_runs("ping")
        daemon.kill()
    for path in site.state.glob("history.sqlite3*"):
        path.write_bytes(b"rubbish" * 5000)
    with site.daemon() as daemon:
        daemon.wait_for("ping succeeded")
        site.wait_for_runs("ping")
        assert daemon.terminate() == 0
    assert list(site.state.glob("history.sqlite3.damaged-*"))


def test_a_damaged_page_stops_no_task(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with site.daemon() as daemon:
        site.wait_for_runs("ping", 3)
        assert daemon.terminate() == 0
    path = site.state / "history.sqlite3"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with site.daemon() as daemon:
        daemon.wait_for(f"{path} was damaged (")
        daemon.wait_for("what was paused is paused no more, and nothing is caught up")
        site.wait_for_runs("ping")
        assert daemon.terminate() == 0


@pytest.mark.claim("P24")
def test_a_full_disk_stops_no_task_and_records_are_written_later(tmp_path):
    with Disk(tmp_path / "disk", mebibytes=1, kind="tmpfs") as disk:
        site = Site(tmp_path / "site", tasks=TASKS, STATE_DIRECTORY=str(disk.path))
        with site.daemon() as daemon:
            site.wait_for_runs("ping")
            disk.fill()
            daemon.wait_for("History cannot be written")
            shown = daemon.output().count("ping: pong")
            daemon.wait_for(lambda: daemon.output().count("ping: pong") > shown + 3)
            disk.make_room()
            daemon.wait_for("History can be written again", timeout=40)
            shown = daemon.output().count("ping: pong")
            assert daemon.terminate() == 0
            assert sum(run.outcome == "succeeded" for run in site.ended("ping")) >= shown
            assert daemon.output().count("History cannot be written") == 1


def test_a_state_directory_named_by_the_service_is_found_by_others(tmp_path):
    site = Site(tmp_path / "site", tasks=TASKS)
    state = tmp_path / "state"
    state.mkdir()
    with site.daemon(STATE_DIRECTORY=str(state)):
        until(lambda: site.state.exists() and site.ended("ping"))
        assert (site.path / ".linod").resolve() == state
        listed = site.manage("linod", "--list")
        assert "[never]" not in listed.stdout
        assert site.manage("linod").returncode == 75
