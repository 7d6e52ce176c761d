"""systemctl reload: the site's new code takes over, and no run notices."""

import pytest

from tests.support.site import until

BEFORE = """
import time
import linod

@linod.task(every=3600)
def long():
    time.sleep(3)
    print("old code")

@linod.task(every=3600)
def goes():
    pass
"""
AFTER = """
import time
import linod

@linod.task(every=3600)
def long():
    print("new code")

@linod.task(every=3600)
def comes():
    pass
"""
BROKEN = """
import linod
from app.nowhere import something
"""
TIMES = 100


@pytest.fixture
def site(add_site):
    site = add_site("reloads", BEFORE)
    site.start()
    return site


def run(site, task):
    """Start a run, and wait until it has begun; returns the process that waits for its end."""
    asking = site.server.start(f"linodctl run {site.name} {task} >/dev/null 2>&1")
    site.wait_until_running(task)
    return asking


@pytest.mark.claim("P23")
def test_a_run_ends_under_the_old_code_and_the_next_one_uses_the_new(site):
    asking = run(site, "long")
    site.declare(AFTER)
    site.reload()
    assert site.runs("long")[0].outcome is None  # the reload has not waited for it
    assert asking.wait(20) == 0
    site.server.ctl("run reloads long")
    ended = [("succeeded", "old code"), ("succeeded", "new code")]
    # Who asked hears of the end before it is on the disk.
    site.server.wait(lambda: [(run.outcome, run.output) for run in site.runs("long")] == ended)


def test_the_daemon_stays_and_the_fork_server_is_another(site):
    before = site.processes()
    site.reload()
    after = site.processes()
    [daemon] = [pid for pid, title in after.items() if title.endswith("daemon")]
    assert before[daemon].endswith("daemon")
    assert not [pid for pid, title in after.items() if title.endswith("fork server") and pid in before]


def test_the_journal_says_which_tasks_are_new_and_which_are_gone(site):
    site.declare(AFTER)
    site.reload()
    [record] = site.records(LINOD_EVENT="changed")
    assert "new: comes" in record["MESSAGE"]
    assert "gone: goes" in record["MESSAGE"]


@pytest.mark.claim("P23")
def test_code_that_cannot_be_loaded_fails_the_reload_and_harms_nothing(site):
    asking = run(site, "long")
    pid = site.pid
    site.declare(BROKEN)
    failed = site.reload(check=False)
    assert failed.returncode == 1
    assert (site.active, site.pid) == ("active", pid)
    assert asking.wait(20) == 0
    site.server.ctl("run reloads goes")
    site.server.wait(lambda: {run.outcome for run in site.runs()} == {"succeeded"})


def test_a_reload_that_fails_says_why(site):
    site.declare(BROKEN)
    site.reload(check=False)
    [record] = site.records(LINOD_EVENT="reload_failed")
    assert "No module named 'app.nowhere'" in record["MESSAGE"]
    assert "/srv/reloads/app/tasks.py" in record["MESSAGE"]
    # Also where systemd shows what was written by the command it has called.
    assert "app.nowhere" in site.systemctl("status --full --lines=30", check=False).stdout


def test_code_that_is_mended_is_taken_at_the_next_reload(site):
    site.declare(BROKEN)
    assert site.reload(check=False).returncode == 1
    site.declare(AFTER)
    site.reload()
    assert "new code" in site.server.ctl("run reloads long").stdout


def test_a_reload_applies_what_the_administrator_has_overridden(site):
    site.override("[tasks.goes]\nevery = 1\n")
    site.reload()
    site.wait_for_runs("goes", 2)


def test_an_override_that_is_wrong_fails_the_reload_with_its_line(site):
    site.override("max_parallel = 2\nmax_paralel = 2\n")
    assert site.reload(check=False).returncode == 1
    assert "/etc/linod/reloads.toml, line 2" in site.log()
    assert site.active == "active"


def measure(site):
    """Processes, descriptors of the daemon and KiB of its memory."""
    fds = int(site.server.ask(f"ls /proc/{site.pid}/fd | wc -l"))
    memory = int(site.server.ask(f"ps -o rss= -p {site.pid}"))
    return len(site.processes()), fds, memory


def test_a_hundred_reloads_leak_nothing(site):
    reload = f"for i in $(seq {TIMES // 10}); do systemctl reload {site.unit} || exit; done"
    site.server.run(reload, timeout=120)
    processes, fds, memory = measure(site)
    for _ in range(9):
        site.server.run(reload, timeout=120)
    until(lambda: measure(site)[0] <= processes)
    _, fds_after, memory_after = measure(site)
    assert fds_after <= fds
    assert memory_after <= memory + 1024
    assert site.server.ctl("run reloads goes").returncode == 0
