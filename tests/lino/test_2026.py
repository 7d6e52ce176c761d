"""A Lino site of 2026, unmodified: its tasks are rows that its users see and change while the daemon runs."""

import os
import signal
from datetime import datetime, timedelta

import pytest

from tests.support.lino import LinoSite
from tests.support.site import is_alive, name_of
from tests.support.smtp import Server

ROW = "linod.SystemTask.{}"

FAULTS = """
import os, time
from pathlib import Path
from lino.modlib.linod.choicelists import background_task

@background_task(every_unit="never", every=1)
def raises(ar):
    ar.logger.info("I try")
    if not Path("mended").exists():
        raise ValueError("no luck")

@background_task(every_unit="never", every=1)
def warns(ar):
    raise Warning("nothing to do")

@background_task(every_unit="never", every=1)
def dies(ar):
    os.kill(os.getpid(), 9)

@background_task(every_unit="never", every=1)
def sleeps(ar):
    Path("pid").write_text(str(os.getpid()))
    try:
        time.sleep(600)
    finally:
        Path("cleaned").touch()

@background_task(every_unit="never", every=1)
def slow(ar):
    Path("begun").touch()
    while not Path("go").exists():
        time.sleep(0.05)

@background_task(every_unit="never", every=1)
async def waits(ar):
    import asyncio
    await asyncio.sleep(0.01)
    ar.logger.info("I have waited as %s", ar.get_user().username)
"""


@pytest.fixture
def site(tmp_path):
    return LinoSite(tmp_path, "2026")


@pytest.fixture
def faulty(tmp_path):
    """A site with six more procedures, whose rows its daemon makes at its first start."""
    site = LinoSite(tmp_path, "2026", own=FAULTS)
    # Its one administrator is also the user of the daemon, who is usually not told of his own doings.
    site.sql("UPDATE users_user SET notify_myself = 1")
    return site


def row(site, name):
    return site.sql("SELECT * FROM linod_systemtask WHERE name = ?", name)[0]


def change(site, name, **columns):
    """Change a row as Lino's screens do."""
    assignments = ", ".join(f"{column} = ?" for column in columns)
    site.sql(f"UPDATE linod_systemtask SET {assignments} WHERE name = ?", *columns.values(), name)


def request(site, name):
    """What Lino's button `Run now` does."""
    change(
        site,
        name,
        last_start_time=None,
        last_end_time=None,
        requested_at=str(datetime.now()),
        message="Robin requested to run this task.",
    )


def is_over(site, name):
    found = row(site, name)
    return found["last_end_time"] and found["requested_at"] is None and found


def run_row(site, name):
    """Have a row run by asking for it in Lino; returns it when it is over."""
    request(site, name)
    return site.wait(lambda: is_over(site, name), what=f"the end of {name}")


def task_id(site, name):
    return ROW.format(row(site, name)["id"])


def ready(daemon, site, name):
    """Wait until the daemon knows a row that its watcher has just made."""
    daemon.wait_for("The tasks have changed. new: ")
    return task_id(site, name)


def next_run(site, name):
    """What `--list` says of the next run of a task."""
    lines = site.manage("linod", "--list").stdout.splitlines()
    [line] = [line for line in lines if f"do {name}()" in line]
    return line.partition("next run: ")[2].rstrip(")")


def problems(site):
    """Notifications to the administrators about failed tasks."""
    found = site.sql("SELECT subject FROM notify_message WHERE message_type = 'system'")
    return [message["subject"] for message in found]


def watchers(daemon):
    return [pid for pid in daemon.workers() if name_of(pid) == "linod-watcher"]


# All tasks


def test_all_rows_are_tasks_and_run(site):
    names = [found["name"] for found in site.sql("SELECT name FROM linod_systemtask ORDER BY seqno")]
    assert len(names) == 5
    with site.daemon() as daemon:
        daemon.wait_for("5 tasks.")
        for name in names:
            found = run_row(site, name)
            assert found["message"].startswith("<pre>")
            assert not found["disabled"]
        assert daemon.terminate() == 0
    assert {run.outcome for run in site.ended()} == {"succeeded"}
    text = "1 check have been run. Found 0 and fixed 0 problems."
    assert text in row(site, "checkdata")["message"]
    assert (site.log.count(text), daemon.output().count(text)) == (1, 1)


def test_rows_of_new_procedures_are_made_at_the_start(faulty):
    with faulty.daemon() as daemon:
        ready(daemon, faulty, "warns")
        assert faulty.run_now("warns").outcome == "succeeded"


def test_a_procedure_may_be_async_and_gets_a_request_of_the_daemon_user(faulty):
    with faulty.daemon() as daemon:
        ready(daemon, faulty, "waits")
        assert "I have waited as robin" in run_row(faulty, "waits")["message"]


def test_a_queued_mail_is_sent_once(site, tmp_path):
    with Server(tmp_path / "mails") as server:
        site.append_settings(f"EMAIL_PORT = {server.port}\n")
        site.sql("UPDATE users_user SET email = 'robin@lino.test'")
        site.queue_mail("The tide is high")
        with site.daemon():
            site.wait(lambda: server.mails, what="a mail")
            run_row(site, "send_pending_emails_often")
        assert [mail["Subject"] for mail in server.mails] == ["[lino] The tide is high"]


def test_a_mail_server_that_is_down_is_seen_in_the_output(site):
    """Lino's own code catches the error and marks the mail as sent, so that the run succeeds."""
    site.sql("UPDATE users_user SET email = 'robin@lino.test'")
    id = site.queue_mail("The tide is high")
    with site.daemon() as daemon:
        daemon.wait_for("send_mail() failed")
        daemon.wait_for(lambda: any("send_mail() failed" in run.output for run in site.ended()))
    assert site.sql("SELECT sent FROM notify_message WHERE id = ?", id)[0]["sent"]


# What users do in Lino's screens


def test_run_now_begins_within_five_seconds(site):
    with site.daemon() as daemon:
        daemon.wait_for("5 tasks.")
        site.wait_for_runs(task_id(site, "send_pending_emails_daily"))  # as a new row: its watcher is there
        asked = datetime.now()
        found = run_row(site, "checkdata")
        assert datetime.fromisoformat(found["last_start_time"]) - asked < timedelta(seconds=5)


def test_a_request_that_is_taken_back_is_forgotten(site):
    with site.daemon() as daemon:
        daemon.wait_for("5 tasks.")
        change(
            site,
            "checksummaries",
            last_start_time=None,
            last_end_time=None,
            message="Robin cancelled the request to run this task.",
        )
        run_row(site, "checkdata")
    assert site.runs(task_id(site, "checksummaries")) == []


def test_a_changed_recurrence_is_followed_without_a_restart(site):
    id = task_id(site, "checkdata")
    with site.daemon() as daemon:
        daemon.wait_for("5 tasks.")
        change(site, "checkdata", every_unit="s", every=1, log_level="WARNING")
        daemon.wait_for("changed: checkdata")
        runs = site.wait_for_runs(id, 4)
        assert len({run.pid for run in runs}) < len(runs), "workers are used again"
        change(site, "checkdata", disabled=True)
        daemon.wait_for(lambda: daemon.output().count("changed: checkdata") == 2)
        count = len(site.runs(id))
        run_row(site, "checksummaries")
        assert len(site.runs(id)) <= count + 1
        assert row(site, "checkdata")["message"] == "<pre></pre>", "it logs nothing as important as a warning"


def test_rows_come_and_go(site):
    columns = {"seqno": 9, "every_unit": "s", "every": 1, "log_level": "INFO"}
    with site.daemon() as daemon:
        daemon.wait_for("5 tasks.")
        id = site.insert("linod_systemtask", columns | {"procedure": "checkdata", "name": "Once more"})
        daemon.wait_for("new: Once more")
        site.wait_for_runs(ROW.format(id))
        site.sql("DELETE FROM linod_systemtask WHERE id = ?", id)
        daemon.wait_for("gone: Once more")


def test_saturday_at_four_is_the_next_saturday_at_four(site):
    change(site, "checkdata", every_unit="W", every=1, saturday=True, start_time="04:00:00")
    following = datetime.now() + timedelta(days=1)
    while following.weekday() != 5:
        following += timedelta(days=1)
    today = datetime.now()
    expected = {f"{following:%Y-%m-%d} 04:00:00"}
    if today.weekday() == 5:
        expected.add(f"{today:%Y-%m-%d} 04:00:00")
    assert next_run(site, "checkdata") in expected


def test_what_a_user_changes_during_a_run_stays(faulty):
    with faulty.daemon() as daemon:
        ready(daemon, faulty, "slow")
        request(faulty, "slow")
        daemon.wait_for(lambda: (faulty.path / "begun").exists())
        change(faulty, "slow", every=7)
        (faulty.path / "go").touch()
        daemon.wait_for(lambda: is_over(faulty, "slow"))
    assert row(faulty, "slow")["every"] == 7


# What goes wrong


def test_an_exception_is_told_once_and_disables_nothing(faulty):
    with faulty.daemon() as daemon:
        id = ready(daemon, faulty, "raises")
        assert faulty.run_now("raises").outcome == "failed"
        found = row(faulty, "raises")
        assert found["message"].startswith("<pre>Failed: ValueError: no luck\nI try\n")
        assert 'raise ValueError("no luck")' in found["message"]
        assert (found["disabled"], bool(found["last_end_time"])) == (0, True)
        assert faulty.run_now("raises").outcome == "failed"
        assert len(problems(faulty)) == 1, "the administrators know already"
        (faulty.path / "mended").touch()
        assert faulty.run_now("raises").outcome == "succeeded"
    assert row(faulty, "raises")["message"] == "<pre>I try\n</pre>"
    run = faulty.ended(id)[0]
    assert (run.reason, "no luck" in run.traceback) == ("ValueError: no luck", True)


def test_a_task_that_fails_again_and_again_is_paused_where_the_site_wants_that(faulty):
    faulty.append_settings("LINOD = {'pause_after': 2}\n")
    with faulty.daemon() as daemon:
        id = ready(daemon, faulty, "raises")
        change(faulty, "raises", every_unit="s", every=1)
        daemon.wait_for("raises is paused by linod: it has failed 2 times in a row: ValueError: no luck")
        faulty.wait(lambda: len(faulty.ended(id)) == 2)
        assert run_row(faulty, "raises")["message"].startswith("<pre>Failed: "), "who asks is served all the same"


def test_a_crash_is_told_in_the_row(faulty):
    with faulty.daemon() as daemon:
        ready(daemon, faulty, "dies")
        assert faulty.run_now("dies").outcome == "crashed"
        found = faulty.wait(lambda: is_over(faulty, "dies"))
        assert found["message"].startswith("<pre>Failed: crashed: its process was killed (SIGKILL)")
        faulty.wait(lambda: len(problems(faulty)) == 1)


def test_a_run_that_is_ended_in_the_middle_leaves_no_running_row(faulty):
    faulty.append_settings("LINOD = {'drain_timeout': 1.0}\n")
    with faulty.daemon() as daemon:
        id = ready(daemon, faulty, "sleeps")
        request(faulty, "sleeps")
        daemon.wait_for(lambda: (faulty.path / "pid").exists())
        assert daemon.terminate() == 0
    assert (faulty.path / "cleaned").exists()
    found = row(faulty, "sleeps")
    assert found["last_end_time"]
    assert found["message"].startswith("<pre>Failed: it was ended before it was done")
    assert [run.outcome for run in faulty.ended(id)] == ["cancelled"]


def test_rows_that_a_killed_daemon_left_running_are_healed(faulty):
    with faulty.daemon() as daemon:
        id = ready(daemon, faulty, "sleeps")
        request(faulty, "sleeps")
        daemon.wait_for(lambda: (faulty.path / "pid").exists())
        pid = int((faulty.path / "pid").read_text())
        daemon.kill()
        faulty.wait(lambda: not is_alive(pid))
    assert row(faulty, "sleeps")["last_end_time"] is None
    with faulty.daemon() as daemon:
        found = daemon.wait_for(lambda: is_over(faulty, "sleeps"))
        assert [run.outcome for run in faulty.ended(id)] == ["lost"]
    assert found["message"].startswith("<pre>Failed: lost: the daemon died while it was running")


def test_a_watcher_that_dies_is_replaced(site):
    with site.daemon() as daemon:
        [watcher] = daemon.wait_for(lambda: watchers(daemon))
        os.kill(watcher, signal.SIGKILL)
        daemon.wait_for(lambda: watchers(daemon) not in ([], [watcher]))
        run_row(site, "checkdata")


# Beside Lino's own command


def test_the_daemon_refuses_while_the_original_runs(site):
    with site.original() as original:
        try:
            site.wait(lambda: "Start task runner" in site.log)
            with site.daemon() as daemon:
                assert daemon.wait() == 78
            assert f"Process {original.pid} runs the tasks of this site by Lino's own command" in daemon.output()
        finally:
            original.kill()
    with site.daemon() as daemon:
        daemon.wait_for("5 tasks.")
