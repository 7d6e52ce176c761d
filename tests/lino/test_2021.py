"""A Lino site of 2021, unmodified: its jobs are on the default scheduler of the `schedule` package."""

import re

import pytest

from tests.support.lino import LinoSite
from tests.support.smtp import Server

TASKS = ["checksummaries", "checkdata", "send_pending_emails_often", "send_pending_emails_daily"]
TASKS += ["clear_seen_messages", "update_all_repos"]
LINE = re.compile(r"\d{6}-\d\d \d\d:\d\d:\d\d (INFO|WARNING|ERROR) \[\w+ \d+ \d+\] : .*")

FAULTS = """
import os, time
from lino.api import dd

def once(function):
    # The work is done in the first run only.
    def run():
        try:
            os.mkdir(f"{function.__name__}.done")
        except FileExistsError:
            return
        function()
    run.__name__ = function.__name__
    return run

@dd.schedule_often(1)
@once
def raises():
    raise ValueError("no luck")

@dd.schedule_often(1)
@once
def dies():
    os.kill(os.getpid(), 9)

@dd.schedule_often(1)
@once
def sleeps():
    time.sleep(600)

@dd.schedule_often(1)
def works():
    pass
"""


@pytest.fixture
def site(tmp_path):
    return LinoSite(tmp_path, "2021")


def without_instants_of_intervals(text):
    """What a list says, but for the next run of tasks that count seconds: that is another one each time."""
    return re.sub(r"(seconds do .*next run: )[^)]+", r"\1…", text)


def test_the_list_is_that_of_the_original(site):
    original = site.original("--list", stdout=-1).communicate(timeout=60)[0]
    ours = site.manage("linod", "--list")
    assert ours.returncode == 0, ours.stderr
    assert original.startswith("6 scheduled jobs:\n[1] Every 1 day at 20:00:00 do checksummaries()")
    assert without_instants_of_intervals(ours.stdout) == without_instants_of_intervals(original)


def test_the_list_tells_the_true_last_run(site):
    with site.daemon():
        site.wait_for_runs("lino.modlib.notify.models.send_pending_emails_often")
        [_head, *lines] = site.manage("linod", "--list").stdout.splitlines()
    assert "(last run: [never]" in lines[0]
    started = site.runs("lino.modlib.notify.models.send_pending_emails_often")[0].started
    assert f"(last run: {started.astimezone():%Y-%m-%d %H:}" in lines[2]


def test_a_site_that_does_not_use_linod_says_so(tmp_path):
    site = LinoSite(tmp_path, "2021", settings="SITE.use_linod = False\n")
    assert site.manage("linod").stdout == "This site does not use linod.\n"
    assert site.manage("linod", "--list", LINOD_USE="yes").stdout.startswith("6 scheduled jobs:\n")


def test_all_six_run_and_what_they_log_is_seen_once(site):
    with site.daemon() as daemon:
        daemon.wait_for("6 tasks.")
        outcomes = {task: site.run_now(task).outcome for task in TASKS}
        assert daemon.terminate() == 0
    assert outcomes == dict.fromkeys(TASKS, "succeeded")
    for text in ("Updating summary data for Tickets ...", "Done 24 checks, found 1 and fixed 0 problems."):
        assert (site.log.count(text), daemon.output().count(text)) == (1, 1)
    assert [line for line in site.log.splitlines() if not LINE.fullmatch(line)] == []


def test_a_queued_mail_is_sent_once(site, tmp_path):
    with Server(tmp_path / "mails") as server:
        site.append_settings(f"EMAIL_PORT = {server.port}\n")
        site.sql("UPDATE users_user SET email = 'robin@lino.test'")
        site.queue_mail("The tide is high")
        with site.daemon():
            site.wait(lambda: server.mails, what="a mail")
            assert site.run_now("send_pending_emails_often").outcome == "succeeded"
        assert [mail["Subject"] for mail in server.mails] == ["[lino] The tide is high"]


def test_tasks_that_fail_crash_or_hang_disturb_no_other(tmp_path):
    site = LinoSite(tmp_path, "2021", own=FAULTS, settings="LINOD = {'drain_timeout': 1.0}\n")
    with site.daemon() as daemon:
        assert site.wait_for_runs("own.models.raises", 2)[0].reason == "ValueError: no luck"
        assert [run.outcome for run in site.wait_for_runs("own.models.dies", 2)][:2] == ["crashed", "succeeded"]
        site.wait(lambda: any(run.started for run in site.runs("own.models.sleeps")))
        site.wait_for_runs("own.models.works", len(site.ended("own.models.works")) + 2)
        assert daemon.terminate() == 0
    assert [run.outcome for run in site.ended("own.models.sleeps")] == ["cancelled"]


def test_a_daemon_that_was_killed_goes_on_at_the_next_start(tmp_path):
    site = LinoSite(tmp_path, "2021", own=FAULTS)
    with site.daemon() as daemon:
        site.wait(lambda: any(run.started for run in site.runs("own.models.sleeps")))
        daemon.kill()
    with site.daemon():
        assert [run.outcome for run in site.wait_for_runs("own.models.sleeps", 2)][:2] == ["lost", "succeeded"]


def test_the_daemon_refuses_while_the_original_runs(site):
    with site.original() as original:
        try:
            site.wait(lambda: "6 scheduled jobs" in site.log)
            with site.daemon() as daemon:
                assert daemon.wait() == 78
            assert f"Process {original.pid} runs the tasks of this site by Lino's own command" in daemon.output()
        finally:
            original.kill()
    with site.daemon() as daemon:
        daemon.wait_for("6 tasks.")
