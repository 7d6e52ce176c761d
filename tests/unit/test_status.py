"""The line that `systemctl status` shows."""

from datetime import UTC, datetime, timedelta
from typing import Any

from linod.daemon.agenda import Entry, LiveRun
from linod.daemon.clock import Timers, now
from linod.daemon.reporter import Reporter
from linod.daemon.status import StatusLine, describe
from linod.runs import Outcome, Run
from linod.schedules import Interval
from linod.task import Task

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PING = Task(id="app.ping", label="ping", text="", schedule=Interval(10, phase=0.0))


def live(label: str, began: float = 0.0, progress: str = "") -> LiveRun:
    task = Task(id=f"app.{label}", label=label, text="", schedule=Interval(10, phase=0.0))
    entry = Entry(task=task, position=0, since=NOON, accounted=None)
    run = Run(id=1, task=task.id, due=NOON, started=now().replace(hour=0, minute=0, second=0))
    return LiveRun(run=run, entry=entry, at=NOON, began=began, progress=progress)


def line(**given: Any) -> str:
    usual = {"tasks": 6, "live": [], "coming": "Next: ping at 20:00:00.", "failure": "", "trouble": ""}
    return describe(**usual | given)


def test_a_site_where_nothing_runs() -> None:
    assert line() == "6 tasks. Next: ping at 20:00:00."


def test_what_runs_is_named_with_its_start_and_progress() -> None:
    started = live("ping").run.started
    assert started is not None
    at = f"{started.astimezone():%H:%M:%S}"
    text = line(live=[live("tidy", began=2.0), live("ping", began=1.0, progress="3 of 10")])
    assert text.startswith("6 tasks. Running: ping since ") and at in text
    assert "(3 of 10), tidy since " in text and text.endswith(". Next: ping at 20:00:00.")


def test_of_many_runs_the_oldest_are_named() -> None:
    text = line(live=[live(f"task{number}", began=-float(number)) for number in range(50)])
    assert "Running: task49 since" in text and text.count("since") == 3 and "and 47 more." in text


def test_a_failure_and_a_history_that_cannot_be_written_are_said() -> None:
    text = line(failure="ping failed at 19:00:00: ValueError: no", trouble="disk full")
    assert text == (
        "6 tasks. History cannot be written: disk full. Next: ping at 20:00:00."
        " Last failure: ping failed at 19:00:00: ValueError: no"
    )


class Nowhere:
    def write(self, record: object) -> None: ...
    def flush(self) -> None: ...


def ended(outcome: Outcome) -> Run:
    return Run(id=1, task=PING.id, due=NOON, ended=now(), outcome=outcome, reason="ValueError: no", duration=1.0)


def test_a_failure_is_shown_until_its_task_succeeds() -> None:
    reporter = Reporter(Nowhere())
    assert reporter.describe_failure() == ""
    reporter.run_ended(PING, ended(Outcome.FAILED), news=True, failures=1)
    assert reporter.describe_failure().startswith("ping failed at ")
    assert reporter.describe_failure().endswith(": ValueError: no")
    reporter.run_ended(PING, ended(Outcome.SUCCEEDED), news=True, failures=0)
    assert reporter.describe_failure() == ""


class Told:
    """What stands in for systemd keeps what it is told."""

    wanted = True

    def __init__(self) -> None:
        self.lines: list[str] = []

    def status(self, text: str) -> None:
        self.lines.append(text)


def test_the_line_is_told_once_for_all_that_happens_within_a_second() -> None:
    told, timers, reporter = Told(), Timers(), Reporter(Nowhere())
    status = StatusLine(told, reporter, timers, lambda: f"{reporter.happened} things")  # type: ignore[arg-type]
    status.turn_finished()
    assert timers.next() is None  # nothing has happened: nobody is woken
    for _ in range(5):
        reporter.run_started(PING, Run(id=1, task=PING.id, due=NOON + timedelta(seconds=1)))
        status.turn_finished()
    wait = timers.next()
    assert wait is not None and 0.5 < wait <= 1 and told.lines == []
    status.tell()
    assert told.lines == ["5 things"]


def test_nobody_is_woken_for_a_line_that_nobody_reads() -> None:
    told, timers, reporter = Told(), Timers(), Reporter(Nowhere())
    told.wanted = False
    status = StatusLine(told, reporter, timers, lambda: "")  # type: ignore[arg-type]
    reporter.say("something")
    status.turn_finished()
    assert timers.next() is None
