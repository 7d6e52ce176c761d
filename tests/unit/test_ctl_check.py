"""linodctl check and exec: what needs a site's code runs as the site's user, and every problem is told in words."""

import json
import os
import pwd
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import django
import pytest

from linod import __version__
from linod.ctl import alone, staying
from linod.ctl.units import DEFAULT_USER
from linod.errors import LinodError
from linod.linux import birth
from linod.sites import HostSite
from linod.state import OWN
from tests.support.ctl import ROOT, SYSTEM_PYTHON, CtlHost, run, task
from tests.support.site import MANAGE, SETTINGS
from tests.support.smtp import Server
from tests.support.web import WebServer

# What the site's interpreter needs: here the system's, with the packages that the tests have.
PACKAGES = Path(django.__file__).parents[1]
TASKS = """
import os, pwd, linod
from linod import dd

print("a module that writes to standard output")

@dd.schedule_often(every=10)
def ping():
    pass

@linod.task(at="20:00")
def tidy():
    pass
"""
WHO = """
import json, os, sys
print(json.dumps({
    "uid": os.geteuid(), "groups": os.getgroups(), "directory": os.getcwd(), "arguments": sys.argv[1:],
    "umask": os.umask(0o022), "environment": dict(os.environ), "python": sys.executable,
}))
sys.exit(7)
"""


@pytest.fixture
def host():
    with CtlHost.open_to_all() as host:
        yield host


@pytest.fixture
def site(host):
    """A site that would start: real Django, loaded by the system's Python as the unit's user."""
    directory = host.directory("myprj")
    write(directory / "manage.py", MANAGE)
    write(directory / "proj/__init__.py")
    write(directory / "proj/settings.py", f"{SETTINGS}\nADMINS = [('Anna', 'anna@example.org')]\n")
    write(directory / "app/__init__.py")
    write(directory / "app/tasks.py", TASKS)
    host.add("myprj")
    write(host.etc / "myprj.env", f"PYTHONPATH={PACKAGES}\nPYTHONDONTWRITEBYTECODE=1\nSECRET='a b'\n")
    return directory


def write(path, text=""):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def problems(host, name="myprj"):
    """What check tells, and that it is told everywhere."""
    done = host.spawn("check", name, "--json")
    assert done.stderr == ""
    [found] = json.loads(done.stdout)
    assert done.returncode == (78 if found["problems"] else 0)
    assert found["would_start"] == (not found["problems"])
    return found["problems"]


def user_of(host):
    return pwd.getpwnam(host.user)


# check


def test_a_site_that_would_start_tells_its_tasks(host, site):
    done = host.spawn("check", "myprj")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "myprj would start.\n  It uses linod and has 2 tasks.\n"
    [found] = json.loads(host.spawn("check", "myprj", "--json").stdout)
    assert found["tasks"] == ["app.tasks.ping", "app.tasks.tidy"] and found["uses_linod"] is True


def test_a_site_that_would_tell_nobody_of_a_task_that_fails_is_noticed(host, site):
    write(site / "proj/settings.py", SETTINGS)
    done = host.spawn("check", "myprj")
    assert done.returncode == 0
    assert "  Nobody is told when a task fails, for its ADMINS are empty." in done.stdout


# alert-test


def test_whether_people_would_be_told_is_tried(host, site, tmp_path):
    with Server(tmp_path / "mails") as smtp, WebServer(tmp_path / "web") as web:
        hook = f"LINOD = {{'alert_url': '{web.url}/secret'}}\nEMAIL_HOST = '127.0.0.1'\nEMAIL_PORT = {smtp.port}\n"
        settings = site / "proj/settings.py"
        write(settings, settings.read_text() + hook)
        done = host.spawn("alert-test", "myprj")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"sent: mail to anna@example.org.\nsent: message to {web.url}/....\n"
        [mail] = smtp.mails
        assert mail["Subject"] == "[Django] myprj: a test"
        [request] = web.requests
        assert json.loads(request.body)["alerts"][0]["event"] == "test"

        web.answer(404)
        done = host.spawn("alert-test", "myprj")
        assert done.returncode == 1
        assert f"not sent: message to {web.url}/...: {web.url}/... answers 404 (Not Found).\n" in done.stdout
    done = host.spawn("alert-test", "myprj", "--json")
    assert done.returncode == 1
    refused, _ = json.loads(done.stdout)["tried"]
    assert refused["problem"] == "the site's mail server took no mail: Connection refused"
    assert "secret" not in done.stdout


def test_no_mail_is_tried_where_an_address_alone_is_to_be_told(host, site, tmp_path):
    with WebServer(tmp_path / "web") as web:
        write(site / "proj/settings.py", f"{SETTINGS}\nLINOD = {{'alert_url': '{web.url}/secret'}}\n")
        done = host.spawn("alert-test", "myprj")
        assert (done.returncode, done.stdout) == (0, f"sent: message to {web.url}/....\n")


def test_a_site_with_no_administrators_is_told_that_nobody_is_told(host, site):
    write(site / "proj/settings.py", f"{SETTINGS}\nLINOD = {{'alert_tasks': False}}\n")
    done = host.spawn("alert-test", "myprj")
    assert done.returncode == 1
    assert "not sent: mail to nobody: there is nobody to write to, for its ADMINS are empty.\n" in done.stdout
    assert "But nobody is told of tasks: alert_tasks is false for myprj." in done.stdout


# check


@pytest.mark.claim("S1")
def test_the_site_is_loaded_by_its_user_never_by_root(host, site):
    write(site / "app/tasks.py", f"{TASKS}\nraise RuntimeError(f'user {{os.geteuid()}}')\n")
    [problem] = problems(host)
    assert problem.startswith(f"The site cannot be loaded: RuntimeError: user {user_of(host).pw_uid} ({site}/app")


def test_a_site_that_does_not_use_linod_would_start_and_is_told_how_to(host, site):
    write(site / "proj/settings.py", f"{SETTINGS}\nUSE_LINOD = False\n")
    done = host.spawn("check")
    assert done.returncode == 0 and "This site does not use linod. Say USE_LINOD = True" in done.stdout


def test_a_site_whose_environment_overrules_its_settings_is_told_so(host, site):
    with (host.etc / "myprj.env").open("a") as file:
        file.write("LINOD_USE=no\n")
    said = f"This site does not use linod. LINOD_USE in {host.etc}/myprj.env says so and overrules its settings."
    assert said in host.spawn("check").stdout


def test_a_site_without_tasks_is_said_to_have_none(host, site):
    write(site / "app/tasks.py")
    assert "This site has no scheduled jobs." in host.spawn("check").stdout


@pytest.mark.claim("H6")
def test_a_history_that_was_put_aside_is_told(host, site):
    state = host.var / "myprj"
    state.mkdir(exist_ok=True)
    os.chown(state, user_of(host).pw_uid, -1)
    for name in ("damaged-20261124T120000", "damaged-20261124T120000-wal", "replaced-20261124T120000-2", "own-copy"):
        (state / f"history.sqlite3.{name}").touch()
        os.chown(state / f"history.sqlite3.{name}", user_of(host).pw_uid, -1)
    done = host.spawn("check", "myprj")
    assert done.returncode == 0
    assert [line.strip() for line in done.stdout.splitlines() if "is kept as" in line] == [
        f"A history that was harmed is kept as {state}/history.sqlite3.{name}. Once you have looked at it, remove it."
        for name in ("damaged-20261124T120000", "replaced-20261124T120000-2")
    ]


def test_a_syntax_error_is_told_with_its_place(host, site):
    write(site / "app/tasks.py", "def broken(:\n")
    [problem] = problems(host)
    assert f"SyntaxError: invalid syntax ({site}/app/tasks.py:1)" in problem


def test_settings_that_raise_are_told(host, site):
    write(site / "proj/settings.py", "import no_such_module\n")
    assert "No module named 'no_such_module'" in problems(host)[0]


def test_an_interpreter_without_django_is_told(host, site):
    (host.etc / "myprj.env").unlink()
    done = subprocess.run([SYSTEM_PYTHON, "-I", "-c", "import django"], capture_output=True, timeout=30)
    if done.returncode == 0:  # a host with Django for all: then one without any is made
        subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", str(site / "env")], check=True, timeout=60)
    [problem] = problems(host)
    assert problem.startswith("The site cannot be loaded: ") and "has no Django." in problem


def test_a_missing_manage_py_is_told(host, site):
    (site / "manage.py").unlink()
    [problem] = problems(host)
    assert f"There is no manage.py in {site}." in problem and str(host.etc / "sites" / "myprj") in problem


def test_a_missing_directory_is_told(host, site):
    site.rename(site.parent / "moved")
    [problem] = problems(host)
    assert "there is no such directory" in problem


def test_all_problems_are_told_at_once(host, site):
    (site / "manage.py").unlink()
    write(host.etc / "myprj.toml", 'python = "no/such/python"\nmax_paralel = 2\nuse_linod = 1\n')
    (host.systemd / "linod@.service").rename(host.systemd / "linod@myprj.service")
    found = "\n".join(problems(host))
    assert f"{host.etc}/myprj.toml, line 2: " in found and "max_parallel" in found
    assert f"{host.etc}/myprj.toml, line 3: " in found
    assert "There is no manage.py" in found and len(found.splitlines()) >= 3


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("/no/such/python", "There is no /no/such/python."),
        ("/etc/passwd", "/etc/passwd is no program that"),
        ("/bin/false", "/bin/false does not work: exit code 1."),
        ("/bin/true", "/bin/true does not work: exit code 0."),
    ],
)
def test_an_interpreter_that_does_not_work_is_told(host, site, python, said):
    write(host.etc / "myprj.toml", f'python = "{python}"\n')
    assert said in problems(host)[0]


def test_an_interpreter_that_is_too_old_is_told(host, site):
    write(site / "old", "#!/bin/sh\necho 3 9 2\n")
    (site / "old").chmod(0o755)
    write(host.etc / "myprj.toml", 'python = "old"\n')
    assert problems(host) == [f"{site}/old is Python 3.9.2; linod needs 3.11 or newer."]


def test_a_virtual_environment_that_leads_nowhere_is_told(host, site):
    (site / "env/bin").mkdir(parents=True)
    (site / "env/bin/python").symlink_to("/usr/bin/python3.4")
    assert f"{site}/env/bin/python leads to /usr/bin/python3.4, which is not there, or which " in problems(host)[0]


def test_a_unit_that_is_not_installed_is_told(host, site):
    (host.systemd / "linod@.service").unlink()
    drop_in = host.systemd / "linod@.service.d" / "user.conf"
    write(drop_in, f"[Service]\nUser={host.user}\n")
    assert problems(host) == ["linod@.service is not installed. Install the package linod."]


@pytest.mark.parametrize(
    ("user", "said"), [("nobody-at-all", "This host has no user 'nobody-at-all'"), ("root", "are not run as root")]
)
def test_a_unit_with_a_user_that_cannot_be_is_told(host, site, user, said):
    write(host.systemd / "linod@myprj.service.d" / "user.conf", f"[Service]\nUser={user}\n")
    [problem] = problems(host)
    assert said in problem


def test_a_process_of_linos_own_command_must_be_stopped_first(host, site):
    """It takes no lock, so nothing else would keep the two apart."""
    program = site / "sleeper"
    write(program, "import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    (site / "manage.py").rename(site / "real.py")
    (site / "manage.py").symlink_to(program)
    process = subprocess.Popen([sys.executable, "manage.py", "linod"], cwd=site, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"up\n"
        (site / "manage.py").unlink()
        (site / "real.py").rename(site / "manage.py")
        assert f"Process {process.pid} runs manage.py linod there already" in problems(host)[0]
    finally:
        process.kill()
        process.communicate()


HOLD = """
import sys
from pathlib import Path
from linod.daemon.lock import lock_site
lock = lock_site(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def daemon_from_before(directory):
    """A process that has locked a site where that had its lock before it was added to the host. Yields its pid."""
    (directory / OWN).mkdir()
    command = [sys.executable, "-c", HOLD, str(directory / OWN)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        yield process.pid
        process.stdin.close()


def test_a_daemon_from_before_the_site_was_added_must_be_stopped_first(host, site, capsys, monkeypatch):
    with daemon_from_before(site) as pid:
        done = host.spawn("check")
        assert done.returncode == 78 and "myprj would not start." in done.stdout
        assert f"Process {pid} runs manage.py linod there already." in done.stdout
        host.patch(monkeypatch)
        assert alone.main(["myprj"]) == 75 and f"Process {pid} runs" in capsys.readouterr().err
        with pytest.raises(LinodError, match=f"Process {pid} runs" if os.geteuid() == 0 else "Only root"):
            staying.kit_for(HostSite(name="myprj"), host.etc).write()
        (host.etc / "sites" / "myprj").unlink()
        said = host.spawn("add", "myprj", site).stdout
        assert "It would not start yet:" in said and f"Process {pid} runs" in said
    assert problems(host) == [] and alone.main(["myprj"]) == 0, "its pid alone says nothing"


def test_what_the_user_writes_into_a_lock_keeps_no_site_from_being_started(host, site):
    (site / OWN).mkdir()
    write(site / OWN / "lock", f"{os.getpid()} {birth(os.getpid())}\n")
    assert problems(host) == []


def test_without_a_name_all_sites_are_checked(host, site):
    host.add("broken")
    (host.path / "srv/broken/manage.py").unlink()
    done = host.spawn("check")
    assert done.returncode == 78
    assert "myprj would start." in done.stdout and "broken would not start." in done.stdout


def test_an_unknown_site_is_a_usage_error(host, site):
    done = host.spawn("check", "myprk")
    assert done.returncode == 2 and "Did you mean myprj?" in done.stderr


if os.geteuid() == 0:  # only root can be somebody else

    def test_a_directory_that_the_user_may_not_enter_is_told(host, site):
        site.chmod(0o700)
        [problem] = problems(host)
        assert f"{site} belongs to root and cannot be read by {DEFAULT_USER}." in problem

    def test_a_directory_on_the_way_that_is_closed_is_told(host, site):
        site.parent.chmod(0o700)
        [problem] = problems(host)
        assert f"{site.parent} belongs to root" in problem and f"chmod o+x {site.parent}" in problem

    def test_state_that_belongs_to_somebody_else_is_told(host, site):
        host.remember("myprj", [task("ping")], [run("ping")])
        [problem] = problems(host)
        assert f"{host.var}/myprj does not belong to {DEFAULT_USER}. Give it: chown -R" in problem
        os.chown(host.var / "myprj", user_of(host).pw_uid, -1)
        assert f"{host.var}/myprj/history.sqlite3 does not belong to {DEFAULT_USER}." in problems(host)[0]

    def test_another_user_cannot_check_or_execute(host, site):
        for command in ("check myprj", "exec myprj shell"):
            done = subprocess.run(
                ["setpriv", "--reuid", "65534", "--clear-groups", "--", *host.command(*command.split())],
                capture_output=True,
                text=True,
                timeout=30,
            )
            assert done.returncode in (1, 78)
            told = done.stdout + done.stderr
            assert f"The site belongs to {DEFAULT_USER}, and you are nobody. Try again as root" in told


# add, when it is there


def test_add_says_what_to_type_next(host, site):
    (host.etc / "sites/myprj").unlink()
    done = host.spawn("add", "myprj", site)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{site} is now the site myprj of this host.",
        "It uses linod and has 2 tasks.",
        "Start it, now and at each boot: systemctl enable --now linod@myprj",
    ]


def test_add_says_what_is_still_missing(host, site):
    (host.etc / "sites/myprj").unlink()
    write(site / "app/tasks.py", "import no_such_module\n")
    done = host.spawn("add", "myprj", site)
    assert done.returncode == 0 and "It would not start yet:" in done.stdout
    assert "No module named 'no_such_module'" in done.stdout and "linodctl check myprj" in done.stdout


# exec


def test_a_site_is_called_as_its_daemon_would_call_it(host, site):
    write(site / "manage.py", WHO)
    done = host.spawn("exec", "myprj", "migrate", "--list", "--json", "-v2", SHOULD_NOT="be seen", LC_TIME="C")
    assert done.returncode == 7, done.stderr
    told = json.loads(done.stdout)
    account = user_of(host)
    assert told["uid"] == account.pw_uid and told["directory"] == str(site)
    assert set(told["groups"]) == set(os.getgrouplist(account.pw_name, account.pw_gid))
    assert told["arguments"] == ["migrate", "--list", "--json", "-v2"] and told["umask"] == 0o002
    assert told["python"] == SYSTEM_PYTHON
    environment = told["environment"]
    assert environment["SECRET"] == "a b" and environment["LC_TIME"] == "C" and "SHOULD_NOT" not in environment
    assert environment["HOME"] == account.pw_dir and environment["USER"] == account.pw_name


def test_the_list_of_a_site_is_the_one_that_its_developer_knows(host, site):
    """Also where the site's own environment has no linod."""
    for command in (["--list"], ["--check"]):
        done = host.spawn("exec", "myprj", "linod", *command)
        assert done.returncode == 0, done.stderr
        assert "2 scheduled jobs:" in done.stdout or "2 tasks; nothing to complain about." in done.stdout
    done = host.spawn("exec", "myprj", "linod", "--run", "pign")
    assert done.returncode == 2 and "Did you mean ping?" in done.stderr


def test_its_command_knows_the_version_of_linod(host, site):
    done = host.spawn("exec", "myprj", "linod", "--version")
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


def test_what_cannot_be_executed_is_told(host, site):
    write(host.etc / "myprj.toml", 'python = "/no/such/python"\n')
    done = host.spawn("exec", "myprj", "shell")
    assert done.returncode == 78 and "There is no /no/such/python" in done.stderr
    done = host.spawn("exec", "nobody")
    assert done.returncode == 2 and "There is no site 'nobody'" in done.stderr


def test_exec_prints_what_manage_py_prints(host, site):
    for words in (("exec", "--json", "myprj", "check"), ("--json", "exec", "myprj", "check")):
        done = host.spawn(*words)
        assert done.returncode == 2 and "--json" in done.stderr and not done.stdout
