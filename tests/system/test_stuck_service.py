"""A run that no signal ends, because the kernel waits for a disk: the service goes on, and systemd can stop it."""

import subprocess
import time

import pytest

TASKS = """
import linod

@linod.task(every=3600, timeout=1, grace=1)
def writes():
    with open("/mnt/written", "a") as file:
        file.write("x")

@linod.task(every=0.5)
def often():
    pass
"""
STUCK = "writes is stuck: it was killed 10 s ago and is still there"


@pytest.fixture
def hang(server, tmp_path):
    """Lets the disk at /mnt hang, and returns a function that lets it answer."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", image], check=True)
    found = subprocess.run(["losetup", "--find", "--show", image], check=True, stdout=subprocess.PIPE, text=True)
    device = found.stdout.strip()
    number = device.removeprefix("/dev/loop")

    def freeze():
        server.run("fsfreeze --freeze /mnt")
        return answer

    def answer():
        server.run("fsfreeze --unfreeze /mnt", check=False)

    try:
        server.run(f"mknod {device} b 7 {number} && mount {device} /mnt && chmod 777 /mnt")
        yield freeze
    finally:
        answer()
        server.run(f"umount --lazy /mnt; rm {device}", check=False)
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def asking(server):
    """Has a task run, and lets linodctl listen."""
    processes = []
    yield lambda task: processes.append(server.start(f"linodctl run stuck {task} >/dev/null 2>&1"))
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.claim("P8", "P18", "P22")
def test_a_service_goes_on_beside_it_and_can_be_stopped_and_comes_back(server, add_site, hang, asking):
    site = add_site("stuck", TASKS)
    site.say(WatchdogSec=3, TimeoutStopSec=2)
    site.start()
    site.wait_for_runs("often")
    daemon, answer = site.pid, hang()
    asking("writes")
    run = site.wait_until_running("writes")
    server.wait(lambda: STUCK in site.log())
    site.wait_for_runs("often", len(site.ended("often")) + 8)
    assert site.pid == daemon and site.show("ActiveState", "NRestarts") == ["active", "0"]
    assert "Running: writes since " in site.status

    begun = time.monotonic()
    site.stop()
    assert time.monotonic() - begun < 20
    assert "writes is left behind: no signal ends it. " in site.log()
    assert "Stopped." in site.log(), "by itself"
    [left] = site.processes()
    assert server.ask(f"ps -o stat= {left}").startswith("D")
    [run] = site.runs("writes")
    assert run.outcome is None
    assert server.ctl("status stuck", check=False).returncode == 2

    site.start(check=False)
    assert "Workers of a daemon that has ended still hold /var/lib/linod/stuck/lock" in site.log()
    answer()
    server.wait(lambda: site.active == "active")
    [run] = site.wait_for_runs("writes")
    assert (run.outcome, run.reason) == ("lost", "no signal could end it, and the daemon was stopped")
