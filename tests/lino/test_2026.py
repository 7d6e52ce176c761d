"""A Lino site of 2026, unmodified: its tasks are rows that its users see and change while the daemon runs."""

import json
import os
import shutil
import signal
from datetime import datetime, timedelta

import pytest

from tests.support.host import Host
from tests.support.lino import LinoSite
from tests.support.site import is_alive, name_of
from tests.support.smtp import Server
from tests.support.web import WebServer

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

DIES_FIRST = """
import os
from pathlib import Path
from django.db.models.signals import pre_save

def die(instance, **_options):
    if getattr(instance, "name", "") == "checkdata" and Path("die").exists():
        Path("die").unlink()
        os.kill(os.getpid(), 9)

pre_save.connect(die, weak=False)
"""

CHAIN = """
from lino.modlib.linod.choicelists import background_task

@background_task(every_unit="never", every=1)
def bakes(ar):
    pass

@background_task(every_unit="never", every=1, run_after="bakes")
def eats(ar):
    pass

@background_task(every_unit="never", every=1, run_after="eats")
def sleeps(ar):
    pass
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


def hold_watcher(daemon):
    """Keep the watcher from looking; returns its pid."""
    [watcher] = daemon.wait_for(lambda: watchers(daemon))
    os.kill(watcher, signal.SIGSTOP)
    return watcher


def locks(site):
    """The locks of the tasks, by their labels."""
    with site.history() as archive:
        tasks = [json.loads(known["task"]) for known in archive.tasks()]
    return {task["label"]: task["policies"]["lock"] for task in tasks}


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


def test_procedures_that_run_after_each_other_share_a_lock(tmp_path):
    site = LinoSite(tmp_path, "2026", own=CHAIN)
    with site.daemon() as daemon:
        ready(daemon, site, "sleeps")
        found = site.wait(lambda: (known := locks(site)) and len(known) == 8 and known, "eight tasks in history")
    assert [found[name] for name in ("bakes", "eats", "sleeps", "checkdata")] == ["bakes"] * 3 + [None]


# What users do in Lino's screens


def test_run_now_begins_within_five_seconds(site):
    with site.daemon() as daemon:
        daemon.wait_for("5 tasks.")
        site.wait_for_runs(task_id(site, "send_pending_emails_daily"))  # as a new row: its watcher is there
        asked = datetime.now()
        found = run_row(site, "checkdata")
        assert datetime.fromisoformat(found["last_start_time"]) - asked < timedelta(seconds=5)


def test_a_request_whose_run_could_not_begin_is_made_again(tmp_path):
    site = LinoSite(tmp_path, "2026", own=DIES_FIRST)
    id = task_id(site, "checkdata")
    with site.daemon() as daemon:
        daemon.wait_for("5 tasks.")
        site.wait_for_runs(task_id(site, "send_pending_emails_daily"))
        (site.path / "die").touch()
        run_row(site, "checkdata")
        assert [run.outcome for run in site.wait_for_runs(id, 2)] == ["crashed", "succeeded"]


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


def test_a_row_that_is_deleted_before_its_run_is_no_failure(site):
    id = task_id(site, "checkdata")
    with site.daemon() as daemon:
        daemon.wait_for("5 tasks.")
        hold_watcher(daemon)
        site.sql("DELETE FROM linod_systemtask WHERE name = 'checkdata'")
        assert site.run_now("checkdata").outcome == "succeeded"
        assert "has been deleted" in site.wait_for_runs(id)[0].output


def test_a_row_that_is_deleted_during_its_run_is_no_failure(faulty):
    with faulty.daemon() as daemon:
        id = ready(daemon, faulty, "slow")
        request(faulty, "slow")
        daemon.wait_for(lambda: (faulty.path / "begun").exists())
        faulty.sql("DELETE FROM linod_systemtask WHERE name = 'slow'")
        (faulty.path / "go").touch()
        assert [run.outcome for run in faulty.wait_for_runs(id)] == ["succeeded"]


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


def test_a_row_that_lino_finds_invalid_says_so(faulty):
    with faulty.daemon() as daemon:
        ready(daemon, faulty, "warns")
        change(faulty, "warns", positions="1 " * 50)
        found = run_row(faulty, "warns")
        assert found["message"].startswith("<pre>Failed: ValidationError: ")
        faulty.wait(lambda: len(problems(faulty)) == 1)


def test_a_row_whose_procedure_is_gone_is_never_due_and_says_why_when_asked(site):
    change(site, "checkdata", procedure="vanished", every_unit="s", every=1)
    with site.daemon() as daemon:
        daemon.wait_for("checkdata is never due (Every 1 second): There is no procedure 'vanished' any more.")
        assert next_run(site, "vanished") == "[never]"
        assert "vanished> is not a valid choice" in run_row(site, "checkdata")["message"]


def test_a_crash_is_told_in_the_row_and_the_first_one_to_the_administrators(faulty):
    with faulty.daemon() as daemon:
        ready(daemon, faulty, "dies")
        for _ in range(2):
            assert faulty.run_now("dies").outcome == "crashed"
            found = faulty.wait(lambda: is_over(faulty, "dies"))
            assert found["message"].startswith("<pre>Failed: crashed: its process was killed (SIGKILL)")
        run_row(faulty, "waits")  # a later look of the watcher
        assert len(problems(faulty)) == 1


def test_a_timeout_is_told_in_the_row_and_to_the_administrators(faulty, tmp_path):
    host = Host(tmp_path)
    host.add("myprj", faulty)
    host.override("myprj", "[tasks.sleeps]\ntimeout = 1")
    with faulty.daemon() as daemon:
        ready(daemon, faulty, "sleeps")
        request(faulty, "sleeps")
        told = "<pre>Failed: timed out: "
        daemon.wait_for(lambda: row(faulty, "sleeps")["message"].startswith(told))
        daemon.wait_for(lambda: problems(faulty))
    assert "time.sleep(600)" in row(faulty, "sleeps")["message"]


def test_a_row_that_is_younger_than_what_is_loaded_is_pinged_as_the_administrator_says(faulty, tmp_path):
    with WebServer(tmp_path / "web") as web:
        host = Host(tmp_path)
        host.add("myprj", faulty)
        host.override("myprj", f'[tasks.waits]\nping = "{web.url}/secret"')
        with faulty.daemon() as daemon:
            ready(daemon, faulty, "waits")
            run_row(faulty, "waits")
            faulty.wait(lambda: len(web.requests) >= 2, "two pings")
        assert [request.path for request in web.requests][:2] == ["/secret/start", "/secret"]


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


def test_a_row_that_another_command_left_running_is_healed(site):
    with site.daemon() as daemon:
        daemon.wait_for("5 tasks.")
        run_row(site, "checkdata")
        change(site, "checkdata", last_start_time=str(datetime.now()), last_end_time=None, message="Started")
        found = site.wait(lambda: is_over(site, "checkdata"))
    assert found["message"] == "<pre>Failed: its process ended unseen</pre>"


def test_a_database_that_another_one_replaces_is_noticed(site):
    """As `manage.py prep` does, or whoever puts a copy back."""
    with site.daemon() as daemon:
        daemon.wait_for("5 tasks.")
        run_row(site, "checkdata")
        shutil.copy(site.path / "default.db", site.path / "copy.db")
        (site.path / "copy.db").replace(site.path / "default.db")
        run_row(site, "checksummaries")


def test_what_users_change_while_there_is_no_watcher_is_followed_later(site):
    columns = {"seqno": 9, "every_unit": "N", "log_level": "INFO", "procedure": "checkdata", "name": "Once more"}
    with site.daemon() as daemon:
        daemon.wait_for("5 tasks.")
        site.insert("linod_systemtask", columns)
        daemon.wait_for("new: Once more")
        change(site, "checkdata", every=7)
        daemon.wait_for("changed: checkdata")
        watcher = hold_watcher(daemon)
        site.sql("DELETE FROM linod_systemtask WHERE name = 'Once more'")
        change(site, "checkdata", every=1)
        os.kill(watcher, signal.SIGKILL)
        daemon.wait_for("gone: Once more")
        daemon.wait_for(lambda: daemon.output().count("changed: checkdata") == 2)


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
