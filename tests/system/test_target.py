"""linod.target: all sites at once."""

import pytest

TASKS = """
import linod

@linod.task(every=1)
def often():
    pass
"""


@pytest.fixture
def sites(server, add_site):
    """Two sites that run, and one that was stopped; all are enabled."""
    server.run("systemctl start linod.target")
    sites = [add_site(name, TASKS) for name in ("one", "two", "stopped")]
    for site in sites:
        site.systemctl("enable --now")
    sites[-1].stop()
    return sites


def states(sites):
    return [site.active for site in sites]


def test_stopping_it_stops_all_sites(server, sites):
    server.run("systemctl stop linod.target")
    assert states(sites) == ["inactive", "inactive", "inactive"]


def test_restarting_it_restarts_those_that_run_and_never_starts_a_stopped_one(server, sites):
    before = [site.pid for site in sites]
    server.run("systemctl restart linod.target")
    server.wait(lambda: states(sites) == ["active", "active", "inactive"])
    assert all(site.pid != pid for site, pid in zip(sites[:2], before[:2], strict=True))


def test_starting_it_again_never_starts_a_stopped_one(server, sites):
    server.run("systemctl start linod.target")
    assert states(sites) == ["active", "active", "inactive"]


def test_a_pattern_stops_some_and_starts_what_is_enabled(server, sites):
    server.run("systemctl stop 'linod@*.service'")
    assert states(sites) == ["inactive"] * 3
    server.run("systemctl start --all 'linod@*.service'")
    assert "active" in states(sites)


def test_stopping_it_stops_the_timers_as_well(server, add_site):
    add_site("timed", TASKS)
    server.run("systemctl start linod.target linod-run@timed.timer")
    server.run("systemctl stop linod.target")
    assert server.show("linod-run@timed.timer", "ActiveState") == "inactive"
