"""linodctl beside real daemons: what it shows is true, what it asks for is done."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import django
import pytest

from tests.support.host import Host
from tests.support.site import PATIENCE, ROOT, Site, until

pytestmark = pytest.mark.slow

TASKS = """
import os, time
import linod
from linod import dd

@dd.schedule_often(every=1)
def ping():
    pass

@linod.task(every="1h")
def talk():
    for number in range(1, 6):
        linod.progress(number, 5, "mails")
        print("line", number)
        time.sleep(0.1)
    print("\\x1b[31mred")

@linod.task(every="1h")
def fail():
    raise ValueError("no luck")

@linod.task(every="1h", timeout=0.3, grace=0.1)
def hang():
    time.sleep(60)

@linod.task(every="1h", overlap="skip")
def wait():
    print("waiting")
    while not os.path.exists("go"):
        time.sleep(0.02)
"""


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.fixture
def site(host, tmp_path):
    site = Site(tmp_path / "myprj", tasks=TASKS)
    host.add("myprj", site)
    return site


def start_ctl(host, *arguments, python=sys.executable, **streams):
    """Start linodctl on that host."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from linod.ctl import main; sys.exit(main())"
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "SUDO_USER")}
    return subprocess.Popen(
        host.command([python, "-I", "-c", program, *map(str, arguments)]),
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )


def ctl(host, *arguments, python=sys.executable):
    """Run linodctl to its end; returns exit code, output, errors."""
    process = start_ctl(host, *arguments, python=python)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def told(host, *arguments):
    """What it tells as JSON."""
    code, out, err = ctl(host, *arguments, "--json")
    assert err == "" and code in (0, 1, 2), (code, err)
    return json.loads(out)


# What it shows


def test_a_running_site_is_shown_as_it_is(host, site):
    with site.daemon() as daemon:
        site.wait_for_runs("ping", 2)
        [shown] = told(host, "sites")
        assert shown["state"] == "running" and shown["pid"] == daemon.pid
        assert shown["tasks"] == 5 and shown["next_task"] == "app.tasks.ping" and shown["memory_kib"] > 5000
        [ping, *others] = told(host, "list")
        assert ping["name"] == "ping" and ping["last_outcome"] in ("succeeded", None) and len(others) == 4
        code, out, _ = ctl(host, "status", "myprj")
        assert code == 0 and out.startswith("LINOD OK - myprj: all is well | tasks=5 running=")
        assert daemon.terminate() == 0
    [shown] = told(host, "sites")
    assert shown["state"] == "stopped" and shown["next_due"] is None
    assert ctl(host, "status")[0] == 2


# run


def test_a_task_is_run_by_the_daemon_and_what_it_writes_is_shown(host, site):
    with site.daemon() as daemon:
        site.wait_for_runs("ping")
        code, out, err = ctl(host, "run", "myprj", "talk")
        assert code == 0 and out == "line 1\nline 2\nline 3\nline 4\nline 5\n\\x1b[31mred\n"
        assert " succeeded after " in err and "#" not in err
        [run] = site.runs("talk")
        assert run.trigger == "manual" and run.outcome == "succeeded" and run.pid in daemon.workers()
        shown = told(host, "show", "myprj", run.id)
        assert shown["output"].startswith("line 1\n") and shown["trigger"] == "manual"
        assert daemon.terminate() == 0


def test_the_exit_code_is_that_of_the_outcome(host, site):
    with site.daemon():
        site.wait_for_runs("ping")
        code, _, err = ctl(host, "run", "myprj", "fail")
        assert code == 1 and "ValueError: no luck" in err and "Traceback" in err
        code, _, err = ctl(host, "run", "myprj", "hang")
        assert code == 124 and "timed out" in err
        [row] = [row for row in told(host, "list") if row["name"] == "fail"]
        assert row["failures_in_a_row"] == 1
        assert ctl(host, "status", "myprj")[0] == 1


def test_progress_is_drawn_on_a_terminal(host, site):
    with site.daemon():
        site.wait_for_runs("ping")
        ours, theirs = pty.openpty()
        process = start_ctl(host, "run", "myprj", "talk", stdout=theirs, stderr=theirs)
        os.close(theirs)
        try:
            seen = read_all(ours)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        assert "60% [############" in seen and "3/5 mails" in seen
        assert "\x1b[31m" not in seen, "what the task writes is never obeyed"


def read_all(terminal):
    """What is written to a terminal until all who had it open have left."""
    seen = b""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                break
    return seen.decode()


def test_an_interrupt_leaves_the_run_to_the_daemon(host, site):
    with site.daemon() as daemon:
        site.wait_for_runs("ping")
        process = start_ctl(host, "run", "myprj", "wait")
        try:
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
        [run] = site.runs("wait")
        assert process.returncode == 130 and f"linodctl cancel myprj {run.id}" in err
        assert run.outcome is None
        assert run.id in told(host, "sites")[0]["running"]
        code, _, err = ctl(host, "run", "myprj", "wait")
        assert code == 75 or "waits" in err, "it does not run twice"
        code, out, _ = ctl(host, "cancel", "myprj", run.id)
        assert code == 0 and f"wait, run {run.id}, is asked to end" in out
        until(lambda: site.runs("wait")[0].outcome, what="the end of the run")
        cancelled = site.runs("wait")[0]
        assert cancelled.outcome == "cancelled" and "cancelled by " in cancelled.reason
        assert daemon.terminate() == 0


# pause and resume


def test_a_paused_task_does_not_run_until_it_is_resumed(host, site):
    with site.daemon() as daemon:
        site.wait_for_runs("ping")
        assert ctl(host, "pause", "myprj", "ping", "--reason", "disk full")[:2] == (0, "ping is paused.\n")
        assert "by " in ctl(host, "why", "myprj", "ping")[1] and "disk full" in ctl(host, "list")[1]
        until(lambda: not told(host, "sites")[0]["running"], what="the end of the last run")
        before = len(site.runs("ping"))
        time.sleep(2.2)  # two due times go by, in which nothing may happen
        assert len(site.runs("ping")) == before
        code, out, _ = ctl(host, "status", "myprj")
        assert code == 0 and "ping is paused since" in out
        assert ctl(host, "resume", "myprj", "ping")[:2] == (0, "ping is resumed.\n")
        site.wait_for_runs("ping", before + 1)
        assert daemon.terminate() == 0


def test_a_pause_without_a_daemon_holds_for_the_next_one(host, site):
    with site.daemon() as daemon:
        site.wait_for_runs("ping")
        daemon.terminate()
    assert ctl(host, "pause", "myprj", "--reason", "moving")[0] == 0
    before = len(site.runs())
    with site.daemon() as daemon:
        until(lambda: told(host, "sites")[0]["state"] == "running", what="the start")
        until(lambda: "5 tasks" in daemon.output(), what="the tasks")
        time.sleep(1.5)  # at least one due time goes by
        assert len([run for run in site.runs()[before:] if run.started]) == 0
        assert told(host, "sites")[0]["paused"]["reason"] == "moving"
        assert ctl(host, "resume", "myprj")[0] == 0
        site.wait_for_runs("ping", 1)
        until(lambda: [run for run in site.runs()[before:] if run.started], what="a run")
        assert daemon.terminate() == 0


# reload


def test_a_reload_returns_when_the_new_code_is_in_use(host, site):
    with site.daemon() as daemon:
        site.wait_for_runs("ping")
        site.declare(TASKS.replace("def talk", "def speak"))
        assert ctl(host, "reload", "myprj")[0] == 0
        assert [row["name"] for row in told(host, "list")][:2] == ["ping", "speak"]
        assert daemon.terminate() == 0


def test_a_reload_of_broken_code_fails_with_the_reason_and_harms_nothing(host, site):
    with site.daemon() as daemon:
        site.wait_for_runs("ping")
        site.declare("def broken(:\n")
        code, out, err = ctl(host, "reload", "myprj")
        assert code == 1 and out == "" and "SyntaxError" in err and "app/tasks.py:1" in err
        site.wait_for_runs("ping", len(site.ended("ping")) + 1)
        assert daemon.terminate() == 0


# Overrides


def test_why_and_list_tell_what_the_administrator_decided(host, site):
    host.override("myprj", '[tasks.talk]\nevery = "2h"\ntimeout = 60\n[tasks.fail]\nenabled = false\n')
    with site.daemon() as daemon:
        site.wait_for_runs("ping")
        _, out, _ = ctl(host, "why", "myprj", "talk")
        assert "every 2 hours" in out and "Its declaration says: every 1 hour" in out
        assert "Its every is decided at /etc/linod/myprj.toml:2." in out
        assert "Its timeout is decided at /etc/linod/myprj.toml:3." in out
        assert "disabled" in ctl(host, "why", "myprj", "fail")[1]
        assert daemon.terminate() == 0


def test_a_check_sees_what_the_administrator_overrides():
    """By the system's Python, and below /tmp, for the user of the unit must be able to read it."""
    path = Path(tempfile.mkdtemp(prefix="linodctl-", dir="/tmp"))
    try:
        path.chmod(0o755)
        host, site = Host(path), Site(path / "myprj", tasks=TASKS, settings="USE_LINOD = False\n")
        host.add("myprj", site)
        (host.etc / "myprj.env").write_text(f"PYTHONPATH={Path(django.__file__).parents[1]}\n")
        host.override("myprj", "[tasks.pign]\nevery = 60\n")
        [found] = json.loads(ctl(host, "check", "--json", python="/usr/bin/python3")[1])
        assert found["uses_linod"] is False
        host.override("myprj", "use_linod = true\n[tasks.pign]\nevery = 60\n")
        [found] = json.loads(ctl(host, "check", "--json", python="/usr/bin/python3")[1])
        assert found["uses_linod"] is True and len(found["tasks"]) == 5
        assert any("/etc/linod/myprj.toml, line 2" in note and "pign" in note for note in found["notes"])
    finally:
        shutil.rmtree(path)
