"""linod-metrics: the metrics of all sites, where node_exporter looks for them."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

DIRECTORY = "/var/lib/prometheus/node-exporter"
FILE = f"{DIRECTORY}/linod.prom"
PING = """
from linod import dd

@dd.schedule_often(every=1)
def ping():
    print("pong")
"""
SOONER = "[Timer]\nOnCalendar=\nOnCalendar=*-*-* *:*:*\nRandomizedDelaySec=0\nAccuracySec=10ms\n"


@pytest.fixture
def directory(server):
    """As Debian's prometheus-node-exporter makes it."""
    server.run(f"mkdir -p {DIRECTORY}")
    yield
    server.run("systemctl stop linod-metrics.timer linod-metrics.service; rm -rf /var/lib/prometheus")


def collect(server):
    """What the unit writes: the values by name and labels."""
    server.run("systemctl start linod-metrics.service")
    return values_in(server.read(FILE))


def values_in(text):
    families = text_string_to_metric_families(text)
    return {
        (sample.name, *(value for label, value in sample.labels.items() if label != "site")): sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("site", "metered") == "metered"
    }


def test_the_unit_tells_of_a_running_site_what_its_daemon_and_systemd_know(server, add_site, directory):
    site = add_site("metered", PING)
    site.start()
    site.wait_for_runs("ping", 2)
    found = collect(server)
    assert (
        found["linod_site_up",] == found["linod_site_history_readable",] == found["linod_site_history_writable",] == 1
    )
    assert found["linod_site_workers",] >= 1 and found["linod_site_tasks",] == 1
    assert found["linod_task_runs_total", "app.tasks.ping", "succeeded"] >= 2
    by_kernel = server.show(site.unit, "MemoryCurrent").isdecimal()
    assert found.get(("linod_site_memory_bytes",), 0) > (5 << 20 if by_kernel else -1)
    seen_by_root = values_in(server.ctl("metrics metered --format prometheus").stdout)
    assert seen_by_root["linod_site_memory_bytes",] > 5 << 20
    assert server.ask(f"stat -c %a {FILE}").strip() == "644"
    assert server.ask(f"ls -A {DIRECTORY}").split() == ["linod.prom"]


@pytest.mark.parametrize("end", ["stop", "kill --signal=KILL"])
def test_the_unit_reads_the_history_that_a_daemon_has_left(server, add_site, directory, end):
    """Also where the daemon has not closed it, and the unit may write nothing there."""
    site = add_site("metered", PING)
    site.drop_in("[Service]\nRestart=no\n")
    site.start()
    site.wait_for_runs("ping", 2)
    server.run(f"systemctl {end} {site.unit}")
    server.wait(lambda: site.active in ("inactive", "failed"))
    found = collect(server)
    assert found["linod_site_up",] == 0 and found["linod_site_history_readable",] == 1
    assert found["linod_task_runs_total", "app.tasks.ping", "succeeded"] >= 1
    assert found["linod_site_state", "failed" if "kill" in end else "stopped"] == 1


def test_a_daemon_that_hangs_is_not_up_and_hides_no_other(server, add_site, directory):
    site, other = add_site("hangs", PING), add_site("metered", PING)
    site.start()
    other.start()
    other.wait_for_runs("ping")
    server.run(f"kill -STOP {site.pid}")
    try:
        server.run("systemctl start linod-metrics.service")
    finally:
        server.run(f"kill -CONT {site.pid}")
    text = server.read(FILE)
    assert 'linod_site_up{site="hangs"} 0\n' in text and 'linod_site_tasks{site="hangs"} 1\n' in text
    assert values_in(text)["linod_site_up",] == 1


def test_the_timer_writes_them_again_and_again(server, directory):
    server.run("mkdir -p /etc/systemd/system/linod-metrics.timer.d")
    server.write("/etc/systemd/system/linod-metrics.timer.d/sooner.conf", SOONER)
    try:
        server.run("systemctl daemon-reload && systemctl start linod-metrics.timer")
        server.wait(lambda: server.run(f"test -e {FILE}", check=False).returncode == 0)
        first = server.read(FILE)
        server.wait(lambda: server.read(FILE) != first)
    finally:
        server.run("rm -r /etc/systemd/system/linod-metrics.timer.d && systemctl daemon-reload")


def test_nothing_is_done_or_said_where_nobody_would_read_them(server):
    before = len(server.records("linod-metrics.service"))
    server.run("systemctl start linod-metrics.service")
    assert server.show("linod-metrics.service", "ConditionResult", "Result") == ["no", "success"]
    assert server.run("test -e /var/lib/prometheus", check=False).returncode == 1
    assert len(server.records("linod-metrics.service")) == before


def test_the_timer_is_off_at_first(server):
    assert server.run("systemctl is-enabled linod-metrics.timer", check=False).stdout.strip() == "disabled"


def test_the_unit_tells_in_the_journal_what_is_wrong_with_a_site(server, add_site, directory):
    add_site("metered", PING)
    server.run("mkdir -p /var/lib/linod/metered && mkfifo /var/lib/linod/metered/history.sqlite3")
    found = collect(server)
    assert found["linod_site_history_readable",] == found["linod_site_up",] == 0
    messages = [record["MESSAGE"] for record in server.records("linod-metrics.service")]
    assert any("metered: The history /var/lib/linod/metered/history.sqlite3 is no file." in text for text in messages)
