"""Sites that the real supervisor runs become units and go back, and at no moment do two run the same tasks."""

import itertools
import json
import signal
import time

import pytest

# Writes who it was, five times a second, as the tasks of the unit do.
TASKS = """
import linod

@linod.task(every=0.2)
def beat():
    with open("var/beats", "a") as file:
        file.write("unit\\n")
"""

# As Lino's own command was: it takes no lock, and SIGTERM ends it at once.
CLASSIC = """
import os, time
from pathlib import Path
from django.core.management.base import BaseCommand

class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("--force", action="store_true")

    def handle(self, **options):
        while True:
            with (Path(__file__).parents[3] / "var/beats").open("a") as file:
                file.write(f"supervisor {os.getpid()}\\n")
            time.sleep(0.2)
"""
COMMAND = {
    "app/management/__init__.py": "",
    "app/management/commands/__init__.py": "",
    "app/management/commands/linod.py": CLASSIC,
    "var/.keep": "",
}
# Without linod's app, whose command would be found instead.
SETTINGS = "INSTALLED_APPS = ['app']"

WITH_EXEC = "set -e\ncd {directory}\n. env/bin/activate\nexec python manage.py linod\n"
FROM_ANYWHERE = "PRJ={directory}\n. $PRJ/env/bin/activate\nexec python $PRJ/manage.py linod\n"
WITHOUT_EXEC = "set -e\ncd {directory}\n. env/bin/activate\npython manage.py linod\n"
CONF_DIR = "/etc/supervisor/conf.d"


@pytest.fixture
def supervisor(server):
    """The real supervisor, without programs; nothing of it stays."""
    server.run(f"rm -f {CONF_DIR}/* {CONF_DIR}/.[!.]*; systemctl start supervisor")
    server.wait("supervisorctl pid")
    try:
        yield Supervisor(server)
    finally:
        server.run(
            "systemctl kill --kill-who=all --signal=KILL supervisor; systemctl stop supervisor;"
            f" systemctl reset-failed supervisor; rm -f {CONF_DIR}/* {CONF_DIR}/.[!.]* /etc/linod/sites/*",
            check=False,
        )


@pytest.fixture
def classic(server, add_site, supervisor):
    """A function that makes a site with Lino's own command, which is no site of linod yet."""

    def make(name, tasks=TASKS):
        site = add_site(name, tasks, settings=SETTINGS, files=COMMAND)
        server.run(f"rm /etc/linod/sites/{name}; chown www-data:www-data {site.directory}/var")
        return site

    return make


class Supervisor:
    """supervisor in a machine."""

    def __init__(self, server):
        self.server = server

    def program(self, name, site, script=WITH_EXEC, user="user = www-data", more=""):
        """Let it run a linod.sh of a site."""
        path = f"{site.directory}/linod.sh"
        self.server.write(path, "#!/bin/bash\n" + script.format(directory=site.directory), mode="755")
        self.configure(
            f"{name.replace('-', '_')}.conf", f"{more}[program:{name}]\ncommand = {path}\n{user}\numask = 002\n"
        )
        self.start()

    def configure(self, file, text):
        self.server.write(f"{CONF_DIR}/{file}", text)

    def start(self):
        self.server.run("supervisorctl update")

    def state(self, name):
        """One word; empty where it knows no such program."""
        words = self.server.run(f"supervisorctl status {name}", check=False).stdout.split()
        return words[1] if len(words) > 1 and words[1].isupper() and words[1] != "ERROR" else ""

    def pid(self, name):
        return int(self.server.ask(f"supervisorctl pid {name}"))

    def files(self):
        """All its files, with what they say."""
        names = self.server.ask(f"ls -A {CONF_DIR}").split()
        return {name: self.server.read(f"{CONF_DIR}/{name}") for name in names}


def beats(site):
    """Who ran the tasks of a site, one after the other: `unit`, or `supervisor` with a pid."""
    lines = site.read("var/beats").splitlines() if site.exists("var/beats") else []
    return [who for who, _ in itertools.groupby(lines)]


def wait_for_beat(site, who):
    """Wait until the tasks are run by `unit` or by `supervisor`."""
    site.server.wait(lambda: beats(site)[-1:] and beats(site)[-1].startswith(who))


def assert_one_at_a_time(site):
    """Whoever has stopped running the tasks never runs them again: else two had done so in turns."""
    names = [who if who != "unit" else f"unit {number}" for number, who in enumerate(beats(site))]
    assert len(set(names)) == len(names), names


def processes_of(server, site):
    """The pids of all `manage.py linod` in the machine."""
    lines = server.ask("ps -eo pid=,args= ww").splitlines()
    return [int(line.split()[0]) for line in lines if line.split()[1].endswith("python") and "manage.py linod" in line]


# There and back


def test_three_programs_become_units_and_go_back(server, classic, supervisor):
    one, two, three = (classic(name) for name in ("one", "two", "three"))
    supervisor.program("linod-one", one, FROM_ANYWHERE, user="username = www-data")
    supervisor.program("linod-two", two, WITHOUT_EXEC)
    command = f'/bin/bash -c "source {three.directory}/env/bin/activate && python manage.py linod --force"'
    supervisor.configure(
        "three-asgi.conf",
        "[program:three_web]\ncommand = /bin/sleep 1000\n\n"
        f"[program:three_linod]\ncommand={command}\ndirectory={three.directory}\nusername = www-data\n",
    )
    supervisor.start()
    programs = {"linod-one": one, "linod-two": two, "three_linod": three}
    for site in programs.values():
        wait_for_beat(site, "supervisor")
    files, web = supervisor.files(), supervisor.pid("three_web")

    said = server.ctl("import-supervisor --apply --chown").stdout
    assert "3 programs moved." in said
    for name, site in programs.items():
        assert site.active == "active" and site.show("UnitFileState") == "enabled"
        assert supervisor.state(name) == ""
        wait_for_beat(site, "unit")
        assert_one_at_a_time(site)
    assert processes_of(server, one) == []
    assert supervisor.pid("three_web") == web, "a neighbour was restarted"
    assert set(supervisor.files()) == {*(f"{file}.linod-aside" for file in files), "three-asgi.conf"}
    assert server.ask(f"stat -c %U {one.directory}/var/beats") == "www-data"
    assert "linod@one.service is active." in server.ctl("import-supervisor --apply").stdout

    server.ctl("import-supervisor --undo")
    for name, site in programs.items():
        assert site.show("ActiveState", "UnitFileState") == ["inactive", "disabled"]
        assert supervisor.state(name) in ("STARTING", "RUNNING")
        wait_for_beat(site, "supervisor")
        assert_one_at_a_time(site)
    assert supervisor.files() == files
    assert supervisor.pid("three_web") == web, "a neighbour was restarted"
    assert server.ask("ls -A /etc/linod/sites") == ""
    assert server.exists("/var/lib/linod/one/history.sqlite3")


def test_what_a_shell_without_exec_has_left_behind_is_ended(server, classic, supervisor):
    site = classic("left")
    supervisor.program("linod-left", site, WITHOUT_EXEC)
    wait_for_beat(site, "supervisor")
    server.run("supervisorctl restart linod-left")
    server.wait(lambda: len(processes_of(server, site)) == 2)
    plan = server.ctl("import-supervisor left").stdout
    assert "which supervisor knows nothing of" in plan
    server.ctl("import-supervisor left --apply")
    assert processes_of(server, site) == []
    wait_for_beat(site, "unit")


def test_the_plan_changes_nothing(server, classic, supervisor):
    site = classic("plan")
    supervisor.program("linod-plan", site, user="username = www-data")
    wait_for_beat(site, "supervisor")
    files, pid = supervisor.files(), supervisor.pid("linod-plan")
    plan = server.ctl("import-supervisor").stdout
    assert "It runs as root. From now on it is www-data." in plan
    assert "supervisor ignores username = www-data (line 3)" in plan
    assert "1 file in it belongs to root, and www-data cannot write it: var/beats." in plan
    [move] = json.loads(server.ctl("import-supervisor --json").stdout)["moves"]
    assert move["site"] == "plan" and move["owned_by_root"] == ["var/beats"]
    assert supervisor.files() == files and supervisor.pid("linod-plan") == pid
    assert server.ask("ls -A /etc/linod/sites") == ""
    assert site.active == "inactive"


def test_a_program_that_was_stopped_stays_stopped(server, classic, supervisor):
    site = classic("quiet")
    supervisor.program("linod-quiet", site)
    server.run("supervisorctl stop linod-quiet")
    assert "is not started, as linod-quiet was stopped" in server.ctl("import-supervisor --apply").stdout
    assert site.show("ActiveState", "UnitFileState") == ["inactive", "disabled"]
    assert server.ctl("list quiet").returncode == 0


# Where it goes wrong


def test_a_site_that_would_not_start_stays_with_supervisor(server, classic, supervisor):
    site = classic("broken")
    supervisor.program("linod-broken", site)
    wait_for_beat(site, "supervisor")
    files, pid = supervisor.files(), supervisor.pid("linod-broken")
    site.write("proj/settings.py", "this is no Python")
    done = server.ctl("import-supervisor --apply", check=False)
    assert done.returncode == 1
    assert "it would not start" in done.stderr and "Everything is as it was before." in done.stderr
    assert supervisor.files() == files and supervisor.pid("linod-broken") == pid
    assert server.ask("ls -A /etc/linod/sites") == ""


def test_where_the_unit_does_not_start_supervisor_runs_it_again(server, classic, supervisor):
    site = classic("fails")
    supervisor.program("linod-fails", site)
    wait_for_beat(site, "supervisor")
    files = supervisor.files()
    site.say(ExecStartPre="/bin/false")
    done = server.ctl("import-supervisor --apply", check=False)
    assert done.returncode == 1 and "linod-fails was not moved." in done.stderr
    assert supervisor.files() == files
    assert supervisor.state("linod-fails") in ("STARTING", "RUNNING")
    assert site.show("ActiveState", "UnitFileState") == ["inactive", "disabled"]
    assert server.ask("ls -A /etc/linod/sites") == ""
    wait_for_beat(site, "supervisor")
    assert_one_at_a_time(site)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_move_is_undone(server, classic, supervisor, number):
    site = classic("halfway")
    supervisor.program("linod-halfway", site)
    wait_for_beat(site, "supervisor")
    files = supervisor.files()
    site.say(ExecStartPre="/bin/sleep 1000")
    mover = server.start("exec linodctl import-supervisor --apply >/dev/null 2>&1")
    try:
        server.wait(lambda: site.active == "activating")
        pid = server.ask("pgrep -of 'linodctl import-supervisor'")
        server.run(f"kill -{number.name[3:]} {pid}; sleep 0.05; kill -{number.name[3:]} {pid}")
        mover.wait(30)
    finally:
        mover.kill()
        mover.wait()
    assert mover.returncode != 0
    assert supervisor.files() == files
    assert supervisor.state("linod-halfway") in ("STARTING", "RUNNING")
    assert site.active == "inactive" and server.ask("ls -A /etc/linod/sites") == ""
    assert_one_at_a_time(site)


def test_nothing_is_stopped_where_supervisor_cannot_read_its_files(server, classic, supervisor):
    site = classic("fine")
    supervisor.program("linod-fine", site)
    wait_for_beat(site, "supervisor")
    pid = supervisor.pid("linod-fine")
    supervisor.configure("other.conf", "[program:other]\nno key here\n")
    done = server.ctl("import-supervisor --apply", check=False)
    assert done.returncode == 1 and "supervisor cannot be asked" in done.stderr
    assert f"{CONF_DIR}/other.conf, line 2" in server.ctl("import-supervisor").stdout
    assert supervisor.pid("linod-fine") == pid


def test_nothing_is_moved_while_supervisor_does_not_answer(server, classic, supervisor):
    supervisor.program("linod-away", classic("away"))
    server.run("systemctl stop supervisor")
    done = server.ctl("import-supervisor --apply", check=False)
    assert done.returncode == 1 and "See that it runs" in done.stderr
    assert server.ask("ls -A /etc/linod/sites") == ""


def test_who_is_not_root_is_refused(server, supervisor):
    for arguments in ("", "--apply", "--undo"):
        done = server.ctl(f"import-supervisor {arguments}", user="stranger", check=False)
        assert done.returncode == 1
        assert "Only root may stop and start services, and you are stranger." in done.stderr


# For those who stay


@pytest.fixture
def stays(server, add_site, supervisor):
    """A site that supervisor runs as `linodctl supervisor-config` says."""
    site = add_site("stays", TASKS, files={"var/.keep": ""})
    server.run(f"chown www-data:www-data {site.directory}/var")
    server.ctl("supervisor-config stays --write")
    supervisor.start()
    wait_for_beat(site, "unit")
    return site


def lines_below(server, name):
    """The processes of supervisor that belong to a site."""
    return server.run(f"pgrep -af 'linod(@| -I|.*daemon ){name}'", check=False).stdout.splitlines()


def test_a_stop_leaves_no_process(server, supervisor, stays):
    assert lines_below(server, "stays")
    server.run("supervisorctl stop linod-stays")
    assert lines_below(server, "stays") == []
    [*_, last] = stays.runs("beat")
    assert last.outcome in ("succeeded", "cancelled")


def test_a_restart_never_doubles_the_daemon(server, supervisor, stays):
    for _ in range(3):
        server.run("supervisorctl restart linod-stays")
        server.wait(lambda: supervisor.state("linod-stays") == "RUNNING")
        server.wait(lambda: any("fork server" in line for line in lines_below(server, "stays")))
        assert sum("daemon" in line for line in lines_below(server, "stays")) == 1
    stamp = time.time()
    server.wait(lambda: any(run.started.timestamp() > stamp for run in stays.ended("beat")))


def test_the_unit_never_runs_beside_it(server, supervisor, stays):
    pid = supervisor.pid("linod-stays")
    assert stays.start(check=False).returncode != 0
    assert f"by process {pid}" in stays.log()
    stays.stop()


def test_its_log_has_the_time_of_each_line(server, supervisor, stays):
    server.run("supervisorctl stop linod-stays")
    [first, *_] = server.read("/var/log/supervisor/linod-stays.log").splitlines()
    assert first[2] == first[5] == ":" and "1 task" in first


def test_it_can_be_moved_to_the_unit_and_back(server, supervisor, stays):
    said = server.ctl("import-supervisor --apply").stdout
    assert "linod@stays.service is enabled" in said
    assert stays.active == "active"
    server.ctl("import-supervisor --undo")
    assert supervisor.state("linod-stays") in ("STARTING", "RUNNING")
    assert stays.active == "inactive"
    assert server.ask("ls /etc/linod/sites") == "stays"
