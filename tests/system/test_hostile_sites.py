"""Whatever a site does to its own processes: the daemon goes on, and its watchdog with it."""

from contextlib import contextmanager
from textwrap import dedent, indent

import pytest

# What a site may do by accident, while it is loaded and in a task.
MISDEEDS = {
    "starts-threads": """
        import threading, time
        for _ in range(3):
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    """,
    "blocks-signals": """
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    """,
    "changes-directory": """
        import os
        os.chdir("/")
        os.umask(0o777)
    """,
    "closes-standard-descriptors": """
        import os
        os.closerange(0, 3)
    """,
    "replaces-signal-handlers": """
        import signal
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGABRT):
            signal.signal(number, signal.SIG_IGN)
    """,
    "writes-much": """
        for _ in range(1000):
            print("x" * 1000)
    """,
    "starts-a-process-that-stays": """
        import subprocess
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    """,
}

# And what only a task may do; with how such a run ends.
MISDEEDS_OF_TASKS = {
    "closes-all-descriptors": ("import os\nos.closerange(0, 1000)", "crashed"),
    "never-ends": ("while True:\n    pass", "timed_out"),
    "stops-itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "timed_out"),
    "leaves": ("import os\nos._exit(7)", "crashed"),
    "breaks-its-memory": ("import ctypes\nctypes.string_at(0)", "crashed"),
    "leaves-the-session": ("import os, time\nos.fork() or os.setsid()\n", "succeeded"),
    "raises-what-nobody-catches": ("raise BaseException('enough')", "failed"),
}

TASKS = """
import linod

@linod.task(every=0.5)
def neighbour():
    pass

@linod.task(every=1, grace=0.5, timeout=1)
def misbehaving():
    misbehave()

def misbehave():
"""
RUNS = 7  # of the neighbour: longer than the watchdog has patience


def hostile(server, name, misdeed, at_import=False):
    """A site that misbehaves, still to be started."""
    name += "-at-import" if at_import else ""
    tasks = TASKS + indent(dedent(misdeed).strip(), "    ") + ("\n\nmisbehave()\n" if at_import else "\n")
    site = server.add_site(name, tasks, settings="LINOD = {'drain_timeout': 2}")
    site.say(WatchdogSec=2, TimeoutStopSec=10)
    return site


@contextmanager
def all_started(server, sites):
    """Sites by what they do, all started at the same time."""
    try:
        server.run(f"systemctl start {' '.join(site.unit for site in sites.values())}")
        yield sites
    finally:
        for site in sites.values():
            site.remove()


@pytest.fixture(scope="module")
def hostile_at_import(server):
    sites = {name: hostile(server, name, misdeed, at_import=True) for name, misdeed in MISDEEDS.items()}
    with all_started(server, sites):
        yield sites


@pytest.fixture(scope="module")
def hostile_in_tasks(server):
    sites = {name: hostile(server, name, misdeed) for name, misdeed in MISDEEDS.items()}
    with all_started(server, sites):
        yield sites


@pytest.fixture(scope="module")
def breaking_their_processes(server):
    sites = {name: hostile(server, name, misdeed) for name, (misdeed, _outcome) in MISDEEDS_OF_TASKS.items()}
    with all_started(server, sites):
        yield sites


def goes_on(site, runs=RUNS):
    """Whether other tasks run for longer than the watchdog has patience, in one and the same daemon."""
    site.wait_for_runs("neighbour", runs)
    assert (site.active, site.show("NRestarts")) == ("active", "0")
    assert {run.outcome for run in site.ended("neighbour")} == {"succeeded"}


def stops(site):
    site.stop()
    assert site.show("ActiveState", "Result") == ["inactive", "success"]
    assert not site.processes()


@pytest.mark.claim("S30")
@pytest.mark.parametrize("name", MISDEEDS)
def test_a_site_that_misbehaves_while_it_is_loaded_disturbs_no_daemon(hostile_at_import, name):
    site = hostile_at_import[name]
    goes_on(site)
    site.reload()
    goes_on(site, len(site.ended("neighbour")) + 2)
    stops(site)


@pytest.mark.claim("S30")
@pytest.mark.parametrize("name", MISDEEDS)
@pytest.mark.claim("P18")
def test_a_task_that_misbehaves_disturbs_no_daemon_and_no_other_task(hostile_in_tasks, name):
    site = hostile_in_tasks[name]
    goes_on(site)
    assert {run.outcome for run in site.wait_for_runs("misbehaving", 2)} == {"succeeded"}
    stops(site)


@pytest.mark.claim("S30")
@pytest.mark.parametrize("name", MISDEEDS_OF_TASKS)
@pytest.mark.claim("P18")
def test_a_task_that_breaks_its_process_disturbs_no_daemon_and_no_other_task(breaking_their_processes, name):
    site = breaking_their_processes[name]
    goes_on(site)
    assert {run.outcome for run in site.wait_for_runs("misbehaving")} == {MISDEEDS_OF_TASKS[name][1]}
    stops(site)


IMPORTS = """
import linod

@linod.task(every=0.5)
def trapped():
    try:
        import sdnotify
    except SystemExit:
        print("It is here.")
"""


@pytest.mark.claim("S32")
def test_the_daemon_imports_nothing_from_the_directory_or_the_environment_of_its_site(server, add_site):
    """A module of a name that the daemon imports as well, laid where the processes of the site find it first."""
    site = add_site("shadows", IMPORTS, files={"sdnotify.py": "raise SystemExit\n"})
    server.write("/etc/linod/shadows.env", f"PYTHONPATH={site.directory}\n")
    site.start()
    [run, *_] = site.wait_for_runs("trapped")
    assert (run.outcome, run.output) == ("succeeded", "It is here.")
    assert (site.active, site.show("NRestarts")) == ("active", "0")
    assert site.status.startswith("1 task.")
