"""What systemctl status and journalctl tell of a site while it works."""

import re

import pytest

TASKS = """
import logging, time
import linod

@linod.task(every=3600)
def long():
    for part in range(40):
        linod.progress(part, 40, "parts")
        time.sleep(0.1)

@linod.task(every=3600)
def fails():
    logging.getLogger("app").warning("about to fail")
    raise ValueError("no such customer: 7")

@linod.task(every=3600)
def recovers():
    open("recovered").close()
"""


@pytest.fixture(scope="module")
def site(server):
    """One for all tests, which leave it as it is."""
    site = server.add_site("myprj", TASKS)
    site.start()
    yield site
    site.remove()


def test_the_status_names_the_tasks_that_run_and_since_when(server, site):
    asking = server.start("linodctl run myprj long >/dev/null 2>&1")
    found = server.wait(lambda: re.search(r"Running: long since \d\d:\d\d:\d\d \((.+?)\)\.", site.status))
    assert "parts" in found[1]
    assert asking.wait(20) == 0
    server.wait(lambda: "Running" not in site.status)
    assert re.match(r"3 tasks\. Next: \w+ at ", site.status)


def test_the_status_names_what_failed_last_until_it_succeeds_again(server, site):
    server.ctl("run myprj recovers", check=False)
    server.wait(lambda: "Last failure: recovers failed at" in site.status)
    assert "FileNotFoundError" in site.status
    site.write("recovered", "")
    server.ctl("run myprj recovers")
    server.wait(lambda: "Last failure" not in site.status)


def test_a_failure_is_one_record_with_its_traceback(server, site):
    server.ctl("run myprj fails", check=False)
    record = site.records(LINOD_TASK="fails", LINOD_OUTCOME="failed")[0]
    assert record["PRIORITY"] == "3"
    lines = record["MESSAGE"].splitlines()
    assert "no such customer: 7" in lines[0]
    assert "Traceback (most recent call last):" in lines
    assert any("/srv/myprj/app/tasks.py" in line for line in lines)
    assert lines[-1] == "ValueError: no such customer: 7"


def test_journalctl_finds_what_a_task_had_to_complain_about(server, site):
    server.ctl("run myprj fails", check=False)
    server.run("journalctl --sync")
    shown = server.ask("journalctl --quiet --output=cat --unit=linod@myprj LINOD_TASK=fails --priority=warning")
    assert "about to fail" in shown
    assert "no such customer" in shown
    assert "started" not in shown


def test_each_record_of_a_run_names_it(server, site):
    server.ctl("run myprj fails", check=False)
    run = site.runs("fails")[-1]
    records = site.records(LINOD_RUN=str(run.id))
    assert {record["LINOD_EVENT"] for record in records} == {"asked", "started", "output", "failed"}
    assert {record["LINOD_TASK"] for record in records} == {"fails"}
    assert {record["LINOD_SITE"] for record in records} == {"myprj"}


def test_the_kinds_of_events_have_the_same_ids_for_ever(server, site):
    server.ctl("run myprj fails", check=False)
    shown = server.ask("journalctl --quiet --output=cat MESSAGE_ID=459d51b18759496d80618e9888deba78")
    assert "no such customer" in shown


def test_linodctl_status_has_the_exit_codes_of_monitoring_systems(server, add_site):
    site = add_site("watched", TASKS)
    site.start()
    assert server.ctl("status watched", check=False).returncode == 0
    for _ in range(3):
        server.ctl("run watched fails", check=False)
    assert server.ctl("status watched", check=False).returncode in (1, 2)
    site.stop()
    assert server.ctl("status watched", check=False).returncode == 2
