"""Upgrade, remove and purge: no run is cut short, nothing is started that was stopped, and nothing is left behind."""

import time

import pytest

from tests.package.conftest import LATER
from tests.support.bare import INSTALL
from tests.support.server import Site

WITHOUT_LINOD = "INSTALLED_APPS = ['app']"
SLOW = """
import pathlib, time
import linod

@linod.task(every=3600)
def slow():
    pathlib.Path("started").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.02)
    print("done")
"""
OFTEN = SLOW.replace("3600", "10")
PING = """
from linod import dd

@dd.schedule_often(every=1)
def ping():
    print("pong")
"""
METRICS = "/var/lib/prometheus/node-exporter"
CONFFILE = "/etc/needrestart/conf.d/linod.conf"
# What a system writes while it runs, and what dpkg and apt write of each installation.
ALWAYS_CHANGING = (
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/srv/archive", "/srv/shop", "/srv/*/__pycache__"),
    *("/var/log", "/var/cache/apt", "/var/lib/apt", "/var/lib/dpkg", "/var/lib/systemd/catalog", "/var/cache/ldconfig"),
    *("/var/lib/systemd/random-seed", "/var/lib/systemd/timers/stamp-[!l]*", "/var/lib/systemd/timesync"),
    *("/var/lib/postfix", "/var/spool", "/var/cache/debconf", "/etc/machine-id", "/var/lib/private"),
)


def upgrade(server, later_packages):
    server.offer(later_packages)
    told = server.apt("upgrade")
    assert server.installed("linod") == LATER
    return told


def test_an_upgrade_lets_runs_end_and_restarts_what_runs_all_at_once(installed, later_packages):
    sites = [installed.add_site(f"shop{n}", tasks=SLOW, settings=WITHOUT_LINOD) for n in range(6)]
    for site in sites:
        site.start()
        installed.run(f"setsid linodctl run {site.name} slow >/dev/null 2>&1 </dev/null &")
    for site in sites:
        site.wait_until_running("slow")
    before = {site.name: site.pid for site in sites}
    installed.offer(later_packages)
    upgrading = installed.start(f"{INSTALL} upgrade >/root/upgrade.log 2>&1")
    try:
        for site in sites:  # all drain at the same time, for none has ended yet
            installed.wait(lambda site=site: site.show("ActiveState") == "deactivating")
        for site in sites:
            installed.run(f"touch {site.directory}/go")
        assert upgrading.wait(60) == 0, installed.read("/root/upgrade.log")
    finally:
        upgrading.kill()
        upgrading.wait()
    for site in sites:
        [run] = site.ended("slow")
        assert (run.outcome, run.output) == ("succeeded", "done")
        assert site.active == "active"
        assert site.pid != before[site.name]
    assert installed.ctl("--version").stdout == f"linodctl {LATER}\n"


@pytest.mark.slow
def test_fifty_sites_drain_at_the_same_time_within_the_limit_of_one(installed, later_packages, record_property):
    running = add_alike(installed, [f"shop{n}" for n in range(50)])
    stopped = add_alike(installed, [f"stopped{n}" for n in range(3)])
    installed.run("systemctl start 'linod@shop'{0..49} && systemctl enable linod@stopped0", timeout=300)
    for site in running:
        site.wait_until_running("slow", timeout=120)
    before = {site.name: site.pid for site in running}
    installed.offer(later_packages)
    began = time.monotonic()
    upgrading = installed.start(f"{INSTALL} upgrade >/root/upgrade.log 2>&1")
    try:
        installed.wait(lambda: len(units(installed, "deactivating")) == len(running))
        installed.run("touch /srv/shop{0..49}/go")
        assert upgrading.wait(120) == 0, installed.read("/root/upgrade.log")
    finally:
        upgrading.kill()
        upgrading.wait()
    took = time.monotonic() - began
    record_property(f"upgrade with fifty sites on {installed.suite}", f"{took:.0f} s")
    assert took < int(installed.ask("sed -n s/^TimeoutStopSec=//p /usr/lib/systemd/system/linod@.service"))
    assert units(installed, "active") == {site.unit for site in running}
    for site in running:
        run = site.ended("slow")[0]
        assert (run.outcome, run.output) == ("succeeded", "done")
        assert site.pid != before[site.name]
    assert {site.active for site in stopped} == {"inactive"}


def add_alike(server, names):
    """Add sites with the same files."""
    first = server.add_site(names[0], tasks=OFTEN, settings=WITHOUT_LINOD)
    others = [Site(server, name, f"/srv/{name}", first.owner) for name in names[1:]]
    server.sites |= {site.name: site for site in others}
    copy = f"cp --archive {first.directory} /srv/$name && linodctl add $name /srv/$name >/dev/null"
    server.run(f"set -e; for name in {' '.join(names[1:])}; do {copy}; done", timeout=300)
    return [first, *others]


def units(server, state):
    """The sites' services that are in a state."""
    lines = server.ask(f"systemctl list-units --plain --no-legend --state={state} 'linod@*.service'").splitlines()
    return {line.split()[0] for line in lines}


def test_an_upgrade_starts_nothing_that_was_stopped(installed, later_packages):
    stopped = installed.add_site("stopped", tasks=PING, settings=WITHOUT_LINOD)
    installed.run("systemctl enable --now linod@stopped && systemctl stop linod@stopped")
    disabled = installed.add_site("disabled", tasks=PING, settings=WITHOUT_LINOD)
    by_timer = installed.add_site("by-timer", tasks=PING, settings=WITHOUT_LINOD)
    installed.run("systemctl enable --now linod-run@by-timer.timer")
    upgrade(installed, later_packages)
    assert (stopped.active, disabled.active, by_timer.active) == ("inactive",) * 3
    assert installed.show("linod-run@by-timer.timer", "ActiveState") == "active"


def test_an_upgrade_keeps_a_file_that_the_administrator_has_changed(installed, later_packages):
    installed.write(CONFFILE, "# Ours.\n")
    upgrade(installed, later_packages)
    assert installed.read(CONFFILE) == "# Ours.\n"


def test_an_upgrade_says_when_a_site_does_not_come_up_again(installed, later_packages):
    site = installed.add_site("broken", tasks=PING, settings=WITHOUT_LINOD)
    site.start()
    site.declare("this is no Python")
    told = upgrade(installed, later_packages)
    assert "linod@broken.service" in told.stderr + told.stdout
    assert "linodctl" in told.stderr + told.stdout


def test_removing_stops_all_sites_and_keeps_what_they_are(installed):
    site = installed.add_site("shop", tasks=PING, settings=WITHOUT_LINOD)
    installed.run("systemctl enable --now linod@shop")
    site.wait_for_runs("ping")
    by_timer = installed.add_site("by-timer", tasks=PING, settings=WITHOUT_LINOD)
    installed.run(f"mkdir -p {METRICS} && systemctl enable --now linod-run@by-timer.timer linod-metrics.timer")
    installed.run("systemctl start linod-metrics.service")
    assert installed.exists(f"{METRICS}/linod.prom")
    installed.apt("remove linod python3-linod")
    for unit in (site.unit, by_timer.unit, "linod-run@by-timer.timer", "linod-metrics.timer", "linod.target"):
        assert installed.show(unit, "ActiveState") == "inactive"
    assert not installed.exists(f"{METRICS}/linod.prom")
    assert not site.processes()
    assert installed.exists("/etc/linod/sites/shop")
    runs = len(site.runs())
    assert runs
    told = installed.apt("install linod").stdout
    assert "linodctl add" not in told
    assert site.active == "inactive"
    installed.reboot()  # it was enabled, and still is
    site.wait_for_runs("ping", runs + 1)


def test_purging_leaves_nothing_behind(bare):
    bare.run(f"mkdir -p {METRICS} /var/lib/systemd/timers")  # which systemd makes for the first timer, whosever that is
    before = bare.files(*ALWAYS_CHANGING)
    bare.apt("install linod")
    site = bare.add_site("shop", tasks=PING, settings=WITHOUT_LINOD)
    bare.ctl("remove shop")
    bare.run("linodctl add shop /srv/shop --user lino --python /srv/shop/env/bin/python")
    bare.run("chown --no-dereference --recursive lino: /srv/shop")
    bare.write("/etc/linod/shop.env", "SECRET=1\n", mode="600")
    bare.run("systemctl enable --now linod@shop")
    site.wait_for_runs("ping")
    bare.run("systemctl disable --now linod@shop && systemctl enable --now linod-run@shop.timer")
    bare.wait("ls /var/lib/systemd/timers/stamp-linod-run@shop.timer")
    bare.run("systemctl enable linod@shop && systemctl mask --runtime linod-alert@shop")
    bare.run("systemctl enable --now linod-metrics.timer && systemctl start linod-metrics.service")
    assert bare.exists(f"{METRICS}/linod.prom")
    bare.apt("purge --autoremove linod")
    after = bare.files(*ALWAYS_CHANGING)
    assert differences(before, after) == []
    assert not bare.exists("/run/linod")
    assert bare.ask("systemctl list-units --all --plain --no-legend 'linod*'") == ""
    assert " linod: " not in bare.ask("journalctl --list-catalog")
    assert bare.exists("/srv/shop/manage.py")


def test_purging_keeps_the_drop_ins_that_an_administrator_wrote(installed):
    place = "/etc/systemd/system/linod@shop.service.d/memory.conf"
    installed.write(place, "[Service]\nMemoryHigh=1G\n")
    installed.apt("purge linod")
    assert installed.exists(place)


def test_a_system_without_systemd_running_takes_and_loses_the_package(bare):
    in_chroot = "chroot /mnt/root sh -c"
    bare.run("mkdir -p /mnt/root && mount --bind / /mnt/root")
    bare.run(f"{in_chroot} 'DEBIAN_FRONTEND=noninteractive apt-get -q -y install linod'", timeout=300)
    bare.run(f"{in_chroot} 'DEBIAN_FRONTEND=noninteractive apt-get -q -y purge linod'", timeout=300)
    assert not bare.exists("/etc/linod")


def differences(before, after):
    """What is new, gone or changed, one line each. A directory's time and size are nobody's concern."""
    return [
        f"{path}: {before.get(path, 'not there')} -> {after.get(path, 'gone')}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
