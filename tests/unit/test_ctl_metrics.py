"""linodctl metrics: what it tells, read back by the parsers of both formats."""

import os
import re
import resource
import shutil
import sqlite3
import stat
import time
from contextlib import closing

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from linod import __version__
from linod.archive import COUNTED, FILE
from linod.ctl import measures
from linod.ctl.exposition import LONGEST_LABEL, Family, Format, expose
from linod.ctl.families import FAMILIES
from linod.ctl.measures import STATES
from linod.totals import DURATIONS, LATENESS, Spread
from linod.wire import Standing
from tests.support.ctl import ROOT, CtlHost, daemon_says, run, task
from tests.unit.test_ctl_monitoring import STANDING, account, running

PARSERS = {Format.OPENMETRICS: parse_openmetrics, Format.PROMETHEUS: parse_prometheus}
PING = {"site": "myprj", "task": "app.tasks.ping"}
HOSTILE = [
    '"',
    "\\",
    'a"} 1\nlinod_site_up{site="other"} 1',
    "\x1b[31m",
    "\0",
    "ü\u202e",
    "\ud800",
    "x" * 5000,
    "a\\",
    "\r",
]


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = CtlHost(tmp_path)
    host.patch(monkeypatch)
    host.add("myprj")
    return host


def read(text, format=Format.OPENMETRICS):
    """All samples: name and labels with their value. Nothing is there twice."""
    samples = {}
    for family in PARSERS[format](text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples
            samples[key] = sample.value
    return samples


class Told(dict):
    def __call__(self, name, **labels):
        """The value of one sample; None where there is none."""
        return self.get((name, tuple(sorted(labels.items()))))


def told(host, capsys, *arguments, problems=""):
    code, out, err = host.call(capsys, "metrics", *arguments)
    assert code == 0 and (problems in err if problems else err == "")
    return Told(read(out))


# What is told


def test_a_site_that_runs_well(host, capsys):
    host.remember("myprj", [task("ping"), task("tidy", at="20:00")], [run("ping", ago=100), run("ping", took=0.5)])
    standing = Standing(**{**STANDING, "workers": 3, "alive": 2})
    before = time.time()
    with running(host), daemon_says(host.var / "myprj", standing):
        found = told(host, capsys)
    assert found("linod_build_info", version=__version__) == 1
    assert before <= found("linod_collected_timestamp_seconds") <= time.time()
    site = {name: found(f"linod_site_{name}", site="myprj") for name in ("up", "tasks", "workers", "running", "paused")}
    assert site == {"up": 1, "tasks": 2, "workers": 3, "running": 2, "paused": 0}
    assert found("linod_site_history_readable", site="myprj") == found("linod_site_history_writable", site="myprj") == 1
    assert found("linod_site_history_bytes", site="myprj") >= (host.var / "myprj" / FILE).stat().st_size
    assert found("linod_site_memory_bytes", site="myprj") > 1 << 20
    assert before - 3700 < found("linod_site_start_timestamp_seconds", site="myprj") < before - 3500
    assert {state: found("linod_site_state", site="myprj", state=state) for state in STATES}["running"] == 1
    assert sum(found("linod_site_state", site="myprj", state=state) for state in STATES) == 1
    assert found("linod_task_runs_total", **PING, outcome="succeeded") == 2
    assert found("linod_task_runs_total", **PING, outcome="lost") == 0
    assert before < found("linod_task_next_due_timestamp_seconds", **PING) < before + 11
    assert before - 61 < found("linod_task_last_run_timestamp_seconds", **PING) < before - 58
    assert before - 61 < found("linod_task_last_success_timestamp_seconds", **PING) < before - 58
    assert found("linod_task_enabled", **PING) == 1 and found("linod_task_overdue_seconds", **PING) < 10


def test_durations_and_lateness_are_histograms(host, capsys):
    runs = [run("ping", took=seconds, ago=1000 + seconds) for seconds in (0.005, 0.05, 50, 5000)]
    host.remember("myprj", [task("ping")], runs)
    found = told(host, capsys)
    buckets = [found("linod_task_duration_seconds_bucket", **PING, le=str(bound)) for bound in (*DURATIONS, "+Inf")]
    assert buckets == [1, 2, 2, 2, 3, 3, 3, 3, 4]
    assert found("linod_task_duration_seconds_count", **PING) == 4
    assert found("linod_task_duration_seconds_sum", **PING) == pytest.approx(5050.055)
    assert found("linod_site_lateness_seconds_bucket", site="myprj", le=str(LATENESS[0])) == 4


def test_a_task_that_goes_wrong(host, capsys):
    runs = [run("ping", ago=900), *(run("ping", "failed", ago=800 - 100 * number) for number in range(3))]
    host.remember("myprj", [task("ping"), task("tidy")], runs)
    found = told(host, capsys)
    assert found("linod_task_failures_in_a_row", **PING) == 3
    assert time.time() - 802 < found("linod_task_failing_since_timestamp_seconds", **PING) < time.time() - 798
    assert found("linod_task_runs_total", **PING, outcome="failed") == 3
    tidy = {"site": "myprj", "task": "app.tasks.tidy"}
    assert found("linod_task_failures_in_a_row", **tidy) == 0
    for what in ("failing_since", "last_run", "last_success"):
        assert found(f"linod_task_{what}_timestamp_seconds", **tidy) is None


def test_a_due_time_without_a_start_is_overdue(host, capsys):
    host.remember("myprj", [task("ping", every=10)])
    account(host, 200)
    with running(host):
        assert 190 <= told(host, capsys)("linod_task_overdue_seconds", **PING) < 210
    found = told(host, capsys)
    assert found("linod_site_up", site="myprj") == 0
    assert found("linod_task_overdue_seconds", **PING) is None
    assert found("linod_task_next_due_timestamp_seconds", **PING) is None


@pytest.mark.parametrize("pauses", [[("", 0, "", "")], [("app.tasks.ping", 0, "", "")]])
def test_what_is_paused_is_not_due(host, capsys, pauses):
    host.remember("myprj", [task("ping")], pauses=pauses)
    account(host, 5000)
    with running(host):
        found = told(host, capsys)
    assert found("linod_task_paused", **PING) == 1 and found("linod_task_overdue_seconds", **PING) == 0
    assert found("linod_site_paused", site="myprj") == (not pauses[0][0])
    assert found("linod_task_next_due_timestamp_seconds", **PING) is None


def test_a_run_that_is_stuck(host, capsys):
    host.remember("myprj", [task("ping", every=3600, timeout=60, grace=5)], [run("ping", None, ago=300)])
    with running(host):
        found = told(host, capsys)
    assert found("linod_site_stuck", site="myprj") == found("linod_task_running", **PING) == 1


@pytest.mark.parametrize(
    ("says", "up", "state"),
    [
        ({"waiting_for": "no database"}, 0, "waiting"),
        ({"draining": True}, 1, "stopping"),
        ({"trouble": "disk full"}, 1, "running"),
    ],
)
def test_the_daemon_is_asked(host, capsys, says, up, state):
    host.remember("myprj", [task("ping")])
    with running(host), daemon_says(host.var / "myprj", Standing(**{**STANDING, **says})):
        found = told(host, capsys)
    assert found("linod_site_up", site="myprj") == up and found("linod_site_state", site="myprj", state=state) == 1
    assert found("linod_site_history_writable", site="myprj") == ("trouble" not in says)


def test_a_daemon_that_does_not_answer_is_not_up(host, capsys, monkeypatch):
    monkeypatch.setattr("linod.ctl.monitoring.ANSWERS_WITHIN", 0.2)
    host.remember("myprj", [task("ping")])
    with running(host), daemon_says(host.var / "myprj", hang_up=False):
        found = told(host, capsys, problems="has not answered within 0.2 s")
    assert found("linod_site_up", site="myprj") == 0 and found("linod_site_tasks", site="myprj") == 1


def test_a_site_that_is_named_is_the_only_one(host, capsys):
    host.add("other")
    assert told(host, capsys, "other")("linod_site_up", site="other") == 0
    assert told(host, capsys, "other")("linod_site_up", site="myprj") is None
    code, out, err = host.call(capsys, "metrics", "nobody")
    assert (code, out) == (2, "") and "no site 'nobody'" in err


# Formats


def test_both_formats_say_the_same(host, capsys):
    host.remember("myprj", [task("ping")], [run("ping"), run("ping", "failed")])
    openmetrics = host.call(capsys, "metrics")[1]
    prometheus = host.call(capsys, "metrics", "--format", "prometheus")[1]
    assert openmetrics.endswith("\n# EOF\n") and "# EOF" not in prometheus
    one, other = read(openmetrics), read(prometheus, Format.PROMETHEUS)
    when = ("linod_collected_timestamp_seconds", ())
    assert one.pop(when) <= other.pop(when)
    assert one == other


def test_each_family_says_what_it_is(host, capsys):
    host.remember("myprj", [task("ping")], [run("ping")])
    out = host.call(capsys, "metrics")[1]
    for family in parse_openmetrics(out):
        kind, help = FAMILIES[family.name]
        assert (family.type, family.documentation) == (kind, help)
        assert family.unit == family.name.rpartition("_")[2] if "_seconds" in family.name else True
    # The format before knows neither the type of a build nor counters whose family has another name.
    out = host.call(capsys, "metrics", "--format", "prometheus")[1]
    types = {line.split()[2]: line.split()[3] for line in out.splitlines() if line.startswith("# TYPE")}
    assert types["linod_build_info"] == "gauge" and types["linod_task_runs_total"] == "counter"
    assert set(types.values()) <= {"gauge", "counter", "histogram"}


def test_every_family_is_explained_in_the_documentation():
    page = (ROOT / "docs/metrics.md").read_text()
    for name, (kind, _help) in FAMILIES.items():
        shown = name + {"counter": "_total", "info": "_info"}.get(kind, "")
        assert f"| `{shown}` | {kind} |" in page, shown


def test_the_rules_of_the_example_use_metrics_that_there_are():
    rules = (ROOT / "packaging/prometheus/examples/linod.rules.yml").read_text()
    known = {name + {"counter": "_total", "info": "_info"}.get(kind, "") for name, (kind, _help) in FAMILIES.items()}
    used = set(re.findall(r"\blinod_\w+", rules))
    assert used and used <= known


@pytest.mark.parametrize("format", Format)
def test_no_name_breaks_the_format(format):
    family = Family("linod_task_runs", "counter", "Runs.")
    for number, name in enumerate(HOSTILE):
        family.add(number, site="myprj", task=name)
    text = expose([family], format)
    samples = read(text, format)
    assert sorted(samples.values()) == list(range(len(HOSTILE)))
    assert len(text.splitlines()) == len(HOSTILE) + (3 if format is Format.OPENMETRICS else 2)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert max(len(dict(labels)["task"]) for _name, labels in samples) <= LONGEST_LABEL + 1
    assert dict(next(iter(samples))[1])["task"] == '"'


def test_names_that_look_the_same_are_told_once():
    family = Family("linod_task_running", "gauge", "Runs.")
    for number, name in enumerate(("\x1b", "\\x1b", "x" * 900 + "a", "x" * 900 + "b"), start=1):
        family.add(number, task=name)
    assert sorted(read(expose([family], Format.OPENMETRICS)).values()) == [1, 3]


def test_an_empty_histogram_is_one():
    family = Family("linod_site_lateness_seconds", "histogram", "Late.")
    family.add(Spread(LATENESS), site="myprj")
    assert set(read(expose([family], Format.OPENMETRICS)).values()) == {0}


def test_a_task_with_a_hostile_name(host, capsys):
    host.remember("myprj", [task(name) for name in HOSTILE if name != "\ud800"], [run(HOSTILE[0])])
    found = told(host, capsys)
    assert found("linod_site_tasks", site="myprj") == len(HOSTILE) - 1
    assert found("linod_task_runs_total", site="myprj", task='app.tasks."', outcome="succeeded") == 1


# Sites that are broken, or worse


def test_a_daemon_that_lies_breaks_nothing(host, capsys):
    host.remember("myprj", [task("ping")])
    lies = Standing(**{**STANDING, "workers": True, "alive": 10**400})
    with running(host), daemon_says(host.var / "myprj", lies):
        code, out, _ = host.call(capsys, "metrics", "myprj")
    assert code == 0 and "True" not in out and "0" * 30 not in out
    assert Told(read(out))("linod_site_workers", site="myprj") == 1


def test_a_broken_site_does_not_hide_the_others(host, capsys):
    host.add("broken", "gone")
    host.remember("myprj", [task("ping")], [run("ping")])
    (host.var / "broken").mkdir()
    (host.var / "broken" / FILE).write_bytes(b"no database" * 1000)
    shutil.rmtree(host.path / "srv" / "gone")
    with running(host):
        found = told(host, capsys, problems="linodctl: broken: The history")
    assert found("linod_site_history_readable", site="broken") == found("linod_site_up", site="broken") == 0
    assert found("linod_site_up", site="gone") == 0
    assert found("linod_site_up", site="myprj") == 1
    assert found("linod_task_runs_total", **PING, outcome="succeeded") == 1


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE totals SET outcome = 'x'",
        "UPDATE totals SET runs = -1",
        "UPDATE totals SET runs = 1.5",
        "UPDATE totals SET latest = 'soon'",
        "UPDATE totals SET latest = 9e18",
        "UPDATE durations SET bound = 'x'",
        "UPDATE durations SET seconds = 9e999",
        "UPDATE durations SET runs = x'ff'",
        "UPDATE lateness SET bound = -1",
        "UPDATE lateness SET seconds = -9e999",
        "DROP TABLE lateness",
        "DROP TABLE totals",
        "DROP TABLE totals; CREATE VIEW totals (task, outcome, runs, latest) AS WITH RECURSIVE more (n) AS"
        " (SELECT 1 UNION ALL SELECT n + 1 FROM more) SELECT 'app.tasks.ping', 'succeeded', n, n FROM more",
    ],
)
def test_totals_that_linod_has_not_written_are_told(host, capsys, monkeypatch, change):
    monkeypatch.setattr("linod.archive.PATIENCE", 0.2)
    host.remember("myprj", [task("ping")], [run("ping")])
    host.add("other")
    host.remember("other", [task("ping")])
    with closing(sqlite3.connect(host.var / "myprj" / FILE)) as db:
        db.executescript(f"PRAGMA ignore_check_constraints = 1; {change};")
    found = told(host, capsys, problems="myprj: The history")
    assert found("linod_site_history_readable", site="myprj") == 0
    assert found("linod_site_history_readable", site="other") == 1
    assert not [key for key in found if dict(key[1]).get("task") and dict(key[1])["site"] == "myprj"]


def test_a_history_that_takes_too_long_is_given_up(host, capsys, monkeypatch):
    monkeypatch.setattr(measures, "READ_WITHIN", -1.0)
    host.remember("myprj", [task("ping")])
    found = told(host, capsys, problems="cannot be read within")
    assert found("linod_site_history_readable", site="myprj") == 0


def test_a_site_has_no_more_metrics_than_fit(host, capsys, monkeypatch):
    monkeypatch.setattr(measures, "MOST_TASKS", 3)
    host.remember("myprj", [task(f"t{number}") for number in range(5)])
    found = told(host, capsys, problems="more than 3 tasks")
    assert found("linod_site_tasks", site="myprj") == 5
    assert sorted(dict(labels)["task"] for name, labels in found if name == "linod_task_enabled") == [
        f"app.tasks.t{number}" for number in range(3)
    ]


def test_a_history_of_an_earlier_version_has_no_totals_yet(host, capsys):
    host.remember("myprj", [task("ping")], [run("ping")])
    with closing(sqlite3.connect(host.var / "myprj" / FILE)) as db:
        drop = "".join(f"DROP TABLE {table}; " for table in ("totals", "durations", "lateness"))
        db.executescript(f"{drop}PRAGMA user_version = {COUNTED - 1}")
    found = told(host, capsys)
    assert found("linod_site_history_readable", site="myprj") == 1
    assert found("linod_task_last_run_timestamp_seconds", **PING) is not None
    assert found("linod_task_runs_total", **PING, outcome="succeeded") is None


# A file


def test_a_file_is_written_in_the_format_that_node_exporter_reads(host, capsys, tmp_path):
    host.remember("myprj", [task("ping")], [run("ping")])
    path = tmp_path / "linod.prom"
    path.write_text("old")
    path.chmod(0o600)
    before = os.umask(0o077)
    try:
        assert host.call(capsys, "metrics", "--output", path) == (0, "", "")
    finally:
        os.umask(before)
    assert read(path.read_text(), Format.PROMETHEUS)[("linod_site_up", (("site", "myprj"),))] == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [one.name for one in tmp_path.glob("*linod*")] == ["linod.prom"]
    host.call(capsys, "metrics", "--output", path, "--format", "openmetrics")
    assert path.read_text().endswith("# EOF\n")


def test_a_file_is_replaced_and_never_written_into(host, capsys, tmp_path):
    path, other = tmp_path / "linod.prom", tmp_path / "other"
    other.write_text("not ours")
    path.symlink_to(other)
    assert host.call(capsys, "metrics", "--output", path)[0] == 0
    assert other.read_text() == "not ours" and not path.is_symlink()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("none/linod.prom", "No such file or directory"),
        ("srv", "Is a directory"),
        ("etc/sites/myprj/x/y", "No such file"),
    ],
)
def test_a_file_that_cannot_be_written_is_told(host, capsys, name, why):
    code, out, err = host.call(capsys, "metrics", "--output", host.path / name)
    assert (code, out) == (1, "") and why in err and err.startswith("linodctl: ") and err.count("\n") <= 2
    assert not list(host.path.rglob(".*"))


def test_a_disk_that_takes_no_more_leaves_the_old_file(host, capsys, tmp_path):
    path = tmp_path / "linod.prom"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        code, _, err = host.call(capsys, "metrics", "--output", path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1 and err == f"linodctl: {path} cannot be written: File too large.\n"
    assert path.read_text() == "old" and not list(tmp_path.glob(".*"))


def test_it_is_utf8_whatever_the_terminal(host):
    host.remember("myprj", [task("füttern")])
    done = host.spawn("metrics", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert 'task="app.tasks.füttern"' in done.stdout


def test_fifty_sites_take_no_two_seconds(host, capsys, record_property):
    names = [f"site{number}" for number in range(50)]
    host.add(*names)
    for name in names:
        host.remember(name, [task(f"t{n}") for n in range(10)], [run(f"t{n % 10}") for n in range(200)])
    began = time.process_time()
    code, out, _ = host.call(capsys, "metrics")
    took = time.process_time() - began
    assert code == 0 and len(read(out)) > 10_000
    record_property("metrics of 50 sites with 10 tasks each", f"{took:.2f} s")
    assert took < 2
