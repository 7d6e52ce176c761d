"""linodctl list, history, show, why and logs: what the tasks of a site do."""

import argparse
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from linod.archive import Archive
from linod.ctl.logs import journalctl
from linod.daemon.lock import lock_site
from linod.sites import HostSite
from tests.support.ctl import CtlHost, run, task

NOBODY = "65534"


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = CtlHost(tmp_path)
    host.patch(monkeypatch)
    host.add("myprj")
    return host


def row_of(out, name):
    return next(line for line in out.splitlines() if line.startswith(f"{name} "))


# Which site is meant


def test_the_only_site_need_not_be_named(host, capsys):
    host.remember("myprj", [task("ping")], [run("ping")])
    assert host.call(capsys, "list") == host.call(capsys, "list", "myprj")
    assert host.call(capsys, "history", "ping")[1] == host.call(capsys, "history", "myprj", "ping")[1]
    assert host.call(capsys, "show", "1") == host.call(capsys, "show", "myprj", "1")


def test_of_several_sites_one_must_be_named(host, capsys):
    host.add("other")
    code, _, err = host.call(capsys, "list")
    assert code == 2 and err == "linodctl: Say which site. There are myprj, other.\n"
    code, _, err = host.call(capsys, "history", "myprk")
    assert code == 2 and "There is no site 'myprk'" in err and "Did you mean myprj?" in err


def test_words_too_many_are_refused(host, capsys):
    host.remember("myprj", [task("ping")])
    assert "What is meant by 'x'?" in host.call(capsys, "history", "myprj", "ping", "x")[2]


def test_a_site_may_be_called_like_a_task(host, capsys):
    """The site comes first."""
    host.add("ping")
    host.remember("ping", [task("ping")], [run("ping")])
    assert row_of(host.call(capsys, "history", "ping")[1], "1")
    assert row_of(host.call(capsys, "history", "ping", "ping")[1], "1")


# list


def test_the_list_shows_each_task_in_the_order_of_declaration(host, capsys):
    runs = [run("ping", ago=100), run("tidy", "failed", ago=50)]
    tasks = [task("tidy", at="20:00"), task("ping"), task("new", every=3600), task("off", enabled=False)]
    host.remember("myprj", tasks, runs)
    _, out, _ = host.call(capsys, "list")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["TASK", "tidy", "ping", "new", "off"]
    assert "Every 1 day at 20:00:00" in lines[1] and "failed" in lines[1]
    assert "succeeded" in lines[2] and "never" in lines[3] and "disabled" in lines[4]
    assert "myprj is not running, so nothing will start" in out


def test_a_task_that_goes_on_failing_says_since_when(host, capsys):
    outcomes = ["failed", "succeeded", "failed", "skipped", "crashed", "lost"]
    runs = [run("ping", outcome, ago=600 - 100 * number) for number, outcome in enumerate(outcomes)]
    host.remember("myprj", [task("ping")], runs)
    since = runs[2].started.astimezone()
    assert f"failing since {since:%H:%M:%S}, 3 times" in host.call(capsys, "list")[1] or since.day != datetime.now().day
    [row] = json.loads(host.call(capsys, "list", "--json")[1])
    assert row["failures_in_a_row"] == 3 and row["failing_since"] == runs[2].started.isoformat()


def test_a_pause_is_shown_with_its_reason(host, capsys):
    micros = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp() * 1e6)
    host.remember("myprj", [task("ping"), task("tidy")], pauses=[("app.tasks.ping", micros, "disk full", "ann")])
    _, out, _ = host.call(capsys, "list")
    assert "paused since 2026-11-2" in row_of(out, "ping") and "by ann: disk full" in row_of(out, "ping")
    assert "paused" not in row_of(out, "tidy")
    ping, tidy = json.loads(host.call(capsys, "list", "--json")[1])
    assert ping["paused"] == {
        "since": "2026-11-24T12:00:00+00:00",
        "reason": "disk full",
        "by": "ann",
        "whole_site": False,
    }
    assert ping["next_due"] is None and tidy["next_due"]


def test_what_the_administrator_overrides_is_marked(host, capsys):
    declared = task("ping", overridden=("every: /etc/linod/myprj.toml:3",), declared="Every 1 minute")
    host.remember("myprj", [declared])
    assert "(overridden)" in host.call(capsys, "list")[1]
    assert json.loads(host.call(capsys, "list", "--json")[1])[0]["overridden"] == ["every: /etc/linod/myprj.toml:3"]


def test_tasks_of_the_same_name_are_told_apart(host, capsys):
    host.remember("myprj", [task("ping"), task("other.ping")])
    host.remember("myprj", [task("ping")])
    twins = [task("ping"), task("ping")]
    twins[1] = type(twins[1])(**{**{f: getattr(twins[1], f) for f in twins[1].__slots__}, "id": "other.tasks.ping"})
    host.remember("myprj", twins)
    _, out, _ = host.call(capsys, "list")
    assert row_of(out, "app.tasks.ping") and row_of(out, "other.tasks.ping")
    code, _, err = host.call(capsys, "history", "ping")
    assert code == 2 and "2 tasks called 'ping'" in err and "other.tasks.ping" in err


def test_a_site_that_was_never_started_has_no_list(host, capsys):
    code, out, _ = host.call(capsys, "list")
    assert code == 0 and "systemctl start linod@myprj" in out
    code, _, err = host.call(capsys, "why", "ping")
    assert code == 2 and "systemctl start linod@myprj" in err


# history


def test_history_shows_the_latest_runs_first(host, capsys):
    host.remember("myprj", [task("ping"), task("tidy")], [run("ping"), run("tidy", ago=5), run("ping", None, ago=1)])
    lock = lock_site(host.var / "myprj")
    try:
        _, out, _ = host.call(capsys, "history")
    finally:
        os.close(lock)
    assert [line.split()[0] for line in out.splitlines()] == ["RUN", "3", "2", "1"]
    assert "running" in row_of(out, "3") and "1.5 s" in row_of(out, "2")
    (host.var / "myprj" / "lock").write_text("1 1\n")  # a process that is gone
    assert "its end was not seen" in row_of(host.call(capsys, "history")[1], "3"), "now nobody runs the site"


def test_history_can_be_narrowed(host, capsys):
    runs = [run("ping", "failed", ago=7200), run("tidy", "crashed", ago=600), run("ping", ago=60), run("ping", "lost")]
    host.remember("myprj", [task("ping"), task("tidy")], runs)

    def numbers(*arguments):
        return [one["id"] for one in json.loads(host.call(capsys, "history", "--json", *arguments)[1])]

    assert numbers() == [4, 3, 2, 1]
    assert numbers("--failed") == [4, 2, 1]
    assert numbers("ping") == numbers("app.tasks.ping") == [4, 3, 1]
    assert numbers("ping", "--failed", "--since", "1h") == [4]
    assert numbers("--limit", "2") == [4, 3]
    assert "No runs that went wrong" in host.call(capsys, "history", "--failed", "--since", "1s")[1]


def test_without_a_site_the_history_of_all_is_shown(host, capsys):
    host.add("other", "bad")
    host.remember("myprj", [task("ping")], [run("ping", ago=30), run("ping", "failed", ago=10)])
    host.remember("other", [task("tidy")], [run("tidy", ago=20)])
    (host.var / "bad").mkdir()
    (host.var / "bad" / "history.sqlite3").write_bytes(b"no database" * 1000)
    code, out, err = host.call(capsys, "history")
    assert code == 0 and "bad: The history" in err
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["SITE", "RUN", "TASK"],
        ["myprj", "2", "ping"],
        ["other", "1", "tidy"],
        ["myprj", "1", "ping"],
    ]
    [newest] = json.loads(host.call(capsys, "history", "--limit", "1", "--json")[1])
    assert (newest["site"], newest["id"], newest["outcome"]) == ("myprj", 2, "failed")
    for name in ("myprj", "other"):
        (host.var / name / "history.sqlite3").write_bytes(b"no database" * 1000)
    code, out, err = host.call(capsys, "history")
    assert code == 1 and not out and "myprj: The history" in err and "other: The history" in err


def test_a_task_that_is_declared_no_more_keeps_its_history(host, capsys):
    host.remember("myprj", [task("ping")], [run("gone")])
    assert row_of(host.call(capsys, "history")[1], "1").split()[1] == "gone"
    for name in ("gone", "app.tasks.gone"):
        assert row_of(host.call(capsys, "history", name)[1], "1")


def test_an_unknown_task_gets_the_one_that_was_meant(host, capsys):
    host.remember("myprj", [task("send_newsletter")])
    code, _, err = host.call(capsys, "history", "send_newsleter")
    assert code == 2 and err == "linodctl: This site has no task 'send_newsleter'. Did you mean send_newsletter?\n"


def test_history_of_another_user_is_told_in_words():
    with CtlHost.open_to_all() as host:
        host.add("myprj")
        host.remember("myprj", [task("ping")], [run("ping")])
        if os.geteuid() == 0:
            (host.var / "myprj").chmod(0o750)
            who = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]
        else:
            (host.var / "myprj").chmod(0)
            who = []
        try:
            for command in ("history", "list", "show 1"):
                done = subprocess.run(
                    [*who, *host.command(*command.split())], capture_output=True, text=True, timeout=30
                )
                assert done.returncode == 1 and done.stderr.startswith("linodctl: The history cannot be read. ")
                assert "can be read by root" in done.stderr and done.stderr.count("\n") == 1
            status = subprocess.run([*who, *host.command("status")], capture_output=True, text=True, timeout=30)
            assert status.returncode in (2, 3) and "can be read by root" in status.stdout
        finally:
            (host.var / "myprj").chmod(0o750)


# show


def test_a_run_is_shown_whole(host, capsys):
    whole = run(
        "ping",
        "failed",
        reason="ValueError: no luck",
        traceback="Traceback:\n  line 7\n",
        output="line 1\nline 2\n",
        output_bytes=5000,
        cpu=0.25,
        peak_memory=43_008,
        pid=4711,
        attempt=2,
        dues=3,
    )
    host.remember("myprj", [task("ping")], [whole])
    _, out, _ = host.call(capsys, "show", "1")
    assert out.endswith("Output:\n  line 1\n  line 2\n")
    for text in (
        *("ping (app.tasks.ping)", "failed", "ValueError: no luck", "4711", "42.0 MiB at most", "0.25 s"),
        *("Attempt: 2", "and 2 times before", "Traceback:\n  Traceback:\n    line 7"),
        "journalctl LINOD_SITE=myprj LINOD_RUN=1",
    ):
        assert text in out, text
    told = json.loads(host.call(capsys, "show", "1", "--json")[1])
    assert told["outcome"] == "failed" and told["output"] == "line 1\nline 2\n" and told["pid"] == 4711
    assert datetime.fromisoformat(told["started"]) == whole.started


def test_a_run_that_is_not_there_is_told(host, capsys):
    host.remember("myprj", [task("ping")], [run("ping")])
    code, _, err = host.call(capsys, "show", "77")
    assert code == 2 and "myprj has no run 77" in err
    assert "no number of a run" in host.call(capsys, "show", "myprj", "x")[2]
    assert "Say which run" in host.call(capsys, "show", "myprj")[2]


# why


def test_why_tells_who_decides(host, capsys):
    host.remember("myprj", [task("tidy", at="20:00")], [run("tidy", "failed", ago=200, reason="ValueError: x")])
    _, out, _ = host.call(capsys, "why", "tidy")
    assert "tidy (app.tasks.tidy) of myprj: every 1 day at 20:00:00." in out
    assert "declared at /srv/app/tasks.py:7." in out
    assert "Europe/Brussels" in out
    assert "The site is stopped, so nothing runs. Start it: systemctl start linod@myprj" in out
    assert out.count("It is due next at") == 1 and ", then at" in out
    assert "number 1, started at" in out and "and failed after 1.5 s: ValueError: x." in out
    assert "it runs once for all of them afterwards" in out
    told = json.loads(host.call(capsys, "why", "tidy", "--json")[1])
    first, second, third = map(datetime.fromisoformat, told["next_due"])
    assert timedelta(hours=22) < second - first < timedelta(hours=26) and second < third


def test_why_names_the_override_with_its_line(host, capsys):
    declared = task("ping", every=60, overridden=("every: /etc/linod/myprj.toml:3",), declared="Every 10 seconds")
    host.remember("myprj", [declared])
    _, out, _ = host.call(capsys, "why", "ping")
    assert "Its declaration says: every 10 seconds; that is overridden." in out
    assert "Its every is decided at /etc/linod/myprj.toml:3." in out


def test_why_names_the_pause_and_how_to_end_it(host, capsys):
    host.remember("myprj", [task("ping"), task("tidy")], pauses=[("app.tasks.ping", 0, "disk", "ann")])
    _, out, _ = host.call(capsys, "why", "ping")
    assert "It is paused since 1970-01-01" in out and "by ann: disk, so it does not run." in out
    assert "linodctl resume myprj ping" in out and "due next" not in out
    assert "paused" not in host.call(capsys, "why", "tidy")[1]
    host.remember("myprj", pauses=[("", 0, "moving", "bob")])
    _, out, _ = host.call(capsys, "why", "tidy")
    assert "The whole site myprj is paused" in out and "linodctl resume myprj\n" in out


@pytest.mark.parametrize(
    ("policies", "sentence"),
    [
        ({"every": 10}, "are not caught up"),
        ({"every": 3600, "catch_up": "none"}, "they are skipped"),
        ({"every": 3600, "catch_up": "all"}, "once for each of them"),
        ({"every": 3600, "enabled": False}, "It is disabled"),
    ],
)
def test_why_says_what_becomes_of_missed_due_times(host, capsys, policies, sentence):
    host.remember("myprj", [task("ping", **policies)])
    assert sentence in host.call(capsys, "why", "ping")[1]


# logs


def test_the_journal_is_asked_for_both_units_of_a_site():
    options = argparse.Namespace(lines="50", priority="warning", since="yesterday", follow=True, json=False)
    assert journalctl(HostSite(name="myprj"), None, options) == [
        *("journalctl", "--unit=linod@myprj.service", "--unit=linod-run@myprj.service"),
        *("--lines=50", "--priority=warning", "--since=yesterday", "--follow"),
    ]


def test_the_journal_of_a_task_is_asked_for_by_its_id(host):
    host.remember("myprj", [task("ping")])
    options = argparse.Namespace(lines=None, priority=None, since=None, follow=False, json=True)
    assert journalctl(HostSite(name="myprj"), "app.tasks.ping", options)[-2:] == [
        "--output=json",
        "LINOD_TASK_ID=app.tasks.ping",
    ]


def test_journalctl_itself_takes_over(host):
    host.remember("myprj", [task("ping")])
    done = host.spawn("logs", "myprj", "ping", "-n", "5", "-p", "no such priority")
    assert done.returncode == 1 and "priority" in done.stderr and "linodctl" not in done.stderr


# The reader


def test_a_history_that_an_older_linod_wrote_is_read_without_its_new_index(host):
    host.remember("myprj", [task("ping")], [run("ping", "failed")])
    import sqlite3

    with sqlite3.connect(host.var / "myprj" / "history.sqlite3") as db:
        db.executescript("DROP INDEX runs_bad; DROP TABLE pauses; PRAGMA user_version = 1")
    db.close()
    with Archive(host.var / "myprj") as archive:
        assert archive.failures_since(datetime.now(UTC) - timedelta(days=1)) == {"app.tasks.ping": 1}
        assert archive.pauses() == {}


def test_counting_failures_stops_at_a_limit(host):
    host.remember("myprj", [task("ping")], [run("ping", "failed") for _ in range(30)])
    with Archive(host.var / "myprj") as archive:
        assert archive.streak("app.tasks.ping").count == 30
        assert archive.streak("app.tasks.ping", limit=7).count == 7
        assert archive.streak("app.tasks.other").count == 0
