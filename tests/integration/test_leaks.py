"""What a daemon has done leaves nothing behind: no descriptor, no zombie, no process, no memory.

LINOD_SOAK multiplies the numbers: 1 is what fits into a minute, LINOD_SOAK=10 makes ten thousand runs, a hundred
generations of the fork server and a thousand deaths of workers.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from linod.linux import birth, descendants, processes
from tests.support.site import Daemon, Site, is_alive, state_of, until

pytestmark = pytest.mark.slow

SOAK = float(os.environ.get("LINOD_SOAK", 1))
RUNS, GENERATIONS, DEATHS = (round(number * SOAK) for number in (1000, 10, 100))
PATIENCE = 60 + 60 * SOAK
TOLERATED_KIB = 1500  # of growth between two moments of rest: what an allocator keeps, whatever the numbers

SETTINGS = "LINOD = {'idle_worker': 1.0, 'keep_runs': 10_000}"

MANY = """
import linod

def declare(number):
    @linod.task(every=0.1, name=f"task{number}")
    def work():
        if number % 10 == 0:
            print("something to say")

for number in range(20):
    declare(number)
"""

DEATHS_OF_ALL_KINDS = """
import os, signal, subprocess
import linod

def declare(number):
    @linod.task(every=0.25, name=f"task{number}")
    def die():
        if number == 0:
            subprocess.Popen(["sleep", "0.3"])
        if number % 2:
            os._exit(number)
        print("last words")
        os.kill(os.getpid(), signal.SIGKILL)

for number in range(6):
    declare(number)
"""

SLOW = """
import time
from linod import dd

@dd.schedule_often(every=0.3, name="version{version}")
def work():
    time.sleep(0.05)
"""


def pss(pid: int) -> int:
    """KiB of memory, shared pages divided by those who share them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def private(pid: int) -> int:
    """KiB of memory that nobody shares: unlike PSS it does not grow when a process that shared some ends."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def descriptors(pid: int) -> list[str]:
    """What the descriptors of a process are, but for the numbers of sockets and pipes."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}").split(":[")[0])
        except FileNotFoundError:
            pass
    return sorted(found)


def rest(site: Site, daemon: Daemon) -> None:
    """Take all tasks but a distant one away, and wait until only daemon and fork server are left."""
    site.declare("from linod import dd\n\n@dd.schedule_daily(at='03:00')\ndef rest(): pass\n")
    before = daemon.fork_server()
    daemon.signal(signal.SIGHUP)
    daemon.wait_for(
        lambda: daemon.fork_server() not in (None, before) and descendants(daemon.pid) == [daemon.fork_server()],
        timeout=PATIENCE,
    )


def work(site: Site, daemon: Daemon, tasks: str) -> None:
    """Give it these tasks."""
    site.declare(tasks)
    daemon.signal(signal.SIGHUP)


def count(site: Site, where: str = "outcome IS NOT NULL") -> int:
    with site.history() as archive:
        rows = list(archive._rows(f"SELECT count(*) FROM runs WHERE {where}"))
    return rows[0][0] if rows else 0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, settings=SETTINGS)


@pytest.fixture
def daemon(site: Site) -> Iterator[Daemon]:
    """A daemon that has been warmed up, and must have left nothing at its end."""
    site.declare(MANY)
    with site.daemon() as daemon:
        daemon.wait_for(lambda: count(site) > 100)
        assert daemon.pid == daemon.process.pid
        yield daemon
        below = {pid: birth(pid) for pid in descendants(daemon.pid)}
        assert daemon.terminate() == 0
        assert not [pid for pid, born in below.items() if birth(pid) == born]


def test_runs_leave_nothing_behind(site: Site, daemon: Daemon) -> None:
    rest(site, daemon)
    before, memory = descriptors(daemon.pid), private(daemon.pid)
    begun = count(site, "outcome = 'succeeded'")
    work(site, daemon, MANY)
    daemon.wait_for(lambda: count(site, "outcome = 'succeeded'") >= begun + RUNS, timeout=PATIENCE)
    until(lambda: not [pid for pid in descendants(daemon.pid) if state_of(pid) == "Z"], what="the burial of all")
    rest(site, daemon)
    assert descriptors(daemon.pid) == before
    assert private(daemon.pid) < memory + TOLERATED_KIB
    assert count(site, "outcome NOT IN ('succeeded', 'skipped')") == 0
    print(f"{RUNS} runs: {memory} -> {private(daemon.pid)} KiB private, {pss(daemon.pid)} KiB PSS")


def test_generations_of_the_fork_server_leave_nothing_behind(site: Site, daemon: Daemon) -> None:
    rest(site, daemon)
    before, memory = descriptors(daemon.pid), private(daemon.pid)
    servers = {daemon.fork_server()}
    for version in range(GENERATIONS):
        work(site, daemon, SLOW.format(version=version))
        name = f"version{version}"
        daemon.wait_for(lambda name=name: count(site, f"task = '{name}' AND outcome = 'succeeded'"), timeout=PATIENCE)
        servers.add(daemon.fork_server())
    assert len(servers) == GENERATIONS + 1
    rest(site, daemon)
    assert descriptors(daemon.pid) == before
    assert private(daemon.pid) < memory + TOLERATED_KIB
    assert not [pid for pid in servers if pid and pid != daemon.fork_server() and is_alive(pid)]
    assert count(site, "outcome NOT IN ('succeeded', 'skipped')") == 0
    print(f"{GENERATIONS} generations: {memory} -> {private(daemon.pid)} KiB private, {pss(daemon.pid)} KiB PSS")


def test_deaths_of_workers_leave_nothing_behind(site: Site, daemon: Daemon) -> None:
    rest(site, daemon)
    before, memory = descriptors(daemon.pid), private(daemon.pid)
    work(site, daemon, DEATHS_OF_ALL_KINDS)
    daemon.wait_for(lambda: count(site, "outcome = 'crashed'") >= DEATHS, timeout=PATIENCE)
    assert count(site, "outcome = 'crashed' AND reason LIKE '%exit status%'") > DEATHS // 4
    assert count(site, "outcome = 'crashed' AND reason LIKE '%SIGKILL%'") > DEATHS // 4
    rest(site, daemon)
    until(lambda: not [pid for pid in processes() if state_of(pid) == "Z" and pid in descendants(daemon.pid)])
    assert descriptors(daemon.pid) == before
    assert private(daemon.pid) < memory + TOLERATED_KIB
    print(f"{DEATHS} deaths: {memory} -> {private(daemon.pid)} KiB private, {pss(daemon.pid)} KiB PSS")
