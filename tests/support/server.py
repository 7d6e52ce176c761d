"""A booted Debian with linod installed as its package would do it, and Django sites on it that belong to www-data.

with Server("trixie") as server:
    site = server.add_site("myprj", tasks='''
    from linod import dd

    @dd.schedule_often(every=1)
    def ping():
        print("pong")
    ''')
    site.start()
    site.wait_for_runs("ping")
    site.records(LINOD_TASK="ping")
"""

import email
import email.policy
import json
import shutil
import subprocess
import time
from pathlib import Path
from textwrap import dedent

from linod.archive import Archive
from tests.support.boot import CommandFailed, Machine
from tests.support.roots import ENVIRONMENT
from tests.support.site import MANAGE, SETTINGS

ROOT = Path(__file__).resolve().parents[2]
NOI1E = ROOT / "tests" / "projects" / "noi1e"
USER = "www-data"
MAILBOX = "/var/postman/Maildir/new"


class Server(Machine):
    """A machine with linod."""

    def __init__(self, suite):
        super().__init__(suite)
        self.sites = {}

    def prepare(self):
        command = ["make", "--silent", "--directory", ROOT, "install", f"DESTDIR={self.root}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise CommandFailed(f"make install fails:\n{done.stdout}{done.stderr}")
        packages = "/usr/lib/python3/dist-packages"
        self.inside("python3", "-m", "compileall", "-q", f"{packages}/linod")
        # A site has linod in its own environment, where Django finds its app.
        [environment] = self.root.glob(f"{ENVIRONMENT[1:]}/lib/python3.*/site-packages")
        shutil.copytree(self.root / packages[1:] / "linod", environment / "linod")
        (self.root / "etc/linod/sites").mkdir(parents=True, exist_ok=True)
        self.inside("systemctl", "--root=/", "enable", "linod.target")

    def inside(self, *command):
        """Run a command on the disk before the boot."""
        subprocess.run(["chroot", self.root, *command], check=True, capture_output=True)

    # Sites

    def add_site(self, name, tasks="", settings="", files=None, owner=USER, python=True):
        """Make a small Django site in /srv/NAME, and link it. `python=False`: without an environment of its own."""
        site = Site(self, name, f"/srv/{name}", owner)
        site.write("manage.py", MANAGE)
        site.write("proj/__init__.py", "")
        site.write("proj/settings.py", SETTINGS + dedent(settings))
        site.write("app/__init__.py", "")
        site.declare(tasks)
        for path, text in (files or {}).items():
            site.write(path, text)
        if python:
            self.run(f"ln -s {ENVIRONMENT} {site.directory}/env")
        return self.link(site)

    def add_noi1e(self):
        """Add the demo site, with its data."""
        site = Site(self, "noi1e", "/srv/noi1e", USER)
        ignored = shutil.ignore_patterns("var", "log", ".linod", "__pycache__", "local_settings.py")
        shutil.copytree(NOI1E, self.root / site.directory[1:], ignore=ignored, dirs_exist_ok=True)
        self.run(f"mkdir {site.directory}/var")
        self.link(site)
        site.manage("migrate --verbosity=0")
        site.manage("demo")
        return site

    def link(self, site):
        """Give a site to its owner, and make it a site of this host."""
        self.run(
            f"chown --no-dereference --recursive {site.owner}: {site.directory}"
            f" && ln -sfn {site.directory} /etc/linod/sites/{site.name}"
        )
        self.sites[site.name] = site
        return site

    # What an administrator sees

    def ctl(self, arguments, **options):
        """Run linodctl; options are those of `run`."""
        return self.run(f"linodctl {arguments}", **options)

    def show(self, unit, *properties):
        """Properties of a unit: a text where it is one, else a list of texts."""
        lines = self.ask(f"systemctl show {unit} --property={','.join(properties)}").splitlines()
        values = dict(line.split("=", 1) for line in lines)
        found = [values.get(name, "") for name in properties]
        return found[0] if len(found) == 1 else found

    def records(self, unit=None, since=0.0, **match):
        """The records of the journal since an instant, the oldest first, as dictionaries of their fields."""
        arguments = [f"--since=@{since:.6f}"]
        arguments += [f"--unit={unit}"] if unit else []
        arguments += [f"'{name}={value}'" for name, value in match.items()]
        lines = self.ask(f"journalctl --sync; journalctl --all --output=json {' '.join(arguments)}")
        return [json.loads(line) for line in lines.splitlines()]

    def mails(self):
        """All mails that the mail server of this machine has taken, the oldest first."""
        directory = self.root / MAILBOX[1:]
        files = sorted(directory.glob("*"), key=lambda path: path.stat().st_mtime) if directory.is_dir() else []
        return [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in files]

    def forget_mails(self):
        self.run(f"rm -rf {MAILBOX}")

    def report(self):
        """What somebody wants to know where a test has failed."""
        texts = []
        for site in self.sites.values():
            shown = "systemctl status --full --lines=0"
            journal = f"journalctl --no-hostname --since=@{site.since:.6f} --lines=60"
            units = f"{site.unit} linod-run@{site.name}.service linod-alert@{site.name}.service"
            selected = " ".join(f"--unit={unit}" for unit in units.split())
            texts.append(self.run(f"{shown} {site.unit}; {journal} {selected}", check=False).stdout)
        return "\n".join(texts)


class Site:
    """A site of a server, and its unit."""

    def __init__(self, server, name, directory, owner):
        self.server, self.name, self.directory, self.owner = server, name, directory, owner
        self.unit = f"linod@{name}.service"
        self.state = f"/var/lib/linod/{name}"
        self.since = time.time()  # what the journal had before is of another site of that name

    # Files

    def write(self, path, text):
        """Write a file of the site; its common indentation is removed."""
        self.server.write(f"{self.directory}/{path}", dedent(text), owner=self.owner)

    def declare(self, tasks):
        """Give it another tasks.py."""
        self.write("app/tasks.py", tasks)

    def read(self, path):
        return self.server.read(f"{self.directory}/{path}")

    def exists(self, path):
        return self.server.exists(f"{self.directory}/{path}")

    def override(self, text):
        """Write /etc/linod/SITE.toml."""
        self.server.write(f"/etc/linod/{self.name}.toml", dedent(text))

    def drop_in(self, text, unit=None):
        """Change its unit, or another one."""
        self.server.write(f"/etc/systemd/system/{unit or self.unit}.d/test.conf", dedent(text))
        self.server.run("systemctl daemon-reload")

    def say(self, **settings):
        """Change directives of its service: `site.say(WatchdogSec=3)`."""
        self.drop_in("[Service]\n" + "".join(f"{name}={value}\n" for name, value in settings.items()))

    def manage(self, arguments, **options):
        """Run its manage.py as its owner."""
        command = f"cd {self.directory} && env/bin/python manage.py {arguments}"
        return self.server.run(command, **{"user": self.owner} | options)

    # Its unit

    def systemctl(self, verb, **options):
        return self.server.run(f"systemctl {verb} {self.unit}", **options)

    def start(self, **options):
        return self.systemctl("start", **options)

    def stop(self, **options):
        return self.systemctl("stop", **options)

    def restart(self, **options):
        return self.systemctl("restart", **options)

    def reload(self, **options):
        return self.systemctl("reload", **options)

    def show(self, *properties):
        return self.server.show(self.unit, *properties)

    @property
    def active(self):
        """One word: active, inactive, failed, activating and so on."""
        return self.show("ActiveState")

    @property
    def status(self):
        """What the daemon says of itself in `systemctl status`."""
        return self.show("StatusText")

    @property
    def pid(self):
        """The daemon's pid in the machine; 0 where there is none."""
        return int(self.show("MainPID"))

    def signal(self, name):
        """Send a signal to the daemon alone."""
        self.server.run(f"kill -{name} {self.pid}")

    def records(self, **match):
        """What the journal has of its unit, and what others wrote about that."""
        return self.server.records(self.unit, since=self.since, **match)

    def log(self):
        """The messages in the journal as one text."""
        return "\n".join(str(record.get("MESSAGE")) for record in self.records())

    def processes(self):
        """What `ps` shows of the processes in its cgroup: pid -> its whole command line, the first one first."""
        lines = self.server.ask("ps -eo pid=,cgroup:200=,args= ww").splitlines()
        parts = [line.split(None, 2) for line in lines if f"/{self.unit}" in line.split()[1]]
        return {int(pid): command for pid, _cgroup, command in parts}

    # Its history

    def runs(self, task=None):
        """The runs in history, the first one first. `task` is an id, or the name of a function in tasks.py."""
        with Archive(self.server.root / self.state[1:]) as archive:
            runs = archive.runs(limit=100_000)
        return [run for run in reversed(runs) if task is None or run.task in (task, f"app.tasks.{task}")]

    def ended(self, task=None):
        """The runs that were begun and have ended."""
        return [run for run in self.runs(task) if run.outcome not in (None, "skipped")]

    def wait_for_runs(self, task, number=1, timeout=30):
        """Wait until so many runs of a task have ended; returns all that have."""
        self.server.wait(lambda: len(self.ended(task)) >= number, timeout)
        return self.ended(task)

    def wait_until_running(self, task, timeout=30):
        """Wait until a run of a task has begun and is not over; returns it."""
        return self.server.wait(
            lambda: next((run for run in self.runs(task) if run.outcome is None and run.started), None), timeout
        )

    # The end

    def remove(self):
        """Stop it, and leave nothing of it behind."""
        name, run = self.name, self.server.run
        units = f"linod-run@{name}.timer linod-run@{name}.service {self.unit} linod-alert@{name}.service"
        run(f"systemctl disable --now {units}", check=False)
        run(f"systemctl kill --signal=KILL {self.unit}; systemctl reset-failed {units}", check=False)
        run(f"rm -rf /etc/linod/sites/{name} /etc/linod/{name}.toml /etc/linod/{name}.env {self.state}")
        drop_ins = " ".join(f"/etc/systemd/system/{unit}.d" for unit in units.split())
        run(f"rm -rf {drop_ins} && systemctl daemon-reload")
        if name != "noi1e":
            run(f"rm -rf {self.directory}")
        self.server.sites.pop(name, None)


def is_running(run):
    """Whether a run has begun and is not over, as far as history knows."""
    return run.started is not None and run.outcome is None
