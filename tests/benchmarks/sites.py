"""A small Django site, generated for one measure of one peer, and the processes that work in it."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .processes import Process, kill_all_in, processes_in

DAY = 86400
# What `django-admin startproject` writes, as far as it costs memory or time.
SETTINGS = """
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "for measuring only"
USE_TZ, TIME_ZONE = True, "UTC"
ROOT_URLCONF = "project.urls"
STATIC_URL = "static/"
CONTRIB = ["admin", "auth", "contenttypes", "sessions", "messages", "staticfiles"]
INSTALLED_APPS = [f"django.contrib.{name}" for name in CONTRIB] + ["work"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
PROCESSORS = ["django.template.context_processors.request"]
PROCESSORS += [f"django.contrib.{name}.context_processors.{name}" for name in ("auth", "messages")]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": PROCESSORS},
    }
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
"""
MANAGE = """
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
execute_from_command_line(sys.argv)
"""
# What a task does for every peer: say when it was started, then perhaps sleep.
FUNCTIONS = """
import json
import os
import time
from pathlib import Path

SITE = Path(__file__).resolve().parent.parent
SPECS = json.loads((SITE / "specs.json").read_text())


def make(name, sleep):
    def work():
        at = time.time_ns()
        fd = os.open(SITE / "marks", os.O_WRONLY | os.O_APPEND)
        os.write(fd, f"{name} {at} {os.environ.get('LINOD_RUN', 0)}\\n".encode())
        os.close(fd)
        if sleep:
            time.sleep(sleep)

    work.__name__ = work.__qualname__ = name
    return work


FUNCTIONS = {spec["name"]: make(spec["name"], spec["sleep"]) for spec in SPECS}
globals().update(FUNCTIONS)
"""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A task to be declared: every so many seconds, or daily. `first` is an epoch; 0: at once."""

    name: str
    every: int = DAY
    first: int = 0
    sleep: float = 0.0
    ticked: bool = False  # enqueued by our ticker: the peer's own scheduler has no grain this fine


@dataclass(frozen=True)
class Mark:
    """A start, as the task itself saw it."""

    task: str
    at: float
    run: int  # linod's number of the run


def daily(number: int) -> list[Spec]:
    """Daily tasks that are not due while we look: spread over the half day that begins six hours from now."""
    begin = int(time.time()) + 6 * 3600
    return [Spec(name=f"daily{i}", first=(begin + i * DAY // 2 // number) // 60 * 60) for i in range(number)]


class Site:
    """A site in a directory of its own. Use it as a context: at the end its processes are ended."""

    def __init__(self, python: Path, specs: list[Spec], *, settings: str = "", finest: int = 1) -> None:
        self.python = python
        self.specs = [replace(spec, ticked=spec.every < finest) for spec in specs]
        self.path = Path(tempfile.mkdtemp(prefix="linod-bench-")).resolve()
        self._spawned: list[subprocess.Popen[bytes]] = []
        self.environment = {**os.environ, "TZ": "UTC", "PYTHONDONTWRITEBYTECODE": "", "STATE_DIRECTORY": ""}
        for name, text in {
            "project/__init__.py": "",
            "project/settings.py": SETTINGS + settings,
            "project/urls.py": "urlpatterns = []",
            "manage.py": MANAGE,
            "work/__init__.py": "",
            "work/functions.py": FUNCTIONS,
            "marks": "",
        }.items():
            self.write(name, text)
        self.write_specs()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end()
        shutil.rmtree(self.path, ignore_errors=True)

    def write(self, name: str, text: str) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def write_specs(self) -> None:
        self.write("specs.json", json.dumps([asdict(spec) for spec in self.specs]))

    # Processes

    def run(self, *arguments: str) -> None:
        """Run a step of the preparation to its end."""
        with (self.path / "log").open("ab") as log:
            command = [str(self.python), *arguments]
            subprocess.run(
                command, cwd=self.path, env=self.environment, stdout=log, stderr=log, check=True, timeout=120
            )

    def spawn(self, *arguments: str, outside: bool = False) -> int:
        """Start a process; `outside`: its cost is not the peer's. Returns its pid."""
        with (self.path / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(self.python), *arguments],
                cwd="/" if outside else self.path,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._spawned.append(process)
        return process.pid

    def processes(self) -> list[Process]:
        return processes_in(self.path)

    def end(self) -> None:
        """End all that was started: asked at first, then killed."""
        for process in self._spawned:
            process.send_signal(signal.SIGTERM)
        for process in self._spawned:
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
        kill_all_in(self.path)
        for process in self._spawned:
            process.kill()
            process.wait(10)
        self._spawned.clear()

    # What was done

    def marks(self) -> list[Mark]:
        """All starts so far, the earliest first."""
        lines = map(str.split, (self.path / "marks").read_text().splitlines())
        return sorted((Mark(task, int(at) / 1e9, int(run)) for task, at, run in lines), key=lambda mark: mark.at)

    def wait_for(self, task: str, patience: float = 60.0) -> float | None:
        """When a task was first started; None if it wasn't."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if found := next((mark.at for mark in self.marks() if mark.task == task), None):
                return found
            time.sleep(0.01)
        return None

    def forget_marks(self) -> None:
        self.write("marks", "")

    def log(self) -> str:
        return (self.path / "log").read_text(errors="replace")

    # What it costs

    def cpu(self) -> float:
        return sum(process.cpu() for process in self.processes())

    def wakeups(self) -> dict[tuple[str, str], int]:
        """Of each thread, by the role of its process and its own number."""
        return {(p.role(), thread): n for p in self.processes() for thread, n in p.wakeups().items()}


def soon(seconds: float) -> int:
    """A whole second so far from now."""
    return math.ceil(time.time() + seconds)


def sleep_until(epoch: float) -> None:
    time.sleep(max(0.0, epoch - time.time()))
