"""linodctl status: one line and an exit code for a monitoring system."""

import json
import os
import shutil
from contextlib import contextmanager

import pytest

from linod.daemon.lock import lock_site
from linod.wire import Refused, Standing
from tests.support.ctl import CtlHost, daemon_says, run, task

STANDING = {
    "pid": 1,
    "since": 0,
    "waiting_for": "",
    "draining": False,
    "tasks": 1,
    "running": [],
    "alive": 0,
    "workers": 0,
    "trouble": "",
}


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = CtlHost(tmp_path)
    host.patch(monkeypatch)
    host.add("myprj")
    return host


@contextmanager
def running(host, name="myprj", *, since=3600):
    """This process holds the lock of the site, since so many seconds."""
    (host.var / name).mkdir(exist_ok=True)
    lock = lock_site(host.var / name)
    path = host.var / name / "lock"
    began = path.stat().st_mtime - since
    os.utime(path, (began, began))
    try:
        yield
    finally:
        path.write_text("1 1\n")
        os.close(lock)


def account(host, seconds_ago):
    """Let the last due time that was seen to be so long ago."""
    import sqlite3

    with sqlite3.connect(host.var / "myprj" / "history.sqlite3") as db:
        db.execute("UPDATE tasks SET accounted = accounted - ?", [seconds_ago * 1_000_000])
    db.close()


def test_a_site_that_runs_well_is_ok(host, capsys):
    host.remember("myprj", [task("ping", every=10), task("tidy", at="20:00")], [run("ping")])
    with running(host):
        code, out, err = host.call(capsys, "status", "myprj")
    assert (code, err) == (0, "")
    assert out == "LINOD OK - myprj: all is well | tasks=2 running=0 failed_24h=0\n"


def test_a_site_that_does_not_run_is_critical(host, capsys):
    host.remember("myprj", [task("ping")])
    code, out, _ = host.call(capsys, "status", "myprj")
    assert code == 2 and out.startswith("LINOD CRITICAL - myprj: not running | ")


def test_a_link_that_leads_nowhere_is_critical(host, capsys):
    shutil.rmtree(host.path / "srv" / "myprj")
    code, out, _ = host.call(capsys, "status", "myprj")
    assert code == 2 and "its link leads nowhere: no directory" in out


@pytest.mark.parametrize(
    ("says", "code", "text"),
    [
        ({"waiting_for": "OperationalError: no database"}, 2, "waiting for the site: OperationalError: no database"),
        ({"trouble": "disk full"}, 2, "history cannot be written: disk full"),
        ({"draining": True}, 1, "it is stopping"),
        ({}, 0, "all is well"),
    ],
)
def test_the_daemon_itself_is_asked(host, capsys, says, code, text):
    host.remember("myprj", [task("ping")])
    with running(host), daemon_says(host.var / "myprj", Standing(**{**STANDING, **says})):
        got, out, _ = host.call(capsys, "status", "myprj")
    assert got == code and text in out


def test_a_daemon_that_listens_to_others_is_judged_by_its_history(host, capsys):
    host.remember("myprj", [task("ping")])
    with running(host), daemon_says(host.var / "myprj", Refused(reason="the daemon listens to root")):
        assert host.call(capsys, "status", "myprj")[0] == 0


@pytest.mark.parametrize(
    ("failures", "options", "code"),
    [
        (0, [], 0),
        (1, [], 1),
        (2, [], 1),
        (3, [], 2),
        (2, ["--warning", "3"], 0),
        (3, ["--warning", "3", "--critical", "5"], 1),
        (5, ["--critical", "5"], 2),
        (1, ["--critical", "1"], 2),
    ],
)
def test_a_task_that_fails_is_a_warning_and_then_critical(host, capsys, failures, options, code):
    runs = [run("ping", ago=600), *(run("ping", "failed", ago=500 - number) for number in range(failures))]
    host.remember("myprj", [task("ping")], runs)
    with running(host):
        got, out, _ = host.call(capsys, "status", "myprj", *options)
    assert got == code
    if code:
        assert "ping is failing since " in out and f"failed_24h={failures}" in out


def test_a_task_that_has_recovered_is_no_problem(host, capsys):
    host.remember("myprj", [task("ping")], [*(run("ping", "failed") for _ in range(9)), run("ping")])
    with running(host):
        code, out, _ = host.call(capsys, "status", "myprj")
    assert code == 0 and "failed_24h=9" in out


def test_a_run_beyond_its_timeout_is_stuck(host, capsys):
    host.remember("myprj", [task("ping", every=3600, timeout=60, grace=5)], [run("ping", None, ago=300)])
    with running(host):
        code, out, _ = host.call(capsys, "status", "myprj")
    assert code == 2 and "ping is stuck: run 1 goes on 4 min beyond its timeout" in out and "running=1" in out


def test_a_long_run_within_its_timeout_is_not_stuck(host, capsys):
    host.remember("myprj", [task("ping", every=10, timeout=600)], [run("ping", None, ago=300)])
    account(host, 300)
    with running(host):
        assert host.call(capsys, "status", "myprj")[0] == 0


def test_a_due_time_without_a_start_is_late(host, capsys):
    host.remember("myprj", [task("ping", every=10)])
    with running(host):
        assert host.call(capsys, "status", "myprj")[0] == 0
        account(host, 200)
        code, out, _ = host.call(capsys, "status", "myprj")
        assert code == 2 and "ping is late by 3 min" in out
        assert host.call(capsys, "status", "myprj", "--late", "300")[0] == 0


def test_a_claimed_run_that_does_not_begin_is_late(host, capsys):
    waiting = run("ping", None, ago=200, started=None)
    host.remember("myprj", [task("ping", every=3600)], [waiting])
    with running(host):
        code, out, _ = host.call(capsys, "status", "myprj")
    assert code == 2 and "ping is late by 3 min" in out


def test_a_run_that_waits_for_a_lock_is_not_late(host, capsys):
    runs = [run("tidy", None, ago=300), run("ping", None, ago=200, started=None)]
    tasks = [task("ping", every=3600, lock="mail"), task("tidy", every=3600, lock="mail"), task("other", every=3600)]
    host.remember("myprj", tasks, runs)
    with running(host):
        assert host.call(capsys, "status", "myprj")[0] == 0


def test_a_daemon_that_has_just_begun_is_not_late(host, capsys):
    """It may still be busy with what happened before it."""
    host.remember("myprj", [task("ping", every=10)], [run("ping", None, ago=200, started=None)])
    account(host, 5000)
    with running(host, since=0):
        assert host.call(capsys, "status", "myprj")[0] == 0


@pytest.mark.parametrize("pauses", [[("", 0, "moving", "ann")], [("app.tasks.ping", 0, "moving", "ann")]])
def test_a_pause_is_ok_but_said(host, capsys, pauses):
    host.remember("myprj", [task("ping", every=10)], pauses=pauses)
    account(host, 5000)
    with running(host):
        code, out, _ = host.call(capsys, "status", "myprj")
    assert code == 0 and "paused since 1970-01-01" in out and "by ann: moving" in out


@pytest.mark.claim("H6")
def test_a_history_that_was_put_aside_is_ok_but_said(host, capsys):
    host.remember("myprj", [task("ping", every=10)])
    aside = host.var / "myprj" / "history.sqlite3.damaged-20261124T120000"
    for suffix in ("", "-wal"):
        aside.with_name(aside.name + suffix).touch()
    with running(host, since=0):
        code, out, _ = host.call(capsys, "status", "myprj")
    assert code == 0 and out.count(f"a history that was harmed is kept as {aside}") == 1


def test_a_disabled_task_is_never_late(host, capsys):
    host.remember("myprj", [task("ping", every=10, enabled=False)], [run("ping", "failed")])
    account(host, 5000)
    with running(host):
        assert host.call(capsys, "status", "myprj")[0] == 0


def test_what_cannot_be_known_is_unknown(host, capsys):
    (host.var / "myprj").mkdir()
    (host.var / "myprj" / "history.sqlite3").write_bytes(b"no database" * 1000)
    with running(host):
        code, out, _ = host.call(capsys, "status", "myprj")
    assert code == 3 and out.startswith("LINOD UNKNOWN - myprj: The history")
    assert host.call(capsys, "status", "nobody")[:2] == (
        3,
        "LINOD UNKNOWN - linod: There is no site 'nobody' on this host. Add it: linodctl add nobody DIRECTORY\n",
    )


def test_the_worst_of_all_sites_counts(host, capsys):
    host.add("other")
    for name in ("myprj", "other"):
        host.remember(name, [task("ping")])
    with running(host), running(host, "other"):
        code, out, _ = host.call(capsys, "status")
        assert code == 0 and out.startswith("LINOD OK - all 2 sites are well | tasks=2")
    with running(host):
        code, out, _ = host.call(capsys, "status")
    assert code == 2 and out.startswith("LINOD CRITICAL - 1 of 2 sites have problems; other: not running |")
    assert out.count("\n") == 1


def test_critical_is_worse_than_unknown(host, capsys):
    host.add("other")
    host.remember("other", [task("ping")])
    (host.var / "myprj").mkdir()
    (host.var / "myprj" / "history.sqlite3").write_bytes(b"no database" * 1000)
    with running(host):
        assert host.call(capsys, "status")[0] == 2


def test_the_figures_begin_at_the_only_bar(host, capsys):
    host.remember("myprj", [task("ping")], pauses=[("", 0, "a | b=1", "ann")])
    with running(host):
        _, out, _ = host.call(capsys, "status")
    assert out.count("|") == 1 and "a / b=1" in out


def test_a_program_gets_it_as_json(host, capsys):
    host.remember("myprj", [task("ping")], [run("ping", "failed")])
    with running(host):
        code, out, _ = host.call(capsys, "status", "--json")
    [verdict] = json.loads(out)
    assert code == 1 and verdict["level"] == "WARNING" and verdict["problems"][0]["level"] == "WARNING"
    assert verdict["figures"] == {"tasks": 1, "running": 0, "failed_24h": 1}
