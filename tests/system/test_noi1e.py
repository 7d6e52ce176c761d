"""The demo site on a server: its six tasks do their work as www-data, and everybody can see that."""

import re

import pytest

from tests.support.noi1e import TASKS

ALL_SOON = "".join(f"[tasks.{name}]\nevery = 3\n" for name in TASKS)


@pytest.fixture(scope="module")
def noi1e(server):
    """noi1e, started once for all tests of this module, with all six tasks every three seconds."""
    site = server.add_noi1e()
    site.override(ALL_SOON)
    site.start()
    site.first_seen = site.show("ActiveState", "SubState", "StatusText")
    yield site
    site.remove()
    server.forget_mails()


@pytest.fixture(scope="module")
def busy(noi1e):
    """The same, when each task has run."""
    for name, module in TASKS.items():
        noi1e.wait_for_runs(f"{module}.{name}", timeout=60)
    return noi1e


def test_start_returns_when_it_is_ready_and_not_before(noi1e):
    state, substate, status = noi1e.first_seen
    assert (state, substate) == ("active", "running")
    assert status.startswith("6 tasks.")


def test_all_six_tasks_succeed(busy):
    for name, module in TASKS.items():
        assert {run.outcome for run in busy.ended(f"{module}.{name}")} == {"succeeded"}, name


def test_its_mails_arrive_at_the_mail_server(busy):
    busy.server.wait(lambda: busy.server.mails())
    senders = {mail["From"] for mail in busy.server.mails()}
    assert senders == {"noi1e@noi1e.example.com"}


def test_every_process_of_it_belongs_to_www_data(busy):
    pids = ",".join(map(str, busy.processes()))
    assert set(busy.server.ask(f"ps -o user= -p {pids}").split()) == {"www-data"}


def test_ps_shows_the_daemon_the_fork_server_and_the_workers(busy):
    titles = list(busy.processes().values())
    assert titles.count("linod@noi1e: daemon") == 1
    assert titles.count("linod@noi1e: fork server") == 1
    labels = {"worker", *TASKS}
    workers = [title for title in titles if title not in ("linod@noi1e: daemon", "linod@noi1e: fork server")]
    assert workers
    assert {title.removeprefix("linod@noi1e: ") for title in workers} <= labels


def test_systemd_cgls_shows_them_too(busy):
    shown = busy.server.ask(f"systemd-cgls --no-pager --unit {busy.unit}")
    assert "linod@noi1e: daemon" in shown
    assert "linod@noi1e: fork server" in shown


def test_short_names_tell_them_apart_as_well(busy):
    pids = ",".join(map(str, busy.processes()))
    names = busy.server.ask(f"ps -o comm= -p {pids}").split()
    assert {"linod", "linod-forkserve"} <= set(names)


def test_systemctl_status_says_what_comes_next(busy):
    assert re.search(r"Next: \w+ at [\d: -]+\.", busy.status)


def test_the_journal_says_who_speaks_about_which_run(busy):
    [record, *_] = busy.records(LINOD_TASK="checkdata", LINOD_OUTCOME="succeeded")
    assert record["LINOD_SITE"] == "noi1e"
    assert record["LINOD_TASK_ID"] == "noi1e.checkdata.models.checkdata"
    run = next(run for run in busy.runs() if run.id == int(record["LINOD_RUN"]))
    assert record["LINOD_DUE"] == run.due.isoformat()
    assert int(record["LINOD_DURATION_USEC"]) == pytest.approx(run.duration * 1e6, abs=1)
    assert record["SYSLOG_IDENTIFIER"] == "linod"
    assert len(record["MESSAGE_ID"]) == 32


def test_what_a_task_logs_keeps_its_priority_its_logger_and_its_place(busy):
    records = busy.records(LINOD_LOGGER="noi1e.checkdata.checkers")
    records += busy.records(LINOD_LOGGER="noi1e.checkdata.models")
    record = records[0]
    assert record["PRIORITY"] in "3456"
    assert record["CODE_FILE"].startswith("/srv/noi1e/noi1e/checkdata/")
    assert int(record["CODE_LINE"]) > 0
    assert record["CODE_FUNC"]


def test_no_line_is_written_twice_though_the_site_logs_to_the_console(busy):
    """noi1e's LOGGING has a console handler."""
    messages = [
        (record["LINOD_RUN"], record["MESSAGE"])
        for record in busy.records(LINOD_TASK="clear_seen_messages")
        if "Deleted" in record["MESSAGE"]
    ]
    assert messages
    assert len(messages) == len(set(messages))


def test_linodctl_sites_tells_the_truth(busy):
    lines = busy.server.ctl("sites").stdout.splitlines()
    row = next(line for line in lines if line.startswith("noi1e")).split()
    assert row[1:3] == ["active", "6"]
    assert row[4] == "0"


def test_a_run_can_be_asked_for(busy):
    done = busy.server.ctl("run noi1e clear_seen_messages")
    assert "seen messages" in done.stdout
    # Who asked hears of the end before it is on the disk.
    busy.server.wait(
        lambda: any(run.trigger == "manual" for run in busy.ended("noi1e.notify.tasks.clear_seen_messages"))
    )
