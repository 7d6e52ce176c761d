"""The machines that these tests boot: real Debians, which leave nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.boot import PREFIX, hierarchies, own_mounts, remove_leftovers
from tests.support.roots import RELEASES
from tests.support.site import is_alive, until

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = {"bookworm": "systemd 252", "trixie": "systemd 257"}

# Boots a machine of its own with something that runs in it, says so, and waits for its end.
BOOT = """
import sys, time
from tests.support.boot import Machine

with Machine(sys.argv[1]) as machine:
    machine.run("systemd-run sleep 1000")
    print(machine.power.pid, machine.leader, flush=True)
    time.sleep(1000)
"""


def cgroups(pid):
    return [cgroup for hierarchy in hierarchies() for cgroup in hierarchy.glob(f"{PREFIX}-{pid}-*")]


@pytest.fixture
def other_tests(server):
    """A process that has booted a machine, and the pids of that."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", BOOT, server.suite], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, [int(pid) for pid in process.stdout.readline().split()]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        remove_leftovers()


def test_it_is_the_release_that_was_asked_for(server):
    assert f"VERSION_CODENAME={server.suite}" in server.read("/etc/os-release")
    assert server.ask("systemctl --version").startswith(SYSTEMD[server.suite])
    assert f"Python {RELEASES[server.suite].python}" in server.ask("/usr/bin/python3 -V")


def test_systemd_is_its_first_process_and_all_its_units_are_well(server):
    assert server.read("/proc/1/comm").strip() == "systemd"
    assert server.ask("systemctl is-system-running") == "running"


def test_it_has_pure_cgroup_v2(server):
    assert server.ask("stat --file-system --format=%T /sys/fs/cgroup") == "cgroup2fs"


def test_it_has_no_network_but_its_own_loopback(server):
    lines = server.read("/proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]


def test_its_disk_and_its_journal_outlive_a_reboot(server):
    boot_id = server.read("/proc/sys/kernel/random/boot_id")
    server.write("/var/tmp/note", "before the reboot")
    server.run("logger --tag note before the reboot")
    server.reboot()
    assert server.read("/proc/sys/kernel/random/boot_id") != boot_id
    assert server.read("/var/tmp/note") == "before the reboot"
    assert "before the reboot" in server.ask("journalctl --boot=-1 --identifier=note")


def test_its_first_boot_was_not_taken_for_the_first_of_all(server):
    assert server.show("systemd-firstboot.service", "ConditionResult") != "yes"


def test_a_command_that_takes_too_long_is_ended(server):
    with pytest.raises(subprocess.TimeoutExpired):
        server.run("exec sleep 12345", timeout=0.5)
    until(lambda: "12345" not in server.ask("ps -e -o args= | grep '[1]2345' || true"))


def test_tests_that_are_interrupted_leave_nothing_behind(other_tests):
    process, pids = other_tests
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert not any(map(is_alive, pids))
    assert not cgroups(process.pid)


def test_tests_that_are_killed_leave_nothing_behind(other_tests):
    process, pids = other_tests
    process.kill()
    process.wait(60)
    until(lambda: not any(map(is_alive, pids)), what="the end of the machine")
    until(lambda: (remove_leftovers(), not cgroups(process.pid))[1], what="the end of its cgroup")


def test_nobody_else_sees_what_these_tests_have_mounted(server):
    seen_by_others = Path("/proc/1/mounts").read_text()
    assert str(own_mounts()) not in seen_by_others
    assert str(own_mounts()) in Path("/proc/self/mounts").read_text()
