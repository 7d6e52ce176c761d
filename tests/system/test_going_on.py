"""What a service depends on goes away while it runs: the journal, its state directory. Tasks go on."""

import pytest

from linod.archive import FILE

TASKS = """
import os
import linod

@linod.task(every=1)
def counts():
    print("run", os.environ["LINOD_RUN"])
"""
JOURNAL = "systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket"


@pytest.fixture
def site(add_site):
    site = add_site("myprj", TASKS)
    site.start()
    site.wait_for_runs("counts", 2)
    return site


def wait_for_more(site, number=3):
    return site.wait_for_runs("counts", len(site.ended("counts")) + number)


def told(site):
    """The numbers of the runs that have told theirs in the journal."""
    return [int(record["MESSAGE"].split()[-1]) for record in site.records(LINOD_EVENT="output")]


def says(site, text):
    """Whether the journal has that of its history."""
    return any(text in record["MESSAGE"] for record in site.records(LINOD_EVENT="history"))


def numbers(site):
    return {run.id for run in site.ended("counts")}


def test_a_journal_that_is_restarted_misses_nothing(server, site):
    for _ in range(3):
        server.run("systemctl restart systemd-journald")
        wait_for_more(site, 2)
    wanted = numbers(site)
    server.wait(lambda: wanted <= set(told(site)))
    assert len(told(site)) == len(set(told(site)))


def test_a_journal_that_is_stopped_stops_no_task_and_hears_of_it_later(server, site):
    server.run(f"systemctl stop {JOURNAL}")
    before = site.pid
    try:
        wait_for_more(site)
        wanted = numbers(site)
    finally:
        server.run(f"systemctl start {JOURNAL}")
    server.wait(lambda: wanted <= set(told(site)))
    assert len(told(site)) == len(set(told(site)))
    assert (site.pid, site.show("NRestarts")) == (before, "0")


@pytest.mark.claim("H4")
def test_a_state_directory_that_is_moved_away_is_told_with_what_to_do(server, site):
    """It lies in a directory of root's, where the daemon cannot make it again."""
    state = f"/var/lib/linod/{site.name}"
    server.run(f"mv {state} {state}.elsewhere")
    server.wait(lambda: says(site, "Move it back, or make it."))
    seen = max(told(site))
    server.wait(lambda: max(told(site)) > seen + 2)
    assert "history cannot be written" in server.ctl(f"status {site.name}", check=False).stdout
    server.run(f"install -d -o www-data -g www-data -m 750 {state}")
    server.wait(lambda: says(site, "History can be written again."))
    assert set(told(site)) - {max(told(site))} <= {run.id for run in site.runs("counts")}
    server.run(f"rm -r {state}.elsewhere")


@pytest.mark.claim("H6")
def test_a_history_that_is_damaged_is_told_by_the_journal_and_by_linodctl(server, site):
    state = f"/var/lib/linod/{site.name}"
    server.run(f"for file in {state}/{FILE} {state}/{FILE}-wal; do head -c 20000 /dev/urandom > $file; done")
    [record] = server.wait(lambda: site.records(LINOD_EVENT="history_renewed"))
    assert f"{state}/{FILE} was damaged (" in record["MESSAGE"]
    wait_for_more(site)
    checked = server.ctl(f"check {site.name}").stdout
    assert f"A history that was harmed is kept as {state}/{FILE}.damaged-" in checked
    assert f"a history that was harmed is kept as {state}/{FILE}.damaged-" in server.ctl(f"status {site.name}").stdout
