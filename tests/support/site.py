"""A small Django site made for one test, and the real daemon on it: `python manage.py linod` in a process of its own.

site = Site(tmp_path, tasks='''
from linod import dd

@dd.schedule_often(every=1)
def ping():
    print("pong")
''')
with site.daemon() as daemon:
    daemon.wait_for("pong")
    [run, *_] = site.runs("ping")
"""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from zoneinfo import ZoneInfo

from linod.archive import Archive
from linod.daemon.children import has_mark
from linod.daemon.marks import SHARED
from linod.linux import birth, children, die_with_parent, processes, session

ROOT = Path(__file__).resolve().parents[2]
ZONE = ZoneInfo("Europe/Brussels")  # of all these sites
PATIENCE = 20.0  # seconds: far more than anything takes, also on a busy machine
PAUSE = 0.02

MANAGE = """
import os, sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
"""

SETTINGS = """
SECRET_KEY = "only for a test"
INSTALLED_APPS = ["linod", "app"]
USE_LINOD = True
USE_TZ = True
TIME_ZONE = "Europe/Brussels"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
"""

# What the environment of the tests must not tell a daemon.
PRIVATE = ("STATE_DIRECTORY", "NOTIFY_SOCKET", "JOURNAL_STREAM", "LINOD_USE", "NO_COLOR", "DJANGO_SETTINGS_MODULE")


# Runs beside a task that misbehaves, and must not notice.
NEIGHBOUR = """
import functools, os, sys, time
import linod
from linod import dd

def once(function):
    # The work is done in the first run only.
    @functools.wraps(function)
    def run():
        try:
            os.mkdir(f"{function.__name__}.done")
        except FileExistsError:
            return
        function()
    return run

@linod.task(every=0.5)
def neighbour():
    pass
"""
LONGEST_GAP = 2.0  # seconds between two starts of the neighbour


def until(condition, timeout=PATIENCE, what="it"):
    """Wait until a condition holds, and return what it returned; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout:g} s"
        time.sleep(PAUSE)
    return result


def is_alive(pid):
    """Whether a process exists and is no zombie."""
    return birth(pid) is not None and state_of(pid) != "Z"


def state_of(pid):
    """One letter, as in proc(5): R, S, T, Z and so on; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def name_of(pid):
    """The name that `ps` shows."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def memory_of(pid, field="VmRSS"):
    """KiB of memory of a process, by a field of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


def marked(mark):
    """The pids of the living processes in whose environment that stands: NAME=value."""
    return [pid for pid in processes() if has_mark(pid, f"{mark}\0".encode()) and is_alive(pid)]


def time_of_day(seconds):
    """The time of day in so many seconds, in the zone of the site: for `at=`, which is then due that soon."""
    return f"{datetime.now(ZONE) + timedelta(seconds=seconds):%H:%M:%S}"


class Site:
    """A project `proj` with one app `app`, whose tasks.py is `tasks`; `settings` is appended to its settings.

    Keyword arguments are environment variables of all its processes.
    """

    patience = PATIENCE
    host = None  # the Host of which it is a site, and its name there; set by Host.add
    name = None

    def __init__(self, path, tasks="", settings="", **environment):
        self.path = Path(path)
        atexit.register(forget_marks, self)
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in PRIVATE},
            "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])),
            # A file that is changed twice within a second may keep its old compiled form.
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        self.write("manage.py", MANAGE)
        self.write("proj/__init__.py")
        self.write("proj/settings.py", SETTINGS + dedent(settings))
        self.write("app/__init__.py")
        self.declare(tasks)

    def write(self, name, text=""):
        """Write a file below the site's directory; its common indentation is removed."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    def declare(self, tasks):
        """Give the site another tasks.py."""
        return self.write("app/tasks.py", tasks)

    @property
    def state(self):
        """The directory of its history and its lock."""
        usual = self.path / ".linod" if self.host is None else self.host.var / self.name
        return Path(self.environment.get("STATE_DIRECTORY", usual))

    # Processes

    def command(self, *arguments):
        command = [sys.executable, str(self.path / "manage.py"), *map(str, arguments)]
        return command if self.host is None else self.host.command(command)

    def daemon(self, *arguments, **environment):
        """Start `manage.py linod`. Use it in a `with` block, which kills it at the end if it is still there."""
        return Daemon(self, arguments, environment)

    def manage(self, *arguments, timeout=60, **environment):
        """Run a management command to its end; returns subprocess.CompletedProcess with text."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    # History

    def history(self):
        """Its history, opened read-only."""
        return Archive(self.state)

    def runs(self, task=None):
        """The runs in history, the first one first. `task` is an id, or the name of a function in tasks.py."""
        with self.history() as archive:
            runs = archive.runs(limit=1_000_000)
        return [run for run in reversed(runs) if task is None or run.task in (task, f"app.tasks.{task}")]

    def ended(self, task=None):
        """The runs that have ended. A run that was skipped, as many are on a busy machine, has never begun."""
        return [run for run in self.runs(task) if run.outcome not in (None, "skipped")]

    def wait_for_runs(self, task, number=1, timeout=None):
        """Wait until so many runs of a task have ended; returns all that have."""
        until(lambda: len(self.ended(task)) >= number, timeout or self.patience, f"{number} runs of {task}")
        return self.ended(task)


def forget_marks(site):
    """Remove what a daemon that was killed has left in memory for the next one."""
    with contextlib.suppress(OSError):
        info = site.state.stat()
        for path in SHARED.glob(f"linod-{info.st_dev}-{info.st_ino}-*"):
            path.unlink()


class Daemon:
    """A running `manage.py linod`."""

    def __init__(self, site, arguments=(), environment=None):
        self.site = site
        self.log = site.path / f"daemon-{time.monotonic_ns()}.log"
        tests = os.getpid()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                site.command("linod", *arguments),
                cwd=site.path,
                env=site.environment | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # It must not outlive a test run that is killed.
                preexec_fn=lambda: die_with_parent(tests),
            )
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            if exception[0] is not None:
                print(f"--- daemon {self.pid}\n{self.output()[-8000:]}")
            self.kill()

    def output(self):
        """Everything it has written so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, what, timeout=None):
        """Wait for a text in the output, or until a function returns something true, and return that."""
        timeout = timeout or self.site.patience
        condition = what if callable(what) else lambda: what in self.output()
        deadline = time.monotonic() + timeout
        while True:
            ended = self.process.poll() is not None  # asked first: what it wrote at last is seen below
            if result := condition():
                return result
            if ended or time.monotonic() > deadline:
                how = f"the daemon left with {self.process.returncode}" if ended else f"{timeout:g} s have passed"
                raise AssertionError(f"Still waiting for {what!r}, but {how}. Its output:\n{self.output()[-8000:]}")
            time.sleep(PAUSE)

    def wait(self, timeout=None):
        """Wait for its end; returns the exit code, negative for a signal."""
        timeout = timeout or self.site.patience
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"The daemon is still there after {timeout:g} s:\n{self.output()[-8000:]}") from None

    def signal(self, number):
        self.process.send_signal(number)

    def terminate(self, timeout=None):
        """Ask it to stop, and wait; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self):
        """End it with SIGKILL."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    # What is below it

    def children(self):
        """The pids of its children that are alive."""
        return [pid for pid in children(self.pid) if is_alive(pid)]

    def fork_server(self):
        """The pid of the site's fork server, None where there is none (yet)."""
        return next((pid for pid in self.children() if name_of(pid) == "linod-forkserve"), None)

    def workers(self):
        """The pids of its workers: its other children that lead a session, as a process that a task left does not."""
        return [pid for pid in self.children() if name_of(pid) != "linod-forkserve" and session(pid) == pid]

    def memory(self):
        """KiB of its resident memory now."""
        return memory_of(self.pid)


@contextmanager
def neighbourhood(path, tasks, settings="", **environment):
    """A site with a task twice a second beside `tasks`, and its daemon.

    At the end of the block that task must have gone on all the time, and the daemon must stop when it is asked to.
    """
    site = Site(path, tasks=NEIGHBOUR + dedent(tasks), settings=settings, **environment)
    with site.daemon() as daemon:
        site.wait_for_runs("neighbour")
        yield site, daemon
        site.wait_for_runs("neighbour", len(site.ended("neighbour")) + 1)
        assert daemon.terminate() == 0
    starts = [run.started for run in site.runs("neighbour") if run.started]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(starts)]
    assert max(gaps) < LONGEST_GAP, gaps
    assert {run.outcome for run in site.runs("neighbour")} <= {"succeeded", "skipped"}
