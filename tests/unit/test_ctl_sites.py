"""linodctl sites, add and remove: the sites of a host."""

import json
import os
import re
import resource
import shutil
import socket
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from linod.archive import FILE
from linod.ctl import adding, overview, units
from linod.ctl.accounts import parse_environment
from linod.ctl.monitoring import Limits, judge
from linod.ctl.survey import look_at, survey
from linod.daemon.lock import lock_site
from linod.sites import HostSite
from tests.support.ctl import CtlHost, run, task

NOBODY = "65534"

# Recorded from systemd 252: an active service, a failed one, and a timer that is not there.
SHOWN = """\
MainPID=812
Result=success
MemoryCurrent=34603008
Id=linod@myprj.service
LoadState=loaded
ActiveState=active
SubState=running
StatusText=6 tasks. Next: ping at 2026-11-24 20:00:00.
UnitFileState=enabled

MainPID=0
Result=exit-code
ExecMainStatus=78
MemoryCurrent=[not set]
Id=linod@my-other.prj.service
LoadState=loaded
ActiveState=failed
SubState=failed
StatusText=There is no manage.py in /srv/x=y.
UnitFileState=disabled

Result=success
MemoryCurrent=18446744073709551615
Id=linod-run@myprj.timer
LoadState=not-found
ActiveState=inactive
UnitFileState=
"""


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = CtlHost(tmp_path)
    host.patch(monkeypatch)
    return host


def row_of(out, name):
    return next(line for line in out.splitlines() if line.startswith(f"{name} ")).split()


# sites


def test_a_host_without_sites_says_how_to_add_one(host, capsys):
    code, out, _ = host.call(capsys, "sites")
    assert code == 0 and "linodctl add NAME DIRECTORY" in out


def test_linodctl_alone_shows_the_sites_and_where_its_help_is(host, capsys):
    host.add("myprj")
    _, out, _ = host.call(capsys)
    assert row_of(out, "myprj") and "See linodctl --help" in out
    assert "--help" not in host.call(capsys, "sites")[1]


def test_a_site_shows_its_tasks_and_the_failures_of_the_last_day(host, capsys):
    host.add("myprj")
    runs = [
        run("ping", "failed", ago=90_000),
        run("ping", "failed", ago=3600),
        run("ping", "lost", ago=3000),
        run("ping", "timed_out", ago=2000),
        run("ping", ago=60),
        run("ping", "cancelled", ago=30),
    ]
    host.remember("myprj", [task("ping"), task("tidy", at="20:00")], runs)
    _, out, _ = host.call(capsys, "sites")
    assert row_of(out, "myprj") == ["myprj", "stopped", "2", "0", "3", "-", "-"]
    [site] = json.loads(host.call(capsys, "sites", "--json")[1])
    assert site["failures_of_last_day"] == 3 and site["tasks"] == 2 and site["state"] == "stopped"


def test_the_tasks_that_are_failing_are_named(host, capsys):
    host.add("myprj")
    runs = [
        run("ping", ago=90),
        run("ping", "failed", ago=80),
        run("ping", "cancelled", ago=75),
        run("ping", "crashed", ago=70),
        run("tidy", "failed", ago=60),
        run("tidy", ago=50),
        *(run(f"task{n}", "failed", ago=60 - n) for n in range(7)),
    ]
    tasks = [task("ping"), task("tidy"), *(task(f"task{n}") for n in range(7))]
    host.remember("myprj", tasks, runs)
    _, out, _ = host.call(capsys, "sites")
    assert re.search(r"^myprj: ping is failing since .*:\d\d, 2 times$", out, re.MULTILINE)
    assert re.search(r"^myprj: task3 is failing since .*:\d\d, 1 time$", out, re.MULTILINE)
    assert "myprj: and 3 more. See linodctl list myprj" in out and "tidy" not in out
    [site] = json.loads(host.call(capsys, "sites", "--json")[1])
    assert [(one["task"], one["times"]) for one in site["failing"]][:1] == [("app.tasks.ping", 2)]
    why = json.loads(host.call(capsys, "why", "myprj", "ping", "--json")[1])
    assert (why["failures_in_a_row"], why["failing_since"]) == (2, site["failing"][0]["since"])


def test_who_holds_the_lock_runs_the_site(host, capsys):
    host.add("myprj")
    host.remember("myprj", [task("ping"), task("off", enabled=False)], [run("ping", None)])
    lock = lock_site(host.var / "myprj")
    try:
        [site] = json.loads(host.call(capsys, "sites", "--json")[1])
        assert site["state"] == "running" and site["pid"] == os.getpid()
        assert site["next_task"] == "app.tasks.ping"
        due = datetime.fromisoformat(site["next_due"])
        assert due.utcoffset().total_seconds() == 0 and 0 <= (due - datetime.now(UTC)).total_seconds() + 1 <= 12
        assert site["memory_kib"] > 1000 and site["running"] == [1]
    finally:
        os.close(lock)
    Path(host.var / "myprj" / "lock").write_text("1 1\n")  # the pid of another process that began at another time
    assert json.loads(host.call(capsys, "sites", "--json")[1])[0]["state"] == "stopped"


def test_a_link_that_leads_nowhere_is_shown_as_such(host, capsys):
    host.add("myprj", "gone")
    shutil.rmtree(host.path / "srv" / "gone")
    _, out, _ = host.call(capsys, "sites")
    assert f"no directory {host.path}/srv/gone" in out
    assert json.loads(host.call(capsys, "sites", "--json")[1])[0]["broken"]


def test_a_pause_of_the_site_is_its_state(host, capsys):
    host.add("myprj")
    host.remember("myprj", [task("ping")], pauses=[("", 0, "moving", "ann")])
    lock = lock_site(host.var / "myprj")
    try:
        assert row_of(host.call(capsys, "sites")[1], "myprj")[:2] == ["myprj", "paused"]
        [site] = json.loads(host.call(capsys, "sites", "--json")[1])
        assert site["paused"]["reason"] == "moving" and site["next_due"] is None
    finally:
        os.close(lock)


def test_one_broken_history_does_not_hide_the_other_sites(host, capsys):
    host.add("bad", "good")
    host.remember("good", [task("ping")])
    (host.var / "bad").mkdir()
    (host.var / "bad" / FILE).write_bytes(b"no database" * 1000)
    code, out, _ = host.call(capsys, "sites")
    assert code == 0 and row_of(out, "good")[2] == "1" and row_of(out, "bad")[2] == "?"
    assert "bad: The history" in out


@pytest.mark.parametrize("file", [FILE, "lock"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "socket", "device"])
def test_whatever_a_site_puts_in_its_state_keeps_nobody_waiting(host, file, kind):
    host.add("bad", "good")
    host.remember("good", [task("ping")])
    host.remember("bad", [task("ping")])
    path = host.var / "bad" / file
    path.unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        case "device":
            path.symlink_to("/dev/tty")
    done = host.spawn("sites")
    assert done.returncode == 0 and row_of(done.stdout, "good")[2] == "1", done.stderr
    assert host.spawn("status", "bad").returncode in (2, 3)


def test_a_history_with_values_of_another_kind_is_told(host, capsys):
    host.add("bad", "good")
    for name in ("bad", "good"):
        host.remember(name, [task("ping")], [run("ping")])
    with closing(sqlite3.connect(host.var / "bad" / FILE)) as db:
        db.executescript("UPDATE runs SET outcome = NULL, started = 'soon'; UPDATE tasks SET since = 1e300")
    _, out, _ = host.call(capsys, "sites")
    assert row_of(out, "bad")[2] == "?" and row_of(out, "good")[2] == "1"
    assert "holds what linod has not written" in host.call(capsys, "history", "bad")[2]


NOTHING = """\
Id=linod@myprj.service
LoadState=loaded
ActiveState=inactive
Result=success
StatusText=This site does not use linod.

Id=linod-run@myprj.timer
ActiveState=inactive
"""


def test_a_site_without_work_has_ended_well(host):
    site = host.add("myprj")
    service, timer = units.units_in(NOTHING, [site.unit, units.timer_of(site)]).values()
    one = look_at(site, datetime.now(UTC), service, timer)
    assert one.state == "stopped" and one.nothing_to_do == "This site does not use linod."
    verdict = judge(one, Limits(warning=1, critical=3, late=60))
    assert verdict.level == 0 and verdict.text == "This site does not use linod."
    assert overview.row(one)[1] == "does not use linod"
    timer = units.Unit({"ActiveState": "active"})
    assert look_at(site, datetime.now(UTC), service, timer).nothing_to_do == "", "it has a timer since"


STOPPED = NOTHING.replace("This site does not use linod.", "8 tasks. Running: ping since 08:00:00.")


def test_what_a_site_said_before_it_was_stopped_is_said_no_more(host):
    site = host.add("myprj")
    service, timer = units.units_in(STOPPED, [site.unit, units.timer_of(site)]).values()
    one = look_at(site, datetime.now(UTC), service, timer)
    assert judge(one, Limits(warning=1, critical=3, late=60)).problems[0] == (2, "not running")
    assert overview.as_dict(one)["status"] is None
    failed = units.units_in(STOPPED.replace("inactive\nResult=success", "failed\nResult=exit-code"), [site.unit, "t"])
    one = look_at(site, datetime.now(UTC), failed[site.unit], timer)
    assert "Running: ping" in judge(one, Limits(warning=1, critical=3, late=60)).problems[0][1]


def test_what_failed_before_a_site_stopped_using_linod_is_no_problem(host):
    site = host.add("myprj")
    host.remember("myprj", [task("ping")], [run("ping", "failed", ago=ago) for ago in (30, 20, 10)])
    service, timer = units.units_in(NOTHING, [site.unit, units.timer_of(site)]).values()
    assert judge(look_at(site, datetime.now(UTC), service, timer), Limits(warning=1, critical=3, late=60)).level == 0


def test_what_systemd_shows_is_understood():
    names = ["linod@myprj.service", "linod@my-other.prj.service", "linod-run@myprj.timer"]
    active, failed, timer = units.units_in(SHOWN, names).values()
    assert active.active and active.enabled and active.installed and active.memory == 33792
    assert active["StatusText"] == "6 tasks. Next: ping at 2026-11-24 20:00:00."
    assert failed["ActiveState"] == "failed" and not failed.active and not failed.enabled and failed.memory is None
    assert failed["StatusText"] == "There is no manage.py in /srv/x=y."
    assert not timer.installed and not timer.active and timer.memory is None
    assert units.units_in("System has not been booted with systemd\n\n", names) == {}


def test_without_systemd_the_lock_tells(host):
    host.add("myprj")
    [one] = survey([HostSite(name="myprj")])
    assert one.service is None and one.timer is None and one.state == "stopped"


def test_fifty_sites_are_shown_without_reading_all_of_their_histories(host):
    """Each has 20,000 runs. To read them all takes three seconds of processor time, and what is read a tenth of one."""
    host.add(*(f"site{number:02}" for number in range(50)))
    tasks = [task(f"task{number}", every=10 * (number + 1)) for number in range(6)]
    runs = [
        run(f"task{number % 6}", "failed" if number % 50 == 0 else "succeeded", ago=8 * (20_000 - number))
        for number in range(20_000)
    ]
    host.remember("site00", tasks, runs)
    for number in range(1, 50):
        shutil.copytree(host.var / "site00", host.var / f"site{number:02}")
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = host.spawn("sites")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0 and len(done.stdout.splitlines()) == 51
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 1, spent


# add


def test_a_directory_becomes_a_site(host, capsys):
    directory = host.directory("myprj")
    code, out, _ = host.call(capsys, "add", "my-prj.2", directory)
    assert code == 0
    assert os.readlink(host.etc / "sites" / "my-prj.2") == str(directory)
    assert not list(host.etc.glob("*.toml")) and not list(host.systemd.glob("*.d"))
    assert f"{directory} is now the site my-prj.2 of this host." in out


def test_the_link_is_absolute_but_not_resolved(host, capsys, monkeypatch):
    (host.path / "current").symlink_to(host.directory("v1"))
    monkeypatch.chdir(host.path)
    assert host.call(capsys, "add", "myprj", "current")[0] == 0
    assert os.readlink(host.etc / "sites" / "myprj") == str(host.path / "current")


def test_what_differs_is_written_where_it_is_looked_for(host, capsys):
    directory = host.directory("shop")
    code, _, err = host.call(
        capsys, "add", "shop", directory, "--user", "nobody", "--python", "/opt/ü py/bin/python", "--settings", "a.b"
    )
    assert code == 0, err
    toml = (host.etc / "shop.toml").read_text()
    assert 'python = "/opt/ü py/bin/python"\nsettings = "a.b"\n' in toml
    for unit in ("linod@shop.service.d", "linod-run@shop.service.d"):
        drop_in = host.systemd / unit / "user.conf"
        assert drop_in.read_text().endswith("[Service]\nUser=nobody\n") and drop_in.stat().st_mode & 0o777 == 0o644
    assert units.setup_of(HostSite(name="shop")).user == "nobody"


def test_a_dry_run_only_says_what_it_would_do(host, capsys):
    directory = host.directory("shop")
    code, out, _ = host.call(capsys, "add", "shop", directory, "--user", "nobody", "--dry-run")
    assert code == 0 and "User=nobody" in out and f"leads to {directory}" in out
    assert not list((host.etc / "sites").iterdir()) and not list(host.systemd.glob("*.d"))


def test_a_directory_that_is_a_site_already_is_refused_by_its_name(host, capsys):
    host.add("myprj")
    (host.path / "alias").symlink_to(host.directory("myprj"))
    for directory in (host.directory("myprj"), host.path / "alias"):
        code, _, err = host.call(capsys, "add", "again", directory)
        assert code == 2 and "is a site already, by the name of 'myprj'" in err
    assert os.listdir(host.etc / "sites") == ["myprj"]


def test_a_name_that_is_taken_is_refused(host, capsys):
    host.add("myprj")
    code, _, err = host.call(capsys, "add", "myprj", host.directory("other"))
    assert code == 2 and "There is a site 'myprj' already" in err and "srv/myprj" in err


@pytest.mark.parametrize("name", ["a b", ".hidden", "a/b", "..", "x" * 101, "ä"])
def test_a_name_that_no_unit_can_have_is_refused(host, capsys, name):
    code, _, err = host.call(capsys, "add", "--", name, host.directory("myprj"))
    assert code == 78 and "is no name for a site" in err


def test_a_directory_without_a_manage_py_is_refused(host, capsys):
    (host.path / "empty").mkdir()
    assert "There is no manage.py" in host.call(capsys, "add", "x", host.path / "empty")[2]
    assert "There is no directory" in host.call(capsys, "add", "x", host.path / "nowhere")[2]


def test_an_account_that_is_not_there_is_refused(host, capsys):
    directory = host.directory("myprj")
    assert "has no user 'nobody-at-all'" in host.call(capsys, "add", "x", directory, "--user", "nobody-at-all")[2]
    assert "has no group 'no-such'" in host.call(capsys, "add", "x", directory, "--group", "no-such")[2]
    assert "not run as root" in host.call(capsys, "add", "x", directory, "--user", "root")[2]
    assert not list((host.etc / "sites").iterdir())


def test_nothing_half_done_is_left_when_it_fails(host, capsys):
    """The second drop-in cannot be written: what was written before it is taken back."""
    directory = host.directory("shop")
    (host.systemd / "linod-run@shop.service.d").write_text("in the way")
    before = sorted(host.path.rglob("*"))
    code, _, err = host.call(capsys, "add", "shop", directory, "--user", "nobody", "--settings", "a.b")
    assert code == 1 and err.startswith("linodctl: ")
    assert sorted(host.path.rglob("*")) == before


def test_configuration_of_the_administrator_is_not_overwritten(host, capsys):
    directory = host.directory("shop")
    (host.etc / "shop.toml").write_text("max_parallel = 2\n")
    code, _, err = host.call(capsys, "add", "shop", directory, "--settings", "a.b")
    assert code == 2 and "shop.toml is there already" in err
    assert host.call(capsys, "add", "shop", directory)[0] == 0
    assert (host.etc / "shop.toml").read_text() == "max_parallel = 2\n"


def test_who_may_not_write_there_is_told():
    with CtlHost.open_to_all() as host:
        (host.etc / "sites").chmod(0o555)
        command = host.command("add", "x", host.directory("myprj"))
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid", NOBODY, "--clear-groups", "--", *command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        assert "cannot be changed by" in done.stderr and "Try again as root." in done.stderr, done.stderr


# remove


def test_what_add_has_made_is_removed(host, capsys):
    before = sorted(host.path.rglob("*"))
    directory = host.directory("shop")
    host.call(capsys, "add", "shop", directory, "--user", "nobody", "--settings", "a.b")
    code, out, _ = host.call(capsys, "remove", "shop")
    assert code == 0 and "Removed" in out
    shutil.rmtree(directory)
    assert sorted(host.path.rglob("*")) == before


def test_variables_that_were_taken_from_a_job_are_removed(host, capsys):
    site, given = HostSite(name="shop"), adding.Particulars(variables={"A": "b"})
    adding.make(site, host.directory("shop"), dict(adding.files_for(site, given)))
    assert site.environment.exists()
    code, out, _ = host.call(capsys, "remove", "shop")
    assert code == 0 and f"Removed {site.environment}" in out and not site.environment.exists()


def test_what_the_administrator_wrote_stays(host, capsys):
    host.add("shop")
    (host.etc / "shop.toml").write_text(f"{adding.OURS}settings = 'a.b'\nmax_parallel = 2\n")
    (host.systemd / "linod@shop.service.d").mkdir()
    (host.systemd / "linod@shop.service.d" / "user.conf").write_text("[Service]\nUser=x\n")
    host.remember("shop")
    (host.etc / "shop.env").write_text("A=b\n")
    _, out, _ = host.call(capsys, "remove", "shop")
    assert (host.etc / "shop.toml").exists() and (host.etc / "shop.env").exists()
    assert (host.systemd / "linod@shop.service.d" / "user.conf").exists()
    assert (host.var / "shop" / FILE).exists() and "is still there" in out


def test_a_purge_leaves_nothing(host, capsys):
    host.add("shop")
    host.remember("shop", [task("ping")])
    (host.etc / "shop.toml").write_text("max_parallel = 2\n")
    (host.etc / "shop.env").write_text("A=b\n")
    outside = host.path / "precious"
    outside.mkdir()
    (outside / "file").touch()
    (host.var / "shop" / "trap").symlink_to(outside)
    assert host.call(capsys, "remove", "shop", "--purge")[0] == 0
    assert not list(host.var.iterdir()) and sorted(os.listdir(host.etc)) == ["sites"]
    assert (outside / "file").exists() and (host.path / "srv" / "shop" / "manage.py").exists()


def test_a_purge_follows_no_link(host, capsys):
    host.add("shop")
    outside = host.path / "precious"
    outside.mkdir()
    (outside / "file").touch()
    (host.var / "shop").symlink_to(outside)
    code, _, err = host.call(capsys, "remove", "shop", "--purge")
    assert code == 78 and "is a link" in err
    assert (outside / "file").exists() and (host.etc / "sites" / "shop").is_symlink()


def test_a_site_that_runs_is_not_removed(host, capsys):
    host.add("shop")
    host.remember("shop")
    lock = lock_site(host.var / "shop")
    try:
        code, _, err = host.call(capsys, "remove", "shop", "--purge")
        assert code == 1 and f"Process {os.getpid()} runs the tasks of shop" in err
    finally:
        os.close(lock)
    assert (host.etc / "sites" / "shop").is_symlink()


def test_an_unknown_site_is_not_removed(host, capsys):
    host.add("shop")
    code, _, err = host.call(capsys, "remove", "shpo")
    assert code == 2 and "Did you mean shop?" in err


# The unit and its environment


def test_the_last_drop_in_says_who_runs_a_site(host):
    site = HostSite(name="shop")
    assert units.setup_of(site).user == host.user
    for directory, name, user in (
        ("linod@.service.d", "10-all.conf", "one"),
        ("linod@shop.service.d", "20-shop.conf", "two"),
        ("linod@shop.service.d", "05-early.conf", "three"),
        ("linod@other.service.d", "99.conf", "four"),
    ):
        (host.systemd / directory).mkdir(exist_ok=True)
        (host.systemd / directory / name).write_text(
            f'[Unit]\nUser=no\n[Service]\n# User=no\nUser={user}\nEnvironment=A=1 "B=2 3"\n'
        )
    setup = units.setup_of(site)
    assert setup.user == "two" and setup.environment[-2:] == ("A=1", "B=2 3")
    assert units.setup_of(HostSite(name="plain")).user == "one"


def test_an_environment_file_is_read_as_systemd_reads_it():
    text = """
# comment
; comment
PLAIN=a b # no comment
QUOTED="a \\"b\\" \\$c \\n"
SINGLE='a "b" \\n'
MIXED=a"b c"'d'
LONG=one \\
two
  SPACES  =  x
EMPTY=
1BAD=x
no value
"""
    assert dict(parse_environment(text)) == {
        "PLAIN": "a b # no comment",
        "QUOTED": 'a "b" $c \\n',
        "SINGLE": 'a "b" \\n',
        "MIXED": "ab cd",
        "LONG": "one two",
        "SPACES": "x",
        "EMPTY": "",
    }
