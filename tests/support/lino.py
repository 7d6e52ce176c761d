"""Real Lino sites, made with what PyPI has of Lino: one of 2021, whose tasks are jobs, and one of 2026, with rows.

    python -m tests.support.lino            # makes them in ~/.cache/linod/lino, and tells where

Each is made once; a test works on a copy, with the same virtual environment, which has no linod.
"""

import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from textwrap import dedent

from linod import caller
from linod.wire import Ended, RunNow
from tests.support.site import PRIVATE, ROOT, Site, until

CACHE = Path("~/.cache/linod/lino").expanduser()

MANAGE = """
import os, sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
"""

COMMON = """
DEBUG = True
ALLOWED_HOSTS = ["*"]
SECRET_KEY = "only for a test"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "default.db"}}
DATABASES["default"]["OPTIONS"] = {"timeout": 20}
SERVER_EMAIL = DEFAULT_FROM_EMAIL = "noreply@lino.test"
EMAIL_HOST, EMAIL_PORT = "127.0.0.1", 1
EMAIL_SUBJECT_PREFIX = "[lino] "
"""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make a site."""

    packages: tuple[str, ...]  # and those that `manage.py install` would add
    settings: str
    newest: tuple[int, int] = (4, 0)  # its Python is older than this

    @property
    def fingerprint(self):
        """Another one where the site would be another."""
        said = repr((self, MANAGE, COMMON, sys.version_info[:2]))
        return hashlib.sha256(said.encode()).hexdigest()[:8]


RECIPES = {
    "2021": Recipe(
        packages=(
            "Django==3.2.25",  # Lino asks for none, and knows no newer one
            "setuptools<66",
            "lino==21.4.2",
            "lino-xl==21.4.2",
            "lino-noi==21.4.1",
            "schedule==1.2.2",
            *("appy", "bleach", "imagesize", "num2words", "odfpy"),
        ),
        settings="""
from lino_noi.lib.noi.settings import *

class Site(Site):
    title = "Noi"
    is_demo_site = True
    languages = "en"
    use_linod = True
    default_ui = "lino.modlib.extjs"

    def get_installed_apps(self):
        yield super().get_installed_apps()
        yield "own"

SITE = Site(globals())
""",
        newest=(3, 12),
    ),
    "2026": Recipe(
        packages=(
            "lino==26.10.8",
            "lino-xl==26.10.5",
            "lino-extjs==26.8.0",
            *("beautifulsoup4", "num2words", "social-auth-app-django"),
        ),
        settings="""
from lino.projects.std.settings import *

class Site(Site):
    title = "Small"
    is_demo_site = True
    languages = "en"
    default_ui = "lino_extjs.extjs"
    site_locale = "C.UTF-8"
    demo_fixtures = ["std", "demo", "demo2", "checksummaries", "checkdata"]

    def get_installed_plugins(self):
        yield super().get_installed_plugins()
        yield "lino.modlib.users"
        yield "lino.modlib.summaries"
        yield "lino.modlib.checkdata"
        yield "lino.modlib.notify"
        yield "own"

SITE = Site(globals())
""",
    ),
}
KINDS = [kind for kind, recipe in RECIPES.items() if sys.version_info[:2] < recipe.newest]


def made(kind):
    """The directory of a site that is ready, with `env` and `site`; it is made where it is missing."""
    recipe = RECIPES[kind]
    home = CACHE / f"{kind}-{recipe.fingerprint}"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several tests may want it at once
        if not (home / "ready").exists():
            make(home, recipe)
            (home / "ready").touch()
    return home


def make(home, recipe):
    """Make a virtual environment, and in `site` a project with demo data."""
    python, site = home / "env/bin/python", home / "site"
    for leftover in (home / "env", site):
        shutil.rmtree(leftover, ignore_errors=True)
    call(sys.executable, "-m", "venv", home / "env", cwd=home)
    call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *recipe.packages, cwd=home)
    (site / "log").mkdir(parents=True)  # makes Lino write log/lino.log
    (site / "own").mkdir()
    (site / "own/__init__.py").touch()
    (site / "manage.py").write_text(MANAGE)
    (site / "settings.py").write_text(recipe.settings + COMMON)
    call(python, "manage.py", "prep", "--noinput", cwd=site)


def call(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name not in (*PRIVATE, "PYTHONPATH")}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900
    )
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout[-4000:]}")


class LinoSite(Site):
    """A copy of a site. `own` becomes the models.py of an app of its own, `settings` is appended to its settings."""

    patience = 60.0  # seconds: it takes some to load

    def __init__(self, path, kind, own="", settings="", **environment):
        home, self.kind = made(kind), kind
        self.path = Path(path) / "site"
        shutil.copytree(home / "site", self.path, ignore=shutil.ignore_patterns("__pycache__"))
        (self.path / "env").symlink_to(home / "env")
        (self.path / "log/lino.log").write_text("")
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in PRIVATE},
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        self.write("own/models.py", own)
        self.append_settings(settings)

    def append_settings(self, text):
        with (self.path / "settings.py").open("a") as file:
            file.write(dedent(text))

    def command(self, *arguments):
        """A command of manage.py, but for ours: the site has one of the same name."""
        python = str(self.path / "env/bin/python")
        place = ["-m"] if arguments[0] == "linod" else ["manage.py"]
        command = [python, *place, *map(str, arguments)]
        return command if self.host is None else self.host.command(command)

    def original(self, *arguments, **options):
        """The site's own command, as a process; end it."""
        return subprocess.Popen(
            [str(self.path / "env/bin/python"), "manage.py", "linod", *arguments],
            cwd=self.path,
            env=self.environment | {"PYTHONPATH": ""},
            stdin=subprocess.DEVNULL,
            text=True,
            **options,
        )

    def ask(self, code):
        """Run Python in the site's shell; returns what it prints after a line `--`."""
        done = self.manage("shell", "-c", "print('--')\n" + dedent(code), PYTHONPATH="")
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("--\n")[2].partition("\nDone manage.py")[0].strip()

    def sql(self, statement, *values):
        """Ask its database; returns the rows as dictionaries."""
        with sqlite3.connect(self.path / "default.db", timeout=20) as db:
            db.row_factory = sqlite3.Row
            rows = [dict(row) for row in db.execute(statement, values).fetchall()]
        db.close()
        return rows

    @property
    def log(self):
        """What Lino has logged."""
        return (self.path / "log/lino.log").read_text()

    def run_now(self, task):
        """Have its daemon run a task, when no run of it is going on any more; returns how that ended (wire.Ended)."""

        def ended():
            *_told, last = caller.follow(self.path, RunNow(task=task, by="the test"))
            assert isinstance(last, Ended) or "previous run" in last.reason, last
            return last if isinstance(last, Ended) else None

        return self.wait(ended, f"a run of {task}")

    def queue_mail(self, subject, mode="often"):
        """Put a message to a user into Lino's outbox; returns its id."""
        user = self.sql("SELECT id FROM users_user WHERE email != '' ORDER BY id LIMIT 1")[0]["id"]
        columns = {
            **{"user_id": user, "created": str(datetime.now()), "message_type": "system", "mail_mode": mode},
            **{"subject": subject, "body": f"<p>{subject}</p>"},
        }
        return self.insert("notify_message", columns)

    def insert(self, table, columns):
        """Insert a row, with what SQLite knows of the other columns; returns its id."""
        for column in self.sql(f"PRAGMA table_info({table})"):
            if column["notnull"] and not column["pk"]:
                columns.setdefault(column["name"], "" if "char" in column["type"] or column["type"] == "text" else 0)
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        [row] = self.sql(f"INSERT INTO {table} ({names}) VALUES ({marks}) RETURNING id", *columns.values())
        return row["id"]

    def wait(self, condition, what="it"):
        return until(condition, self.patience, what)


if __name__ == "__main__":
    for kind in KINDS:
        print(kind, made(kind))
