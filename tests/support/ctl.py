"""linodctl on a host below a temporary directory: its sites, their real histories, and real control sockets.

host = CtlHost(tmp_path)
host.patch(monkeypatch)                       # this process sees that host
host.add("myprj")
host.remember("myprj", [task("ping", every=10)], [run("ping", outcome="failed")])
code, out, err = host.call(capsys, "sites")   # linod.ctl.main, in this process
done = host.spawn("check", "myprj")           # the same in a process of its own, by the system's Python
"""

import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from linod import schedules, sites
from linod.archive import COLUMNS, FILE, connect, row_from_run
from linod.ctl import adding, main, units
from linod.instants import to_micros
from linod.runs import Outcome, Run, Trigger
from linod.sites import HostSite
from linod.state import CONTROL
from linod.task import Policies, Task
from linod.wire import receive, send

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"
ZONE = "Europe/Brussels"
ME = pwd.getpwuid(os.geteuid()).pw_name

UNIT = "[Service]\nUser={user}\nExecStart=/bin/true\n"
# What monkeypatch does in this process, for one of its own.
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
root = Path(sys.argv.pop(1))
from linod import sites
from linod.ctl import adding, main, units
sites.ETC, sites.SITES = root / "etc", root / "etc/sites"
sites.STATES, sites.RUNTIMES = root / "var", root / "run"
units.BOOTED, units.UNIT_FILES = root / "systemd/booted", (root / "systemd",)
adding.ADMIN_UNITS, adding.TIMER_STAMPS = root / "systemd", root / "timers"
sys.exit(main())
"""


class CtlHost:
    """A host whose /etc/linod, /var/lib/linod, /run/linod and unit files are below a directory. systemd doesn't run."""

    def __init__(self, path):
        self.path = Path(path)
        self.etc, self.var, self.run, self.systemd = (self.path / name for name in ("etc", "var", "run", "systemd"))
        for directory in (self.etc / "sites", self.var, self.run, self.systemd, self.path / "srv"):
            directory.mkdir(parents=True)
        # Root runs no site, so there it is the usual user.
        self.user = ME if os.geteuid() else "www-data"
        (self.systemd / "linod@.service").write_text(UNIT.format(user=self.user))

    def patch(self, monkeypatch):
        """Let this process see it."""
        monkeypatch.setattr(sites, "ETC", self.etc)
        monkeypatch.setattr(sites, "SITES", self.etc / "sites")
        monkeypatch.setattr(sites, "STATES", self.var)
        monkeypatch.setattr(sites, "RUNTIMES", self.run)
        monkeypatch.setattr(units, "BOOTED", self.systemd / "booted")
        monkeypatch.setattr(units, "UNIT_FILES", (self.systemd,))
        monkeypatch.setattr(adding, "ADMIN_UNITS", self.systemd)
        monkeypatch.setattr(adding, "TIMER_STAMPS", self.path / "timers")
        for name in ("COLUMNS", "NO_COLOR", "SUDO_USER", "STATE_DIRECTORY"):
            monkeypatch.delenv(name, raising=False)

    def directory(self, name):
        """A directory with a manage.py."""
        directory = self.path / "srv" / name
        directory.mkdir(exist_ok=True)
        (directory / "manage.py").touch()
        return directory

    @classmethod
    @contextmanager
    def open_to_all(cls):
        """A host that other users can see as well: pytest's own directories are closed to them."""
        path = Path(tempfile.mkdtemp(prefix="linodctl-", dir="/tmp"))
        path.chmod(0o755)
        try:
            yield cls(path)
        finally:
            shutil.rmtree(path)

    def add(self, *names):
        """Make sites of that name."""
        for name in names:
            (self.etc / "sites" / name).symlink_to(self.directory(name))
        return HostSite(name=names[0])

    def remember(self, name, tasks=(), runs=(), pauses=()):
        """Let a site have a history."""
        (self.var / name).mkdir(exist_ok=True)
        since = to_micros(datetime.now(UTC) - timedelta(days=30))
        with closing(connect(self.var / name / FILE)) as db:
            for position, one in enumerate(tasks):
                values = (one.id, position, json.dumps(one.as_dict()), since, to_micros(datetime.now(UTC)))
                db.execute("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?, ?, ?)", values)
            marks = ", ".join("?" * len(COLUMNS))
            for number, one in enumerate(runs, start=1):
                row = row_from_run(replace(one, id=one.id or number))
                db.execute(f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({marks})", row)
            for pause in pauses:
                db.execute("INSERT INTO pauses VALUES (?, ?, ?, ?)", pause)

    def call(self, capsys, *arguments):
        """Run linodctl in this process; returns exit code, output, errors."""
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    def command(self, *arguments):
        return [SYSTEM_PYTHON, "-I", "-c", PROGRAM, str(ROOT), str(self.path), *map(str, arguments)]

    def spawn(self, *arguments, **environment):
        """Run linodctl in a process of its own."""
        return subprocess.run(
            self.command(*arguments),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )


@contextmanager
def daemon_says(state, *answers, hang_up=True):
    """A control socket at which each caller is told these, and then hung up on. Yields what was asked."""
    asked = []
    state.mkdir(exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    directory = os.open(state, os.O_PATH | os.O_DIRECTORY)
    listener.bind(f"/proc/self/fd/{directory}/{CONTROL}")
    os.close(directory)
    listener.listen()

    def serve():
        while True:
            try:
                channel, _address = listener.accept()
            except OSError:
                return
            with channel:
                if (message := receive(channel)) is None:
                    continue
                asked.append(message)
                for answer in answers:
                    send(channel, answer)
                if not hang_up:
                    receive(channel)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        (state / CONTROL).unlink()


def task(name, **declared):
    """A task of a site, declared with every=, at= or cron=; the rest are its policies."""
    when = {key: declared.pop(key) for key in ("every", "at", "cron") if key in declared}
    more = {key: declared.pop(key) for key in ("overridden", "declared") if key in declared}
    declaration = schedules.declare(**(when or {"every": 10}))
    return Task(
        id=f"app.tasks.{name}",
        label=name,
        text=f"{declaration.text} do {name}()",
        schedule=declaration.schedule.placed(ZONE, name),
        policies=Policies(**declared),
        source="/srv/app/tasks.py:7",
        **more,
    )


def run(name, outcome="succeeded", *, ago=60.0, took=1.5, **more):
    """A run of a task that began so many seconds ago; no outcome: it goes on."""
    started = datetime.now(UTC) - timedelta(seconds=ago)
    ended = started + timedelta(seconds=took) if outcome and outcome != "lost" else None
    values = {
        "id": 0,
        "task": f"app.tasks.{name}",
        "due": started,
        "started": None if outcome == "skipped" else started,
        "ended": ended,
        "outcome": Outcome(outcome) if outcome else None,
        "duration": took if ended and outcome != "skipped" else None,
        "trigger": Trigger.SCHEDULE,
        "boot": "b",
    }
    return Run(**{**values, **more})
