"""Other users than the one of the tests: real ones, by number; without root, sudo makes us those."""

import os
import shutil
import subprocess
import sysconfig
from contextlib import contextmanager
from pathlib import Path

from .disk import SUDO, as_root
from .site import ROOT, Site, until

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


def make_library(path):
    """linod and what it needs, where everybody can read it."""
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

    def __init__(self, path, library, tasks=TASKS):
        open_to_all(path)
        self.site = Site(path / "site", tasks=tasks)
        self.output = ""  # of its last daemon, when that has ended
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
            self.output = process.stdout.read()
            process.stdout.close()
            process.wait(20)

    def ended(self):
        return self.site.ended() if self.site.state.exists() else []
