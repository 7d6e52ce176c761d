"""The demo site noi1e for tests: its data in a directory of the test's own, used through real processes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.site import PRIVATE
from tests.support.site import Site as GeneratedSite

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "tests" / "projects" / "noi1e"

TASKS = {
    "checksummaries": "noi1e.summaries.models",
    "checkdata": "noi1e.checkdata.models",
    "send_pending_emails_often": "noi1e.notify.tasks",
    "send_pending_emails_daily": "noi1e.notify.tasks",
    "clear_seen_messages": "noi1e.notify.tasks",
    "update_all_repos": "noi1e.repos.tasks",
}

RUN = """
import sys, django, importlib
django.setup()
getattr(importlib.import_module(sys.argv[1]), sys.argv[2])()
"""

ASK = """
import sys, django, json, datetime
django.setup()
from django.apps import apps
from django.utils import timezone
names = {model.__name__: model for model in apps.get_models()}
print(json.dumps(eval(sys.argv[1], globals(), names), default=str))
"""


class Site:
    """noi1e with its data in `var`. Keyword arguments are environment variables, such as NOI1E_DATABASE."""

    def __init__(self, var, **environment):
        self.var = Path(var)
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "noi1e.settings",
            "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])),
            "NOI1E_VAR": str(self.var),
            **environment,
        }

    def use_mail_server(self, port):
        self.environment |= {"NOI1E_EMAIL_HOST": "127.0.0.1", "NOI1E_EMAIL_PORT": str(port)}

    def start(self, *arguments):
        """Start the site's Python and return the process."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=SITE,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments):
        """Return what the site's Python prints; raise with its errors when it fails."""
        process = self.start(*arguments)
        output, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(arguments[-2:])} failed:\n{output}{errors}")
        return output

    def manage(self, *arguments):
        return self.call("manage.py", *arguments)

    def set_up(self):
        """Make the database and the demo data."""
        self.manage("migrate", "--verbosity=0")
        self.manage("demo")

    def start_task(self, name):
        return self.start("-c", RUN, TASKS[name], name)

    def run_task(self, name):
        """Run one of the six tasks in a process of its own, without linod; return what it logged."""
        return self.call("-c", RUN, TASKS[name], name)

    def ask(self, expression):
        """Evaluate an expression with the names of the site's models; return its value by way of JSON."""
        return json.loads(self.call("-c", ASK, expression))


class ServedSite(GeneratedSite):
    """A copy of the whole project with data of its own, on which daemons run.

    In seconds: `every` replaces the intervals and times of day of all six tasks, `often` the shortest interval.
    """

    def __init__(self, path, every=None, often=None, **environment):
        self.path = Path(path)
        shutil.copytree(SITE, self.path, ignore=shutil.ignore_patterns("var", "log", ".linod", "local_settings.py"))
        self.data = Site(self.path / "var", **environment)
        self.data.var.mkdir()
        inherited = {name: value for name, value in self.data.environment.items() if name not in PRIVATE}
        self.environment = inherited | environment
        if every is not None:
            self.replace(r"dd\.schedule_\w+\(\w+=[^,]+", f"dd.schedule_often(every={every}")
        if often is not None:
            self.replace(r"every=10\b", f"every={often}")

    def replace(self, pattern, text):
        """Replace a regular expression in all modules of its apps."""
        for source in self.path.glob("noi1e/*/*.py"):
            source.write_text(re.sub(pattern, text, source.read_text()))

    def use_mail_server(self, port):
        self.data.use_mail_server(port)
        self.environment |= {name: self.data.environment[name] for name in ("NOI1E_EMAIL_HOST", "NOI1E_EMAIL_PORT")}

    def runs(self, task=None):
        """The runs in history, the first one first. `task` is the name of one of the six."""
        return super().runs(task and f"{TASKS[task]}.{task}")
