"""Sites of a server come to life without any change to them, whatever their own Python has."""

import re
import shutil

import pytest

from tests.support.noi1e import TASKS
from tests.support.roots import ENVIRONMENT
from tests.support.server import NOI1E, Site

WITHOUT_LINOD = "INSTALLED_APPS = ['app']"
PING = """
from linod import dd

@dd.schedule_often(every=1)
def ping():
    print("pong")
"""
ASK_FOR_SYSTEM_PACKAGES = """
import importlib.util, sys
import schedule
from linod import dd

@dd.schedule_often(every=1)
def tell():
    import linod
    found = [name for name in ("systemd", "sdnotify", "croniter") if importlib.util.find_spec(name)]
    print("found", found, "prefix", sys.prefix, "linod", linod.__file__, "schedule", schedule.__file__)
"""
ON_SCHEDULE = """
import schedule

def greet():
    print("hello")

schedule.every(1).seconds.do(greet)
"""


def test_a_virtual_environment_needs_no_linod_and_sees_nothing_else_of_the_system(server):
    site = server.add_site("shop", tasks=ASK_FOR_SYSTEM_PACKAGES, settings=WITHOUT_LINOD)
    assert "systemctl enable --now linod@shop" in site.told
    server.run("systemctl enable --now linod@shop")
    output = site.wait_for_runs("tell")[0].output
    assert "found [] " in output
    assert f"prefix {ENVIRONMENT} " in output or "prefix /srv/shop/env " in output
    assert "linod /usr/share/linod/site-path/linod/__init__.py" in output
    assert "schedule /usr/share/linod/site-path/schedule/__init__.py" in output
    listing = server.ctl("exec shop linod --list").stdout
    assert listing.startswith("1 scheduled jobs:\n[1] Every 1 second do tell() (last run: 2")


def test_a_site_that_knows_only_the_schedule_package_needs_no_linod_either(server):
    site = server.add_site("greeter", tasks=ON_SCHEDULE, settings=WITHOUT_LINOD)
    site.start()
    assert "hello" in site.wait_for_runs("greet")[0].output


def test_a_site_on_the_systems_python_uses_the_systems_django(server):
    server.apt("install python3-django")
    site = server.add_site("plain", tasks=PING, python=False)
    server.run("systemctl enable --now linod@plain")
    assert site.wait_for_runs("ping")[0].outcome == "succeeded"
    listing = server.ctl("exec plain linod --list").stdout
    assert listing.startswith("1 scheduled jobs:")


def test_a_site_keeps_its_own_linod_and_its_own_schedule(server):
    site = server.add_site("own", tasks=ASK_FOR_SYSTEM_PACKAGES, settings=WITHOUT_LINOD)
    environment = own_environment(site)
    server.run(f"cp -r /usr/lib/python3/dist-packages/linod /usr/lib/python3/dist-packages/schedule {environment}")
    site.start()
    output = site.wait_for_runs("tell")[0].output
    assert f"linod {environment}/linod/__init__.py" in output
    assert f"schedule {environment}/schedule/__init__.py" in output


@pytest.mark.parametrize("missing", ["linod", "schedule"])
def test_a_site_that_has_one_of_the_two_is_lent_the_other(server, missing):
    site = server.add_site("half", tasks=ASK_FOR_SYSTEM_PACKAGES, settings=WITHOUT_LINOD)
    environment = own_environment(site)
    [present] = {"linod", "schedule"} - {missing}
    server.run(f"cp -r /usr/lib/python3/dist-packages/{present} {environment}")
    site.start()
    output = site.wait_for_runs("tell")[0].output
    assert f"{present} {environment}/{present}/__init__.py" in output
    assert f"{missing} /usr/share/linod/site-path/{missing}/__init__.py" in output


def test_an_app_that_happens_to_be_called_schedule_comes_first(server):
    tasks = PING.replace('print("pong")', "import schedule; print(schedule.WHOSE)")
    files = {"schedule/__init__.py": 'WHOSE = "the site\'s"\n'}
    site = server.add_site("diary", tasks=tasks, settings="INSTALLED_APPS = ['app', 'schedule']", files=files)
    site.start()
    assert "the site's" in site.wait_for_runs("ping")[0].output


def test_a_linod_that_speaks_otherwise_is_refused_with_the_command_that_mends_it(server):
    site = server.add_site("old", tasks=PING, settings=WITHOUT_LINOD)
    environment = own_environment(site)
    server.run(f"cp -r /usr/lib/python3/dist-packages/linod {environment}")
    server.run(f"sed -i 's/^VERSION = .*/VERSION = 0/' {environment}/linod/wire.py")
    version = server.ctl("--version").stdout.split()[-1]
    command = f"/srv/old/env/bin/python -m pip install -U linod=={version}"
    assert site.start(check=False).returncode != 0
    assert site.show("ExecMainStatus") == "78"
    assert command in site.log()
    checked = server.ctl("check old", check=False)
    assert checked.returncode == 78
    assert command in checked.stdout + checked.stderr


def own_environment(site):
    """Give a site an environment of its own; returns where its packages are."""
    site.server.run(f"rm {site.directory}/env && cp -r {ENVIRONMENT} {site.directory}/env")
    return site.server.ask(f"echo {site.directory}/env/lib/python3*/site-packages")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("python", ["virtual environment", "system"])
def test_the_six_tasks_of_noi1e_run_without_linod_in_its_models(server, database, python):
    if python == "system":
        server.apt("install python3-django python3-psycopg2")
    site = add_demo(server, own_python=python != "system", in_postgres=database == "postgresql")
    server.run("systemctl enable --now linod@demo")
    for task in TASKS:
        server.ctl(f"run demo {task}")
    ended = {run.task.rpartition(".")[2]: run.outcome for run in site.ended()}
    assert ended == dict.fromkeys(TASKS, "succeeded")
    assert server.mails()


def add_demo(server, own_python, in_postgres):
    """Add noi1e as a site that never heard of linod, but for one module that only linod imports."""
    site = Site(server, "demo", "/srv/demo", "www-data")
    target = server.root / site.directory[1:]
    ignored = shutil.ignore_patterns("var", "log", ".linod", "__pycache__", "local_settings.py")
    shutil.copytree(NOI1E, target, ignore=ignored, dirs_exist_ok=True)
    for source in target.glob("noi1e/**/*.py"):
        source.write_text(OF_LINOD.sub("", source.read_text()))
    (target / "noi1e/demo/tasks.py").write_text(DECLARATIONS)
    server.run(f"mkdir {site.directory}/var")
    if own_python:
        server.run(f"ln -s {ENVIRONMENT} {site.directory}/env")
    if in_postgres:
        server.write("/etc/linod/demo.env", f"NOI1E_DATABASE={make_database(server)}\n")
    server.link(site)
    server.ctl("exec demo migrate --verbosity=0")
    server.ctl("exec demo demo")
    return site


def make_database(server):
    """A new database of www-data, who is asked for no password on the server's own socket."""
    server.run("systemctl start postgresql")
    server.wait("pg_isready")
    make = "dropdb --if-exists demo; createuser www-data; createdb --owner www-data demo"
    server.run(make, user="postgres")
    port = server.ask("pg_lsclusters --no-header").split()[2]
    return f"postgresql://:{port}/demo?host=/var/run/postgresql"


# What noi1e has of linod: imports, declarations, progress, and the name of its app.
OF_LINOD = re.compile(r"^ *(@dd\.|import linod|from linod|linod\.|\"linod\").*\n", re.MULTILINE)
DECLARATIONS = """
from linod import dd
from noi1e.checkdata.models import checkdata
from noi1e.notify.tasks import clear_seen_messages, send_pending_emails_daily, send_pending_emails_often
from noi1e.repos.tasks import update_all_repos
from noi1e.summaries.models import checksummaries

for function in (checksummaries, checkdata, send_pending_emails_daily, clear_seen_messages):
    dd.schedule_daily(at="20:00")(function)
for function in (send_pending_emails_often, update_all_repos):
    dd.schedule_often(every=3600)(function)
"""
