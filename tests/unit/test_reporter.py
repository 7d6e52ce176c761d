"""What linod says: every sentence, on a terminal, in a file and under systemd."""

import io
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from linod.daemon.historyfile import Harm, Renewal
from linod.daemon.output import Line
from linod.daemon.plan import Changes
from linod.daemon.reporter import Record, Reporter, TextSink, short_clock, syslog_priority
from linod.runs import Outcome, Run
from linod.schedules import Interval
from linod.task import Task
from linod.words import clock, count, duration

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
OFTEN = Task(id="app.ping", label="ping", text="", schedule=Interval(10, phase=0.0))
RARE = Task(id="app.sweep", label="sweep", text="", schedule=Interval(3600, phase=0.0))


class Kept:
    """A sink that keeps what is said."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def reporter(kept: Kept) -> Reporter:
    return Reporter(kept)


def run(outcome: Outcome | None = None, **fields: Any) -> Run:
    return Run(**{"id": 7, "task": "app.ping", "due": NOON, "outcome": outcome, "duration": 1.5} | fields)


# How long a task has gone wrong


def test_a_failure_that_goes_on_tells_since_when_and_how_often(reporter: Reporter, kept: Kept) -> None:
    failed = run(Outcome.FAILED, reason="no", ended=NOON)
    reporter.run_ended(OFTEN, failed, news=False, failures=3, since=NOON)
    assert kept.records[-1].text == f"ping failed after 1.5 s: no (3 times in a row, since {short_clock(NOON)})"
    status = f"ping failed at {short_clock(NOON)}: no (3 times in a row, since {short_clock(NOON)})"
    assert reporter.describe_failure() == status
    reporter.run_ended(OFTEN, run(Outcome.CANCELLED, reason="terminated"), news=True, failures=3, since=NOON)
    assert kept.records[-1].text == "ping cancelled after 1.5 s: terminated"
    assert reporter.describe_failure() == status, "that it was cancelled says nothing about the task"
    reporter.run_ended(OFTEN, run(Outcome.SUCCEEDED), news=True, failures=0)
    assert reporter.describe_failure() == ""


def test_the_status_goes_on_telling_what_failed_under_the_daemon_before(reporter: Reporter, kept: Kept) -> None:
    reporter.task_was_failing(OFTEN, run(Outcome.FAILED, reason="no", ended=NOON), 2, NOON)
    assert reporter.describe_failure().endswith(f": no (2 times in a row, since {short_clock(NOON)})")
    assert not kept.records


def test_people_who_were_told_of_many_tasks_are_one_short_line(reporter: Reporter, kept: Kept) -> None:
    reporter.told("mail", [f"task{n}" for n in range(200)], "")
    assert kept.records[-1].text == ("A mail about task0, task1, task2, task3, task4 and 195 more tasks was sent.")


# What deserves to be said


def test_a_frequent_task_that_has_nothing_to_say_is_quiet(reporter: Reporter, kept: Kept) -> None:
    reporter.run_started(OFTEN, run())
    reporter.run_ended(OFTEN, run(Outcome.SUCCEEDED), news=False, failures=0)
    assert kept.records == []


@pytest.mark.parametrize(
    ("task", "outcome", "fields", "news", "failures", "text"),
    [
        (RARE, "succeeded", {}, False, 0, "sweep succeeded in 1.5 s"),
        (OFTEN, "succeeded", {"output_bytes": 1}, False, 0, "ping succeeded in 1.5 s"),
        (OFTEN, "succeeded", {}, True, 0, "ping succeeded again in 1.5 s"),
        (OFTEN, "failed", {"reason": "KeyError: 1"}, True, 1, "ping failed after 1.5 s: KeyError: 1"),
        (
            OFTEN,
            "failed",
            {"reason": "KeyError: 1"},
            False,
            3,
            "ping failed after 1.5 s: KeyError: 1 (3 times in a row)",
        ),
        (OFTEN, "timed_out", {"reason": "it took long"}, True, 1, "ping timed out after 1.5 s: it took long"),
        (OFTEN, "crashed", {"reason": "SIGSEGV", "duration": None}, True, 1, "ping crashed after 0 s: SIGSEGV"),
        (OFTEN, "cancelled", {"reason": "terminated"}, True, 0, "ping cancelled after 1.5 s: terminated"),
    ],
)
def test_how_a_run_ended_is_said_when_it_is_news(
    reporter: Reporter,
    kept: Kept,
    task: Task,
    outcome: str,
    fields: dict[str, Any],
    news: bool,
    failures: int,
    text: str,
) -> None:
    reporter.run_ended(task, run(Outcome(outcome), **fields), news=news, failures=failures)
    [record] = kept.records
    assert (record.text, record.event, record.task) == (text, outcome, task)
    bad = Outcome(outcome).bad
    assert record.level == (logging.ERROR if bad else logging.WARNING if outcome == "cancelled" else logging.INFO)


def test_all_runs_are_said_where_that_is_wanted(reporter: Reporter, kept: Kept) -> None:
    reporter.all_runs = True
    reporter.run_started(OFTEN, run())
    reporter.run_ended(OFTEN, run(Outcome.SUCCEEDED), news=False, failures=0)
    assert [record.text for record in kept.records] == ["ping started", "ping succeeded in 1.5 s"]


def test_whose_start_was_said_has_its_end_said(reporter: Reporter, kept: Kept) -> None:
    reporter.all_runs = True
    reporter.run_started(OFTEN, run())
    reporter.all_runs = False
    reporter.run_ended(OFTEN, run(Outcome.SUCCEEDED), news=False, failures=0)
    reporter.run_ended(OFTEN, run(Outcome.SUCCEEDED), news=False, failures=0)
    assert [record.event for record in kept.records] == ["started", "succeeded"]


SAID: list[tuple[Callable[[Reporter], None], str]] = [
    (lambda r: r.site_loaded(1, "Next: ping."), "1 task. Next: ping."),
    (lambda r: r.site_loaded(6, ""), "6 tasks."),
    (
        lambda r: r.site_changed(Changes(new=["a", "b"], changed=["c"])),
        "The tasks have changed. new: a, b; changed: c.",
    ),
    (lambda r: r.site_not_loaded("it is down", ""), "The site cannot be loaded: it is down"),
    (lambda r: r.site_is_gone("it died", 0), "The site's fork server is gone: it died. It is started again now."),
    (lambda r: r.site_is_gone("it died", 60), "The site's fork server is gone: it died. It is started again in 1 min."),
    (lambda r: r.site_is_back(), "The site is loaded again."),
    (lambda r: r.reloading(), "Loading the site anew."),
    (lambda r: r.reloaded(2, "Next: ping."), "The site's new code is in use. 2 tasks. Next: ping."),
    (lambda r: r.reload_failed("no", ""), "The site's new code cannot be loaded, the old one goes on: no"),
    (lambda r: r.nothing_to_do(uses_linod=False), "This site does not use linod."),
    (lambda r: r.nothing_to_do(uses_linod=True), "This site has no scheduled jobs."),
    (lambda r: r.run_skipped(OFTEN, run(reason="busy")), f"ping, due at {clock(NOON)}, is skipped: busy"),
    (
        lambda r: r.run_skipped(OFTEN, run(reason="busy", dues=3)),
        f"ping, due 3 times up to {clock(NOON)}, is skipped: busy",
    ),
    (lambda r: r.run_lost(None, run(reason="it died")), f"app.ping, due at {clock(NOON)}, was lost: it died"),
    (lambda r: r.run_is_ended(OFTEN, run(), "too long"), "ping is ended: too long"),
    (lambda r: r.catching_up(OFTEN, run()), f"ping is caught up: its due time was missed, the last at {clock(NOON)}"),
    (
        lambda r: r.catching_up(OFTEN, run(dues=2)),
        f"ping is caught up: 2 due times were missed, the last at {clock(NOON)}",
    ),
    (lambda r: r.retrying(OFTEN, run(), 90), "ping is tried again in 1 min 30 s"),
    (lambda r: r.clock_was_set(timedelta(hours=-1)), "The clock was set back by 1 h."),
    (lambda r: r.clock_was_set(timedelta(days=1, seconds=5)), "The clock was set forward by 1 d 5 s."),
    (lambda r: r.history_back(0), "History can be written again."),
    (
        lambda r: r.history_back(2),
        "History can be written again. 2 runs missing there: there was too much to keep in memory.",
    ),
    (
        lambda r: r.history_renewed(Renewal(harm=Harm.GONE, path=Path("/h"))),
        "/h was deleted or moved away. It is written anew, with all that was in it.",
    ),
    (
        lambda r: r.history_renewed(Renewal(harm=Harm.REPLACED, path=Path("/h"), aside="/h.replaced-1")),
        "/h was replaced while the daemon runs. The other file is now /h.replaced-1, and history is written anew, with"
        " all that was in it. To put a copy back, stop the daemon first.",
    ),
    (
        lambda r: r.history_renewed(Renewal(harm=Harm.DAMAGED, path=Path("/h"), aside="/h.damaged-1", reason="bad")),
        "/h was damaged (bad). It is now /h.damaged-1, and a new history has begun: the tasks, the pauses and the runs"
        " that go on are in it. Earlier runs are no longer shown; sqlite3 /h.damaged-1 .recover may read them. See to"
        " the disk.",
    ),
    (
        lambda r: r.history_behind(1, known=True),
        "History is older than what has happened: it lacks 1 start, as after a full disk, or where an older file"
        " was put in its place. Their due times are not run again.",
    ),
    (lambda r: r.draining("SIGTERM", 0), "SIGTERM: stopping, nothing is running."),
    (lambda r: r.draining("SIGTERM", 1), "SIGTERM: stopping, waiting for 1 run to end; once more kills."),
    (lambda r: r.killing(2), "Asked again: killing 2 runs."),
    (lambda r: r.run_hidden(OFTEN, run(), 123456), "[123,456 more bytes; history keeps the last part]"),
    (lambda r: r.stopped(), "Stopped."),
]


@pytest.mark.parametrize(("say", "text"), SAID, ids=[text[:40] for _, text in SAID])
def test_what_is_said(reporter: Reporter, kept: Kept, say: Callable[[Reporter], None], text: str) -> None:
    say(reporter)
    assert [record.text for record in kept.records] == [text]


def test_tasks_that_have_not_changed_are_no_news(reporter: Reporter, kept: Kept) -> None:
    reporter.site_changed(Changes())
    assert kept.records == []


# Durations


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0004, "0 s"),
        (0.00123, "0.00123 s"),
        (1.2345, "1.23 s"),
        (9.999, "10 s"),
        (59.7, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (86400 * 3 + 5, "3 d 5 s"),
    ],
)
def test_a_duration_is_said_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts_have_their_plural() -> None:
    assert [count(number, "run") for number in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


# As text


def sink(monkeypatch: pytest.MonkeyPatch, stream: Any = None, *, systemd: bool = False) -> TextSink:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if systemd:
        status = os.fstat(2)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    made = TextSink(stream or io.StringIO())
    made.now = lambda: NOON
    return made


TIME = f"{NOON.astimezone():%H:%M:%S}"


def test_a_line_in_a_file_begins_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    text = sink(monkeypatch)
    reporter = Reporter(text)
    reporter.run_ended(OFTEN, run(Outcome.FAILED, reason="no", traceback="Traceback\n  x\n"), news=True, failures=1)
    reporter.run_wrote(OFTEN, run(), [Line(message="one"), Line(message="two\nlines"), Line(message="")])
    assert text.stream.getvalue().splitlines() == [  # type: ignore[attr-defined]
        f"{TIME} ping failed after 1.5 s: no",
        f"{TIME} Traceback",
        f"{TIME}   x",
        f"{TIME} ping: one",
        f"{TIME} ping: two",
        f"{TIME} ping: lines",
        f"{TIME} ping: ",
    ]


def test_under_systemd_each_line_says_its_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    text = sink(monkeypatch, systemd=True)
    reporter = Reporter(text)
    reporter.run_wrote(OFTEN, run(), [Line(message="bad\nworse", level=logging.ERROR, traceback="Trace\n  x")])
    reporter.stopped()
    assert text.stream.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "<3>ping: bad",
        "<3>ping: worse",
        "<3>ping: Trace",
        "<3>ping:   x",
        "<6>Stopped.",
    ]


@pytest.mark.parametrize(
    ("level", "priority"), [(10, 7), (19, 7), (20, 6), (25, 5), (30, 4), (40, 3), (50, 2), (99, 2), (0, 7)]
)
def test_levels_are_priorities_of_the_journal(level: int, priority: int) -> None:
    assert syslog_priority(level) == priority


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    text = sink(monkeypatch, Terminal())
    Reporter(text).say("watch out", logging.WARNING)
    Reporter(text).run_wrote(OFTEN, run(), [Line(message="hello")])
    assert text.stream.getvalue().splitlines() == [  # type: ignore[attr-defined]
        f"\x1b[2m{TIME} \x1b[0m\x1b[33mwatch out\x1b[0m",
        f"\x1b[2m{TIME} \x1b[0m\x1b[36mping: \x1b[0mhello\x1b[0m",
    ]


def test_who_wants_no_colour_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not TextSink(Terminal()).colour


def test_a_stream_that_is_closed_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    text = sink(monkeypatch)
    text.stream.close()
    Reporter(text).stopped()


SAY = """
from linod.daemon.plan import Changes
from linod.daemon.reporter import Reporter, standard_sink
reporter = Reporter(standard_sink())
reporter.say("caf\\udce9 \\u20ac")
reporter.say("after")
"""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_the_terminal_cannot_show_is_escaped(encoding: str) -> None:
    """A task may write anything; the line must not be lost."""
    master, slave = pty.openpty()
    with open(master, "rb", 0) as screen:
        subprocess.run(
            [sys.executable, "-c", SAY],
            cwd=ROOT,
            stdout=slave,
            env={**os.environ, "PYTHONIOENCODING": encoding, "NO_COLOR": "1"},
            check=True,
            timeout=20,
        )
        os.close(slave)
        shown = screen.read(4096).decode(encoding)
    euro = "€" if encoding == "utf-8" else r"\\u20ac"
    assert re.search(rf"caf\\udce9 {euro}\s+\S+ after", shown), shown
