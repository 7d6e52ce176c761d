"""linodctl run, pause, resume, cancel and reload: what is asked of a daemon, and how its answers are shown.

The other end is a real control socket; that a real daemon understands all of it is shown in the integration tests.
"""

import json
import os
import signal
import subprocess
import time

import pytest

from linod.archive import FILE, Archive
from linod.daemon.lock import lock_site
from linod.state import user_name
from linod.wire import (
    Accepted,
    Begin,
    Cancel,
    Done,
    Ended,
    Pause,
    Progress,
    Refused,
    Reload,
    Resume,
    RunNow,
    Wrote,
)
from tests.support.ctl import CtlHost, daemon_says, run, task

ID = "app.tasks.ping"
BEGIN = (Accepted(run=7, task=ID), Begin(run=7, task=ID))


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = CtlHost(tmp_path)
    host.patch(monkeypatch)
    host.add("myprj")
    host.remember("myprj", [task("ping"), task("tidy")], [run("ping")])
    return host


def state_of(host):
    return host.var / "myprj"


# run


@pytest.mark.parametrize(
    ("outcome", "code"), [("succeeded", 0), ("failed", 1), ("crashed", 1), ("timed_out", 124), ("cancelled", 130)]
)
def test_the_exit_code_tells_how_a_run_ended(host, capsys, outcome, code):
    with daemon_says(state_of(host), *BEGIN, Ended(run=7, outcome=outcome, reason="why")) as asked:
        got, out, err = host.call(capsys, "run", "myprj", "ping")
    assert got == code and out == ""
    assert f"run 7 {outcome.replace('_', ' ')} after" in err and "why" in err
    assert asked == [RunNow(task=ID, by=user_name())]


def test_what_a_run_writes_is_shown_as_it_comes_but_never_obeyed(host, capsys):
    wrote = [Wrote(run=7, text="line 1\n"), Wrote(run=7, text="\x1b[2Jline 2\r\nline\u202e 3\n")]
    with daemon_says(state_of(host), *BEGIN, *wrote, Ended(run=7, outcome="succeeded")):
        _, out, _ = host.call(capsys, "run", "myprj", "ping")
    assert out == "line 1\n\\x1b[2Jline 2\nline\\u202e 3\n"


def test_the_traceback_of_a_run_goes_where_errors_go(host, capsys):
    ended = Ended(run=7, outcome="failed", reason="ValueError: x", traceback="Traceback:\n  \x1bx\n")
    with daemon_says(state_of(host), *BEGIN, ended):
        _, out, err = host.call(capsys, "run", "myprj", "ping")
    assert out == "" and err.startswith("Traceback:\n  \\x1bx\nlinodctl: run 7 failed")


def test_a_program_gets_the_end_of_a_run_as_json(host, capsys):
    with daemon_says(state_of(host), *BEGIN, Wrote(run=7, text="noise\n"), Ended(run=7, outcome="succeeded", cpu=0.5)):
        code, out, err = host.call(capsys, "run", "myprj", "ping", "--json")
    told = json.loads(out)
    assert code == 0 and told["run"] == 7 and told["outcome"] == "succeeded" and told["cpu"] == 0.5
    assert err == "noise\n"


def test_progress_is_drawn_on_terminals_only(host, capsys):
    with daemon_says(
        state_of(host), *BEGIN, Progress(run=7, done=1, total=2, text="x"), Ended(run=7, outcome="succeeded")
    ):
        _, out, err = host.call(capsys, "run", "myprj", "ping")
    assert "#" not in out + err


def test_a_run_that_must_wait_says_for_what(host, capsys):
    waits = Accepted(run=7, task=ID, waits_for="the previous run is still going on")
    with daemon_says(state_of(host), waits, Begin(run=7, task=ID), Ended(run=7, outcome="succeeded")):
        assert "Run 7 waits: the previous run is still going on." in host.call(capsys, "run", "ping")[2]


def test_a_refusal_is_a_sentence(host, capsys):
    with daemon_says(state_of(host), Refused(reason="the daemon is about to stop")):
        code, _, err = host.call(capsys, "run", "myprj", "ping")
    assert (code, err) == (75, "linodctl: the daemon is about to stop.\n")


def test_a_daemon_that_hangs_up_is_told(host, capsys):
    with daemon_says(state_of(host), *BEGIN):
        code, _, err = host.call(capsys, "run", "myprj", "ping")
    assert code == 75 and "has hung up" in err


def test_an_answer_that_is_not_understood_is_told(host, capsys):
    with daemon_says(state_of(host), Reload()):
        code, _, err = host.call(capsys, "pause", "myprj", "ping")
    assert code == 1 and "does not understand" in err


def test_without_a_daemon_nothing_is_run(host, capsys):
    for command in ("run ping", "cancel 7", "reload"):
        code, _, err = host.call(capsys, *command.split())
        assert code == 75
        assert err == "linodctl: No daemon runs the tasks of myprj. Start it: systemctl start linod@myprj\n"


def test_an_unknown_task_is_not_even_asked_for(host, capsys):
    with daemon_says(state_of(host)) as asked:
        code, _, err = host.call(capsys, "run", "myprj", "pign")
    assert code == 2 and "Did you mean ping?" in err and not asked
    assert "Say which task" in host.call(capsys, "run", "myprj")[2]


def test_an_interrupt_leaves_the_run_alone_and_says_how_to_end_it(host):
    with daemon_says(state_of(host), *BEGIN, Wrote(run=7, text="on it\n"), hang_up=False) as asked:
        process = subprocess.Popen(
            host.command("run", "myprj", "ping"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout.readline() == "on it\n"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 130
    assert err == "linodctl: Run 7 goes on. To end it: linodctl cancel myprj 7\n"
    assert len(asked) == 1, "it was not cancelled"


# pause and resume


def test_a_pause_tells_the_daemon_who_and_why(host, capsys, monkeypatch):
    with daemon_says(state_of(host), Done(text="ping is paused.")) as asked:
        assert host.call(capsys, "pause", "myprj", "ping", "--reason", "disk full")[:2] == (0, "ping is paused.\n")
        assert host.call(capsys, "pause", "--reason", "moving")[0] == 0
        assert host.call(capsys, "resume", "myprj", "ping")[0] == 0
        assert host.call(capsys, "resume")[0] == 0
    me = user_name()
    assert asked == [
        Pause(task="ping", reason="disk full", by=me),
        Pause(task="", reason="moving", by=me),
        Resume(task="ping", by=me),
        Resume(task="", by=me),
    ]


def test_the_person_behind_sudo_is_named(host, capsys, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "ann")
    with daemon_says(state_of(host), Done(text="")) as asked:
        host.call(capsys, "pause", "myprj")
    assert asked[0].by == ("ann" if os.geteuid() == 0 else user_name())


def test_a_pause_works_without_a_daemon(host, capsys):
    code, out, err = host.call(capsys, "pause", "myprj", "ping", "--reason", "disk full")
    assert (code, out, err) == (0, "ping is paused.\n", "")
    with Archive(state_of(host)) as archive:
        [pause] = archive.pauses().values()
    assert (pause.task, pause.reason, pause.by) == (ID, "disk full", user_name())
    assert json.loads(host.call(capsys, "resume", "ping", "--json")[1]) == {"done": True, "text": "ping is resumed."}
    with Archive(state_of(host)) as archive:
        assert archive.pauses() == {}


def test_a_pause_by_root_leaves_no_file_that_the_daemon_could_not_write():
    if os.geteuid() != 0:
        user = os.geteuid()
    with CtlHost.open_to_all() as host:
        host.add("myprj")
        host.remember("myprj", [task("ping")])
        user = 65534 if os.geteuid() == 0 else os.geteuid()
        for path in (host.var / "myprj", *(host.var / "myprj").iterdir()):
            os.chown(path, user, -1)
        done = host.spawn("pause", "myprj", "ping", "--reason", "disk")
        assert (done.returncode, done.stdout) == (0, "ping is paused.\n"), done.stderr
        assert {path.stat().st_uid for path in (host.var / "myprj").iterdir()} == {user}
        assert (host.var / "myprj" / FILE).exists()


def test_a_pause_of_what_is_not_there_is_refused(host, capsys):
    code, _, err = host.call(capsys, "pause", "myprj", "pign")
    assert code == 2 and "Did you mean ping?" in err


def test_a_site_that_was_never_started_cannot_be_paused(host, capsys):
    host.add("new")
    code, _, err = host.call(capsys, "pause", "new")
    assert code == 1 and "started for the first time" in err


def test_a_daemon_without_a_socket_is_not_written_behind(host, capsys):
    """It holds the lock, so history is its own."""
    lock = lock_site(state_of(host))
    try:
        code, _, err = host.call(capsys, "pause", "myprj", "ping")
    finally:
        os.close(lock)
    assert code == 75 and f"by process {os.getpid()}" in err


# cancel and reload


def test_a_run_is_cancelled_by_its_number(host, capsys):
    with daemon_says(state_of(host), Done(text="ping, run 7, is asked to end.")) as asked:
        assert host.call(capsys, "cancel", "myprj", "7")[:2] == (0, "ping, run 7, is asked to end.\n")
        assert host.call(capsys, "cancel", "#7")[0] == 0
    assert asked == [Cancel(run=7, by=user_name())] * 2
    assert host.call(capsys, "cancel", "myprj", "seven")[0] == 2
    assert host.call(capsys, "cancel", "myprj", "-7")[0] == 2


def test_a_refused_cancel_fails(host, capsys):
    with daemon_says(state_of(host), Refused(reason="no run 7 is going on")):
        code, out, err = host.call(capsys, "cancel", "myprj", "7")
    assert (code, out, err) == (1, "", "linodctl: no run 7 is going on.\n")


def test_a_reload_returns_when_it_is_done(host, capsys):
    with daemon_says(state_of(host), Done(text="The site is loaded anew.")) as asked:
        assert host.call(capsys, "reload", "myprj")[:2] == (0, "The site is loaded anew.\n")
    assert asked == [Reload()]


def test_a_reload_that_fails_says_why_and_fails(host, capsys):
    """systemctl reload fails with it, and the journal shows the reason."""
    with daemon_says(state_of(host), Refused(reason="SyntaxError: invalid syntax (/srv/app/tasks.py:3)")):
        code, out, err = host.call(capsys, "reload", "myprj")
    assert code == 1 and not out and "SyntaxError: invalid syntax (/srv/app/tasks.py:3)" in err


def test_a_daemon_that_says_nothing_is_not_waited_for_without_end(host):
    """A reload is: it takes as long as the site needs to load."""
    with daemon_says(state_of(host), hang_up=False):
        process = subprocess.Popen(host.command("reload", "myprj"), stderr=subprocess.PIPE)
        try:
            time.sleep(0.3)
            assert process.poll() is None
        finally:
            process.kill()
            process.communicate()
