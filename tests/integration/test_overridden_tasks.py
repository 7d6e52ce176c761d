"""What the administrator of a host writes into /etc/linod/SITE.toml, and what becomes of a site's tasks by it."""

import json
import signal
import subprocess
import sys

import pytest

from linod.task import Task
from tests.support.host import Host
from tests.support.site import Site

TASKS = """
from linod import dd

@dd.schedule_often(every=3600, timeout=5)
def ping():
    print("pong")

@dd.schedule_daily(at="20:00")
def tidy():
    pass
"""
OLD_LINO = """
class OldLino:
    use_linod = False

SITE = OldLino()
del USE_LINOD
"""
OLD_LINO_APP = """
from django.conf import settings
from linod import dd

if settings.SITE.use_linod:
    @dd.schedule_often(every=10)
    def ping():
        pass
"""
LOAD = """
import os, sys
from linod.launch import Place
from linod.site.load import load

site = load(Place(directory=os.getcwd(), python=sys.executable, manage=os.path.abspath("manage.py")))
print(site.name, site.uses_linod, list(site.declarations))
"""


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.fixture
def site(host, tmp_path):
    site = Site(tmp_path / "site", tasks=TASKS)
    host.add("my-prj", site)
    return site


def test_the_daemon_follows_the_administrator(host, site):
    host.override(
        "my-prj",
        """
        [tasks.ping]
        every = 0.5
        [tasks.tidi]
        enabled = false
        """,
    )
    with site.daemon() as daemon:
        site.wait_for_runs("ping", 2)
        complaint = "/etc/linod/my-prj.toml, line 4: This site has no task 'tidi'. Did you mean tidy?"
        daemon.wait_for(complaint)
        assert daemon.terminate() == 0
    with site.history() as archive:
        ping = Task.from_dict(json.loads(archive.tasks()[0]["task"]))
    assert (ping.text, ping.declared) == ("Every 0.5 seconds do ping()", "Every 3600 seconds")
    assert ping.overridden == ("every: /etc/linod/my-prj.toml:3",)
    assert ping.policies.timeout == 5


def test_a_reload_applies_what_was_changed(host, site):
    with site.daemon() as daemon:
        daemon.wait_for("2 tasks")
        host.override("my-prj", "tasks.ping.every = 0.5")
        daemon.signal(signal.SIGHUP)
        site.wait_for_runs("ping", 2)
        host.override("my-prj", "tasks.ping.evry = 0.5")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("/etc/linod/my-prj.toml, line 1: `[tasks.ping]` has no key `evry`. Did you mean every?")
        site.wait_for_runs("ping", len(site.ended("ping")) + 2)
        assert daemon.terminate() == 0


def test_the_list_shows_the_new_schedule(host, site):
    host.override("my-prj", 'tasks.ping.every = 30\n[tasks.tidy]\nat = ["06:00", "18:00"]\nenabled = false')
    lines = site.manage("linod", "--list").stdout.splitlines()
    assert lines[0] == "2 scheduled jobs:"
    assert lines[1].startswith("[1] Every 30 seconds do ping() (last run: [never], next run: 2")
    assert lines[2] == "[2] Every 1 day at 06:00:00, 18:00:00 do tidy() (last run: [never], next run: [never])"


def test_a_mistake_keeps_the_daemon_from_starting(host, site):
    host.override("my-prj", "[tasks.ping]\n\nevery = 'often'")
    result = site.manage("linod")
    assert result.returncode == 78
    assert "/etc/linod/my-prj.toml, line 3: every='often' is not a length of time." in result.stderr


@pytest.mark.parametrize("command", [("check",), ("linod", "--check")])
def test_both_checks_tell_what_is_wrong(host, site, command):
    host.override("my-prj", "[tasks.pong]\nevery = 30")
    result = site.manage(*command)
    assert result.returncode == 0
    assert "(linod.W002) /etc/linod/my-prj.toml, line 1: This site has no task 'pong'. Did you mean" in result.stderr
    host.override("my-prj", "[tasks.tidy]\ntz = 'Mars'")
    result = site.manage(*command)
    assert result.returncode == (78 if "linod" in command else 1)
    assert "/etc/linod/my-prj.toml, line 2: There is no time zone 'Mars'." in result.stderr


@pytest.mark.parametrize(
    ("written", "in_environment", "used"),
    [("true", "no", False), ("false", "yes", True), ("false", "", False), ("true", "", True)],
)
def test_the_environment_comes_before_the_file_and_the_file_before_the_site(host, site, written, in_environment, used):
    host.override("my-prj", f"use_linod = {written}")
    site.write("proj/settings.py", (site.path / "proj/settings.py").read_text() + f"USE_LINOD = {not used}\n")
    result = site.manage("linod", "--list", LINOD_USE=in_environment)
    assert ("This site does not use linod." not in result.stdout) == used, result


def test_old_lino_registers_its_tasks_when_the_file_says_so(host, tmp_path):
    site = Site(tmp_path / "lino", settings=OLD_LINO)
    site.write("app/models.py", OLD_LINO_APP)
    host.add("lino", site)
    assert load(host, site) == "lino False []"
    host.override("lino", "use_linod = true")
    assert load(host, site) == "lino True ['app.models.ping']"


def load(host, site):
    """What the fork server of a service would find."""
    result = subprocess.run(
        host.command([sys.executable, "-c", LOAD]),
        cwd=site.path,
        env=site.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_settings_of_linod_come_from_the_file_first(host, site):
    host.override("my-prj", "max_parallel = 'many'")
    assert "/etc/linod/my-prj.toml, line 1: max_parallel = 'many' is not a whole number." in site.manage("linod").stderr
    host.override("my-prj", "log_runs = 'all'\nload_timeout = 60\ntasks.ping.every = 0.5")
    site.write("proj/settings.py", (site.path / "proj/settings.py").read_text() + "LINOD = {'log_runs': 'changes'}\n")
    with site.daemon() as daemon:
        site.wait_for_runs("ping", 3)
        daemon.wait_for(lambda: daemon.output().count("ping succeeded") >= 3)
