"""What a process needs is not to be had: descriptors, processes, memory, somebody who listens. Tasks go on."""

import os
import signal
import socket

import pytest

from linod.caller import ask
from linod.linux import children
from linod.wire import Ask
from tests.support.limits import descriptors, limited, memory_of
from tests.support.people import People, make_library
from tests.support.site import Site, name_of, neighbourhood, until

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow

FRESH = """
import linod

@linod.task(every=0.5)
def often():
    pass

@linod.task(every=1, fresh=True)
def fresh():
    pass
"""


def wait_for_more(site, task):
    """Wait until some more runs of a task have ended."""
    site.wait_for_runs(task, len(site.ended(task)) + 4)


def test_without_descriptors_for_another_worker_those_that_are_there_go_on(tmp_path):
    site = Site(tmp_path, tasks=FRESH)
    with site.daemon() as daemon:
        site.wait_for_runs("fresh", 2)
        with limited(daemon.pid, "RLIMIT_NOFILE", descriptors(daemon.pid)):
            daemon.wait_for("The kernel refuses another worker: [Errno 24] Too many open files")
            wait_for_more(site, "often")
        wait_for_more(site, "fresh")
        assert ask(site.state / "control", Ask()).pid == daemon.pid
        assert daemon.terminate() == 0
    assert {run.outcome for run in site.ended()} == {"succeeded"}
    assert daemon.output().count("The kernel refuses") < 20, "not with each try"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return make_library(tmp_path_factory.mktemp("library"))


def pid_of(site):
    return int((site.state / "lock").read_text().split()[0])


def test_without_processes_for_another_worker_those_that_are_there_go_on(tmp_path, library):
    """The kernel counts those of a user, and root's not at all."""
    people = People(tmp_path, library, tasks=FRESH)
    site = people.site

    with people.daemon() as end:
        site.wait_for_runs("fresh", 2)
        fork_server = fork_server_of(pid_of(site))
        with limited(fork_server, "RLIMIT_NPROC", 1):
            wait_for_more(site, "often")
            number = len(site.ended("fresh"))
            wait_for_more(site, "often")
            assert len(site.ended("fresh")) == number
        wait_for_more(site, "fresh")
        end(signal.SIGTERM)
    assert {run.outcome for run in site.ended()} == {"succeeded"}
    said = people.output
    assert 0 < said.count("The kernel refuses another worker: ") < 20
    assert "Resource temporarily unavailable" in said


def fork_server_of(pid):
    return next(child for child in children(pid) if name_of(child) == "linod-forkserve")


def test_a_task_that_may_have_no_more_memory_fails_and_its_worker_goes_on(tmp_path):
    tasks = """
    import resource

    @linod.task(every=0.5, timeout=20)
    @once
    def wants_much():
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, before[1]))
        bytearray(2 << 30)
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        first, second = site.wait_for_runs("wants_much", 2)[:2]
        assert (first.outcome, first.reason) == ("failed", "MemoryError")
        assert second.outcome == "succeeded"


def test_a_worker_without_any_memory_harms_only_its_run(tmp_path):
    """Nothing more can be allocated, not even for saying so."""
    tasks = """
    import resource

    @linod.task(every=0.5, timeout=5, grace=1)
    @once
    def starves():
        resource.setrlimit(resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
        kept = []
        while True:
            kept.append(bytes(1000))
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        first, second = site.wait_for_runs("starves", 2)[:2]
        assert first.outcome in ("failed", "crashed", "timed_out")
        assert second.outcome == "succeeded"


def test_the_kernels_memory_killer_takes_the_worker_and_not_the_daemon(tmp_path):
    tasks = """
    @linod.task(every=0.5, timeout=60)
    @once
    def devours():
        while not os.path.exists("table is laid"):
            time.sleep(0.02)
        kept = []
        while True:
            kept.append(os.urandom(1 << 20))
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        [run] = until(lambda: [run for run in site.runs("devours") if run.started])
        with memory_of([daemon.pid, *daemon.children()], mebibytes=200):
            (site.path / "table is laid").touch()
            first, second = site.wait_for_runs("devours", 2, timeout=60)[:2]
            assert first.id == run.id
            assert first.outcome == "crashed"
            assert first.reason == "its process was killed (SIGKILL), by somebody or because memory was short"
            assert second.outcome == "succeeded"


def test_a_service_manager_that_listens_no_more_is_told_once_and_tasks_go_on(tmp_path, library):
    people = People(tmp_path, library)
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        os.chmod(path, 0o666)
        tmp_path.chmod(0o755)
        people.environment |= {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "600000"}
        with people.daemon() as end:
            manager.settimeout(10)
            heard = set()
            while not {b"READY=1", b"WATCHDOG=1"} <= heard:
                heard.add(manager.recv(4096))
            manager.close()
            path.unlink()
            wait_for_more(people.site, "ping")
            end(signal.SIGTERM)
    assert people.output.count("systemd wants to be notified, but that fails: ") == 1
    assert people.site.ended("ping")[-1].outcome == "succeeded"
