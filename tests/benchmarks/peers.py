"""linod and those it is compared with: how each is told of the tasks, and started."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from linod.archive import Archive

from .sites import DAY, Mark, Site, Spec, sleep_until, soon
from .venvs import CHECKOUT, own_requirements, python_for


class Peer:
    """One way to run the tasks of a Django site."""

    name: str
    environment: str  # of which virtual environment
    requirements: Sequence[str]
    finest = 1  # seconds: what is due more often is enqueued by our ticker
    lead = 5.0  # seconds from the start until it surely keeps a schedule,
    lead_per_task = 0.002  # and more for each task
    settings = ""

    def python(self) -> Path:
        """The interpreter of its virtual environment, which is made if need be."""
        return python_for(self.environment, list(self.requirements))

    def site(self, specs: list[Spec]) -> Site:
        """A site with these tasks, ready for `start`."""
        site = Site(self.python(), specs, settings=self.settings, finest=self.finest)
        try:
            self.prepare(site)
        except BaseException:
            site.__exit__()
            raise
        return site

    def prepare(self, site: Site) -> None:
        """Write what only this peer needs."""

    def start(self, site: Site) -> int:
        """Start it; returns the pid of its first process."""
        raise NotImplementedError

    def rewind(self, site: Site) -> None:
        """As it was after `prepare`, for another start."""
        site.forget_marks()

    def due_times(self, site: Site, marks: list[Mark]) -> list[float]:
        """When each of these starts was due, for tasks that are due every second: on the grid of whole seconds.

        The n-th start belongs to the n-th second, so that a queue of more than a second is seen as what it is.
        """
        seen: dict[str, int] = {}
        first = {spec.name: spec.first for spec in site.specs}
        due_times = []
        for mark in marks:
            due_times.append(float(first[mark.task] + seen.get(mark.task, 0)))
            seen[mark.task] = seen.get(mark.task, 0) + 1
        return due_times


class Linod(Peer):
    """Knows no first time: an interval's grid has a phase of its own, and a daily time is one of the wall clock."""

    name = environment = "linod"
    requirements = own_requirements()
    settings = 'INSTALLED_APPS += ["linod"]\nUSE_LINOD = True\n'
    tasks = """
import time
import linod
from work.functions import FUNCTIONS, SPECS

for spec in SPECS:
    when = {"every": spec["every"]}
    if spec["every"] == 86400:
        when = {"at": time.strftime("%H:%M:%S", time.gmtime(spec["first"]))}
    linod.task(**when)(FUNCTIONS[spec["name"]])
"""

    def prepare(self, site: Site) -> None:
        site.environment["PYTHONPATH"] = str(CHECKOUT)
        site.write("work/tasks.py", self.tasks)
        if any(spec.every == DAY and not spec.first for spec in site.specs):
            self.let_it_be_missed(site)

    def let_it_be_missed(self, site: Site) -> None:
        """What is due at once is, here, a daily task whose time went by while no daemon ran."""
        due = soon(8)
        site.specs = [spec if spec.first or spec.every != DAY else replace(spec, first=due) for spec in site.specs]
        site.write_specs()
        self.start(site)
        while time.time() < due - 1 and "Next: " not in site.log():
            time.sleep(0.05)
        site.end()
        sleep_until(due + 0.5)
        shutil.copytree(site.path / ".linod", site.path / "state-before")

    def rewind(self, site: Site) -> None:
        super().rewind(site)
        shutil.rmtree(site.path / ".linod")
        shutil.copytree(site.path / "state-before", site.path / ".linod")

    def start(self, site: Site) -> int:
        return site.spawn("manage.py", "linod")

    def due_times(self, site: Site, marks: list[Mark]) -> list[float]:
        """As history has them."""
        with Archive(site.path / ".linod") as archive:
            due = {run.id: run.due.timestamp() for run in archive.runs(limit=100_000)}
        return [due[mark.run] for mark in marks]


class Original(Peer):
    """The loop that linod replaces."""

    name = environment = "original"
    requirements = ("schedule==1.2.2",)
    loop = """
import os
import time
from datetime import datetime

os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
import django

django.setup()
import schedule
from work.functions import FUNCTIONS, SPECS

for spec in SPECS:
    job = schedule.every(spec["every"]).seconds.do(FUNCTIONS[spec["name"]])
    job.next_run = datetime.fromtimestamp(spec["first"] or time.time())
while True:
    schedule.run_pending()
    time.sleep(1)
"""

    def prepare(self, site: Site) -> None:
        site.write("loop.py", self.loop)

    def start(self, site: Site) -> int:
        return site.spawn("loop.py")


class APScheduler(Peer):
    """Its blocking scheduler with everything in memory."""

    environment = "apscheduler"
    requirements = ("APScheduler==3.11.3",)
    script = """
import os
import time
from datetime import datetime, timezone

os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
import django

django.setup()
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.schedulers.blocking import BlockingScheduler
from work.functions import FUNCTIONS, SPECS

if __name__ == "__main__":
    late = {"misfire_grace_time": 60}  # one second by default: on a busy machine it would just skip them
    scheduler = BlockingScheduler(timezone=timezone.utc, executors={"default": EXECUTOR}, job_defaults=late)
    for spec in SPECS:
        first = datetime.fromtimestamp(spec["first"] or time.time(), timezone.utc)
        function = FUNCTIONS[spec["name"]]
        scheduler.add_job(function, "interval", seconds=spec["every"], start_date=first, next_run_time=first)
    scheduler.start()
"""

    def __init__(self, name: str, executor: str) -> None:
        self.name, self.executor = name, executor

    def prepare(self, site: Site) -> None:
        site.write("aps.py", self.script.replace("EXECUTOR", self.executor))

    def start(self, site: Site) -> int:
        return site.spawn("aps.py")


class Huey(Peer):
    """Two workers on SQLite. Its scheduler knows minutes only, so our ticker enqueues what is due more often."""

    environment = "huey"
    requirements = ("huey==3.5.4",)
    finest = 60
    lead_per_task = 0.005
    settings = """
from huey import SqliteHuey

INSTALLED_APPS += ["huey.contrib.djhuey"]
HUEY = SqliteHuey("bench", filename=str(BASE_DIR / "huey.db"))
"""
    tasks = """
import time
from datetime import datetime

from huey import crontab
from huey.contrib.djhuey import periodic_task, task
from work.functions import FUNCTIONS, SPECS

TASKS = {}
for spec in SPECS:
    first = datetime.fromtimestamp(spec["first"])
    far = spec["every"] == 86400 and spec["first"] > time.time() + 3600
    how = periodic_task(crontab(minute=str(first.minute), hour=str(first.hour)), name=spec["name"]) if far else None
    TASKS[spec["name"]] = (how or task(name=spec["name"]))(FUNCTIONS[spec["name"]])
"""
    plan_daily = """
import os
import time
from datetime import datetime

os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
import django

django.setup()
from work.tasks import SPECS, TASKS

for spec in SPECS:
    if spec["every"] == 86400 and spec["first"] < time.time() + 3600:
        TASKS[spec["name"]].schedule(eta=datetime.fromtimestamp(spec["first"]))
"""
    ticker = """
import os
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
import django

django.setup()
from work.tasks import SPECS, TASKS

due = {spec["name"]: spec["first"] or int(time.time()) for spec in SPECS if spec["ticked"]}
every = {spec["name"]: spec["every"] for spec in SPECS}
while True:
    name = min(due, key=due.get)
    time.sleep(max(0, due[name] - time.time()))
    TASKS[name]()
    due[name] += every[name]
"""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind

    def prepare(self, site: Site) -> None:
        site.write("work/tasks.py", self.tasks)
        site.write("plan_daily.py", self.plan_daily)
        site.write("ticker.py", self.ticker)
        site.run("manage.py", "migrate", "-v0")
        site.run("plan_daily.py")

    def rewind(self, site: Site) -> None:
        super().rewind(site)
        site.run("plan_daily.py")

    def start(self, site: Site) -> int:
        pid = site.spawn("manage.py", "run_huey", "-w", "2", "-k", self.kind)
        if any(spec.ticked for spec in site.specs):
            site.spawn(str(site.path / "ticker.py"), outside=True)
        return pid


PEERS = {
    peer.name: peer
    for peer in (
        Linod(),
        Original(),
        APScheduler("aps-thread", "ThreadPoolExecutor()"),
        APScheduler("aps-process", "ProcessPoolExecutor(2, {'initializer': django.setup})"),
        Huey("huey-thread", "thread"),
        Huey("huey-process", "process"),
    )
}
