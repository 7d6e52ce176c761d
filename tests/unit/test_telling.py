"""What people are told of tasks, and when: pure decisions, then when they are sent, then the words."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from selectors import DefaultSelector
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linod import web
from linod.alert import letter
from linod.alert.task import TaskAlert
from linod.conf import Settings
from linod.daemon import alerting as alerting_module
from linod.daemon import outbox as outbox_module
from linod.daemon import statements
from linod.daemon.agenda import Entry, LiveRun
from linod.daemon.alerting import Alerting, last_words
from linod.daemon.alerts import Alerts, Known, Trouble
from linod.daemon.clock import Timers
from linod.daemon.history import SqliteHistory
from linod.daemon.outbox import FIRST_PAUSE, LARGEST, LONGEST_PAUSE, MOST_KEPT, Outbox, fitting
from linod.daemon.past import Past, PastAlerts
from linod.daemon.reporter import Record, Reporter
from linod.daemon.teller import CALL_WITHIN, MOST_CALLS, Teller
from linod.daemon.workers import Worker, Workers
from linod.errors import DeclarationError, LinodError
from linod.overrides import Alert, Overrides
from linod.runs import Outcome, Run, Trigger
from linod.schedules import Interval
from linod.site import telling
from linod.site.load import Site as LoadedSite
from linod.site.mail import nobody_is_told
from linod.task import Policies, Task
from linod.wire import LARGEST as LARGEST_MESSAGE
from linod.wire import Call, Hello, Tell, Told, encode, pair
from tests.support.web import WebServer

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def task(name: str = "work", **policies: Any) -> Task:
    text = f"Every hour do {name}()"
    return Task(id=f"app.tasks.{name}", label=name, text=text, schedule=Interval(3600.0), policies=Policies(**policies))


def run(outcome: str = "failed", number: int = 1, reason: str = "ValueError: no") -> Run:
    at = NOON + number * MINUTE
    return Run(id=number, task="app.tasks.work", due=at, started=at, ended=at, outcome=Outcome(outcome), reason=reason)


class Site:
    """One task, and what people are told of it."""

    def __init__(self, *known: Known, **policies: Any) -> None:
        self.task = task(**policies)
        self.known = {each.trouble for each in known}
        self.alerts = Alerts(known, 0, self.note)
        self.failures = 0
        self.number = 0

    def note(self, known: Known, knows: bool) -> None:
        assert (known.trouble in self.known) != knows, "a change is told once"
        self.known ^= {known.trouble}

    def ends(self, *outcomes: str) -> list[str]:
        """Runs that end so, one after the other; what people are told, in short."""
        told: list[TaskAlert] = []
        for outcome in outcomes:
            self.number += 1
            if outcome != "cancelled":
                self.failures = 0 if outcome == "succeeded" else self.failures + 1
            told += self.alerts.ended(self.task, run(outcome, self.number), failures=self.failures, since=NOON)
        return [f"{alert.event} {alert.was or alert.outcome} {alert.times}" for alert in told]


# What is told


@pytest.mark.parametrize("outcome", ["failed", "timed_out", "crashed"])
def test_the_first_failure_is_told_and_no_other(outcome: str) -> None:
    assert Site().ends("succeeded", outcome, outcome, "failed") == [f"failed {outcome} 1"]


def test_a_lost_run_is_told() -> None:
    assert Site(retries=5).ends("lost", "lost") == ["lost lost 1"]


def test_the_recovery_tells_how_often_it_had_gone_wrong() -> None:
    site = Site()
    assert site.ends("failed", "crashed", "lost", "succeeded") == ["failed failed 1", "recovered failing 3"]
    assert site.ends("succeeded") == []
    assert site.ends("failed") == ["failed failed 1"]


def test_a_run_that_is_tried_again_is_no_failure_yet() -> None:
    site = Site(retries=2)
    assert site.ends("failed", "failed", "succeeded") == [], "nor is that a recovery"
    assert site.ends("failed", "failed") == []
    assert site.ends("failed") == ["failed failed 3"]


def test_that_a_run_was_cancelled_says_nothing() -> None:
    site = Site()
    assert site.ends("cancelled", "failed", "cancelled", "failed") == ["failed failed 1"]
    assert site.ends("cancelled", "succeeded") == ["recovered failing 2"]


def test_what_people_know_from_before_is_not_told_again() -> None:
    known = Known(task="app.tasks.work", trouble=Trouble.FAILING, since=NOON, times=7)
    assert Site(known).ends("failed", "succeeded") == ["recovered failing 8"]


def test_what_people_know_of_a_task_is_known_under_its_new_name() -> None:
    known = Known(task="app.tasks.old", trouble=Trouble.FAILING, since=NOON, times=7)
    site = Site(known)
    site.alerts.renamed("app.tasks.old", "app.tasks.work")
    assert site.ends("failed", "succeeded") == ["recovered failing 8"]


def test_what_people_know_of_a_task_stays_its_own_though_another_names_it_as_its_former_name() -> None:
    failing, other = Site(), Site(renamed_from="app.tasks.work")
    other.alerts, other.task = failing.alerts, replace(other.task, id="app.tasks.other")
    assert failing.ends("failed") == ["failed failed 1"]
    assert other.ends("succeeded") == failing.ends("failed") == []


def test_what_is_late_is_told_once_until_a_run_begins_in_time() -> None:
    site = Site()
    [alert] = site.alerts.late(site.task, run(), NOON, NOON + MINUTE, "it is so")
    assert (alert.event, alert.reason, alert.since) == ("late", "it is so", NOON.isoformat())
    assert site.alerts.late(site.task, run(), NOON, NOON + MINUTE, "it is so") == []
    assert site.ends("succeeded") == [], "it has ended well, but began late"
    [alert] = site.alerts.began_in_time(site.task, run(), NOON)
    assert (alert.event, alert.was) == ("recovered", "late")
    assert site.alerts.began_in_time(site.task, run(), NOON) == []


def test_what_is_stuck_is_told_once_until_a_run_succeeds() -> None:
    site = Site()
    [alert] = site.alerts.stuck(site.task, run(), NOON, "it goes on")
    assert (alert.event, alert.reason) == ("stuck", "it goes on")
    assert site.alerts.stuck(site.task, run(), NOON, "it goes on") == []
    assert site.ends("timed_out", "succeeded") == ["failed timed_out 1", "recovered failing 1", "recovered stuck 0"]


def test_that_linod_has_paused_a_task_is_told() -> None:
    site = Site()
    site.ends("failed", "failed")
    [alert] = site.alerts.paused(site.task, run(), NOON, failures=2, reason="it has failed 2 times in a row")
    assert (alert.event, alert.times, alert.since) == ("paused", 2, NOON.isoformat())


@given(st.lists(st.sampled_from(["failed", "crashed", "lost", "cancelled", "succeeded"])), st.integers(0, 3))
def test_failures_and_recoveries_take_turns(outcomes: list[str], retries: int) -> None:
    site = Site(retries=retries)
    told = [what.split()[0] for what in site.ends(*outcomes)]
    assert told[::2] == [what for what in told if what in ("failed", "lost")]
    assert told[1::2] == ["recovered"] * (len(told) // 2)
    assert (Trouble.FAILING in site.known) == bool(len(told) % 2)


# When it is sent


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class Listener:
    """A teller that notes what it is given, and says how that went."""

    def __init__(self) -> None:
        self.messages: list[Tell] = []
        self.problem = ""
        self.waits = False  # until it is told to go on
        self.go_on: Callable[[str], None]

    def tell(self, message: Tell, done: Callable[[str], None]) -> None:
        self.messages.append(message)
        if self.waits:
            self.go_on = done
        else:
            done(self.problem)


class Sink:
    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)

    def flush(self) -> None: ...
    def next_flush(self) -> None: ...
    def close(self) -> None: ...

    def said(self, event: str) -> list[str]:
        return [record.text for record in self.records if record.event == event]


class Post:
    """An outbox with a clock, and a history."""

    def __init__(self, history: SqliteHistory, clock: Clock, *wanted: str, every: float = 300.0) -> None:
        self.clock, self.sink, self.told, self.timers = clock, Sink(), Listener(), Timers()
        self.history = history
        self.outbox = Outbox(history, self.timers, Reporter(self.sink), self.told)  # type: ignore[arg-type]
        self.outbox.use(wanted or ("mail",), every)

    def keep(self, *numbers: int) -> None:
        self.history.write_together(self.outbox.keep([alert(number) for number in numbers]))

    def wait(self, seconds: float) -> list[list[int]]:
        """Let time pass; what was told meanwhile."""
        before, end = len(self.told.messages), self.clock.seconds + seconds
        while (rest := self.timers.next()) is not None and self.clock.seconds + rest <= end:
            self.clock.seconds += rest
            self.timers.run_due()
        self.clock.seconds = end
        return [[alert["number"] for alert in message.alerts] for message in self.told.messages[before:]]


def alert(number: int, **more: Any) -> TaskAlert:
    given = {"event": "failed", "task": "app.tasks.work", "name": "work", "at": NOON.isoformat(), "outcome": "failed"}
    return TaskAlert(number=number, **{**given, **more})


@pytest.fixture
def clock():
    clock = Clock()
    with (
        patch("linod.daemon.clock.monotonic", clock.monotonic),
        patch.object(outbox_module, "now", clock.now),
    ):
        yield clock


@pytest.fixture
def history(tmp_path: Path):
    history = SqliteHistory(tmp_path, Settings())
    history.past()
    yield history
    history.close(5.0)


def in_file(history: SqliteHistory, path: Path) -> list[tuple[int, str]]:
    assert history.close(5.0)
    with sqlite3.connect(path / "history.sqlite3") as db:
        return db.execute("SELECT number, channels FROM untold ORDER BY number").fetchall()


def test_what_changes_within_ten_seconds_is_one_mail(history: SqliteHistory, clock: Clock) -> None:
    post = Post(history, clock)
    post.keep(1)
    assert post.wait(9) == []
    post.keep(2, 3)
    assert post.wait(2) == [[1, 2, 3]]


def test_there_is_one_mail_in_five_minutes(history: SqliteHistory, clock: Clock) -> None:
    post = Post(history, clock)
    post.keep(1)
    assert post.wait(11) == [[1]]
    post.keep(2)
    assert post.wait(290) == []
    post.keep(3)
    assert post.wait(10) == [[2, 3]]


def test_an_address_hears_of_changes_sooner(history: SqliteHistory, clock: Clock) -> None:
    post = Post(history, clock, "mail", "url")
    post.keep(1)
    post.wait(11)
    post.keep(2)
    assert post.wait(11) == [[2]]
    assert post.told.messages[-1].channel == "url"


def test_what_could_not_be_sent_is_tried_again_after_growing_pauses(history: SqliteHistory, clock: Clock) -> None:
    post = Post(history, clock)
    post.told.problem = "no server"
    post.keep(1)
    assert post.wait(10 + FIRST_PAUSE) == [[1], [1]]
    post.keep(2)
    assert post.wait(2 * FIRST_PAUSE - 1) == []
    assert post.wait(1) == [[1, 2]]
    post.wait(100_000)
    assert 1 <= len(post.wait(2 * LONGEST_PAUSE)) <= 2
    assert len(post.sink.said("not_alerted")) == 1
    post.told.problem = ""
    assert post.wait(LONGEST_PAUSE) == [[1, 2]]
    assert post.sink.said("alerted") == ["A mail about work was sent."]
    assert post.wait(100_000) == []


def test_where_nobody_is_to_be_told_nothing_is_kept(history: SqliteHistory, clock: Clock, tmp_path: Path) -> None:
    post = Post(history, clock)
    post.outbox.use([], 300.0)
    post.keep(1, 2)
    assert post.wait(100) == [] and not post.outbox._owed
    assert in_file(history, tmp_path) == []


def test_what_waits_for_a_channel_that_nobody_wants_any_more_is_let_go(
    history: SqliteHistory, clock: Clock, tmp_path: Path
) -> None:
    post = Post(history, clock, "mail", "url")
    post.told.problem = "no server"
    post.keep(1)
    post.wait(11)
    post.outbox.use(["mail"], 300.0)
    post.keep(2)
    post.wait(100_000)
    assert [message.alerts[-1]["number"] for message in post.told.messages if message.channel == "url"] == [1]
    assert in_file(history, tmp_path) == [(1, "mail"), (2, "mail")]


@pytest.mark.parametrize("problem", ["", "no server"])
def test_so_is_what_is_being_told_just_then(history: SqliteHistory, clock: Clock, tmp_path: Path, problem: str) -> None:
    post = Post(history, clock, "url")
    post.told.waits = True
    post.keep(1)
    post.wait(11)
    post.outbox.use([], 300.0)
    post.told.go_on(problem)
    assert post.wait(100_000) == []
    assert len(post.sink.said("alerted")) == (not problem) and not post.sink.said("not_alerted")
    post.outbox.use(["url"], 300.0)
    post.keep(2)
    assert post.wait(11) == [[2]]
    assert in_file(history, tmp_path) == [(2, "url")]


def test_the_signal_is_sent_once_whatever_receivers_do(history: SqliteHistory, clock: Clock) -> None:
    post = Post(history, clock, "signal")
    post.told.problem = "a receiver has raised"
    post.keep(1)
    assert post.wait(100_000) == [[1]]


def test_what_is_not_told_yet_is_told_by_the_next_daemon(history: SqliteHistory, clock: Clock, tmp_path: Path) -> None:
    post = Post(history, clock, "mail", "url")
    post.told.problem = "no server"
    post.keep(1, 2)
    post.wait(11)
    assert in_file(history, tmp_path) == [(1, "mail url"), (2, "mail url")]

    later = SqliteHistory(tmp_path, Settings())
    past = later.past().alerts
    assert past.last_number == 2
    post = Post(later, clock, "mail")
    post.outbox.resume(past)
    assert post.wait(11) == [[1, 2]]
    assert in_file(later, tmp_path) == [], "and nobody wants to be told by the address any more"


def test_a_daemon_that_is_restarted_writes_no_more_mails(history: SqliteHistory, clock: Clock, tmp_path: Path) -> None:
    post = Post(history, clock)
    post.keep(1)
    assert post.wait(11) == [[1]]
    history.close(5.0)

    later = SqliteHistory(tmp_path, Settings())
    post = Post(later, clock)
    post.outbox.resume(later.past().alerts)
    post.keep(2)
    assert post.wait(280) == []
    assert post.wait(20) == [[2]]
    later.close(5.0)


def test_of_too_many_changes_the_oldest_are_counted(history: SqliteHistory, clock: Clock, tmp_path: Path) -> None:
    post = Post(history, clock)
    post.told.problem = "no server"
    post.keep(*range(1, MOST_KEPT + 51))
    post.wait(11)
    message = post.told.messages[-1]
    assert message.alerts[0]["number"] == 51
    assert len(message.alerts) + message.more == MOST_KEPT + 50
    assert len(in_file(history, tmp_path)) == MOST_KEPT


def test_what_is_told_while_others_come_is_not_counted_as_left_out(history: SqliteHistory, clock: Clock) -> None:
    post = Post(history, clock)
    post.told.waits = True
    post.keep(*range(1, 11))
    assert post.wait(11) == [[*range(1, 11)]]
    post.keep(*range(11, MOST_KEPT + 13))
    post.told.go_on("")
    assert post.wait(300)[0][0] == 13
    message = post.told.messages[-1]
    assert len(message.alerts) + message.more == MOST_KEPT + 2, "two had to be left out"


@given(st.integers(0, 400), st.integers(0, 2000), st.sampled_from(["x", "é", "\n", "\ud800"]))
def test_a_message_is_never_too_large(number: int, size: int, letter: str) -> None:
    alerts = [alert(n, reason=letter * 200, detail=letter * size) for n in range(number)]
    named, more = fitting(alerts)
    assert len(named) + more == number and (named or not number)
    assert len(encode(Tell(errand=1, channel="mail", alerts=named, more=more))) < LARGEST_MESSAGE
    if number * (size + 300) * 6 < LARGEST:
        assert [one["detail"] for one in named] == [one.detail for one in alerts]


def test_what_history_holds_that_linod_has_not_written_is_left_out(tmp_path: Path) -> None:
    history = SqliteHistory(tmp_path, Settings())
    history.past()
    bad = [
        ("INSERT INTO troubles VALUES (?, ?, ?)", ("app.tasks.work", "sad", 1)),
        ("INSERT INTO untold VALUES (?, ?, ?)", (4, "mail", "{]")),
        ("INSERT INTO untold VALUES (?, ?, ?)", (5, "mail", "[]")),
        ("INSERT INTO untold VALUES (?, ?, ?)", (6, "mail", '{"number": "x"}')),
        statements.knowing(Known(task="app.tasks.work", trouble=Trouble.LATE, since=NOON)),
    ]
    history.write_together(bad)
    assert history.close(5.0)
    later = SqliteHistory(tmp_path, Settings())
    past = later.past().alerts
    late = Known(task="app.tasks.work", trouble=Trouble.LATE, since=NOON)
    assert past == PastAlerts(known=[late], untold=[], told={}, last_number=6)
    later.close(5.0)


@pytest.mark.parametrize("letter", ["x", "\n", "\ud800", "\U0001f600"])
def test_so_is_no_ping(letter: str) -> None:
    text = last_words(replace(run(reason=letter * 150_000), output=letter * 150_000, traceback=letter * 150_000))
    assert len(encode(Call(errand=2**53, task="app.tasks.work", moment="fail", text=text))) < LARGEST_MESSAGE


def test_what_is_too_large_to_be_said_ends_nothing() -> None:
    ours, theirs = pair()
    with ours, theirs:
        workers = Workers(DefaultSelector(), Timers(), 0, None)  # type: ignore[arg-type]
        worker = Worker(serial=1, channel=ours, pipe=0, server=None)  # type: ignore[arg-type]
        assert not workers.say(worker, Call(errand=1, task="work", moment="fail", text="x" * LARGEST_MESSAGE))
        assert workers.say(worker, Call(errand=2, task="work", moment="fail", text="x"))


def test_numbers_go_on_in_a_history_that_began_anew(history: SqliteHistory, tmp_path: Path) -> None:
    alerting = Alerting(history, Timers(), Reporter(Sink()))
    alerting.use(Settings(), ["mail"])
    alerting.resume(Past(alerts=PastAlerts(told={"mail": NOON}, last_number=77)), [])
    history.write_together(alerting.statements())
    assert history.close(5.0)
    later = SqliteHistory(tmp_path, Settings())
    assert later.past().alerts.last_number == 77
    later.close(5.0)


# What the last daemon may have left untold


LOST, FAILED = run("lost", 1), run("failed", 1)


@pytest.mark.parametrize(
    ("policies", "last", "unfinished", "failures", "told"),
    [
        ({}, FAILED, [], 1, ["failed 1"]),
        ({}, LOST, [], 1, ["lost 1"]),
        ({"rerun_lost": True}, LOST, [], 1, []),
        ({"rerun_lost": True}, replace(LOST, trigger=Trigger.RERUN), [], 2, ["lost 2"]),
        ({"rerun_lost": True}, FAILED, [run("lost", 2)], 2, []),
        ({"retries": 1}, FAILED, [run("lost", 2)], 2, ["lost 2"]),
    ],
)
def test_the_next_daemon_tells_what_was_left_untold(
    history: SqliteHistory, policies: dict[str, Any], last: Run, unfinished: list[Run], failures: int, told: list[str]
) -> None:
    alerting = Alerting(history, Timers(), Reporter(Sink()))
    alerting.use(Settings(), ["mail"])
    entry = Entry(task=task(**policies), position=0, since=NOON, accounted=None, failures=failures)
    alerting.resume(Past(last_runs={last.task: last}, unfinished=unfinished), [entry])
    waiting = alerting._outbox._channels["mail"].waiting
    assert [f"{alert.event} {alert.times}" for alert in waiting] == told


# What takes too long


class Watch:
    """What watches runs, with a clock and a history."""

    def __init__(self, history: SqliteHistory, clock: Clock) -> None:
        self.clock, self.sink, self.timers = clock, Sink(), Timers()
        self.alerting = Alerting(history, self.timers, Reporter(self.sink))
        self.alerting.why_it_waits = lambda live: "it is so"
        self.alerting.use(Settings(late_after=300), [])
        self.number = 0

    def due(self, task: Task, trigger: Trigger = Trigger.SCHEDULE) -> LiveRun:
        self.number += 1
        at = self.clock.now()
        entry = Entry(task=task, position=0, since=NOON, accounted=None)
        live = LiveRun(run=Run(id=self.number, task=task.id, due=at, trigger=trigger), entry=entry, at=at)
        self.alerting.waits(live)
        return live

    def begin(self, live: LiveRun) -> LiveRun:
        live.run.started = self.clock.now()
        self.alerting.began(live)
        return live

    def wait(self, seconds: float) -> list[str]:
        """Let time pass; what was noticed meanwhile."""
        before, end = len(self.sink.records), self.clock.seconds + seconds
        while (rest := self.timers.next()) is not None and self.clock.seconds + rest <= end:
            self.clock.seconds += rest
            self.timers.run_due()
        self.clock.seconds = end
        return [record.event for record in self.sink.records[before:]]


@pytest.fixture
def watch(history: SqliteHistory, clock: Clock):
    with (
        patch.object(alerting_module, "now", clock.now),
        patch.object(alerting_module, "monotonic", clock.monotonic),
    ):
        yield Watch(history, clock)


def test_each_run_is_late_after_its_own_time(watch: Watch) -> None:
    watch.due(task("patient"))
    watch.due(task("hasty", late_after=3.0))
    watch.due(task("never", late_after=0.0))
    watch.due(task("asked"), Trigger.MANUAL)
    assert watch.wait(2) == []
    assert watch.wait(2) == ["late"]
    assert watch.wait(290) == []
    assert watch.wait(10) == ["late"]
    assert watch.wait(10_000) == [] and watch.timers.next() is None


def test_a_run_that_has_begun_or_was_dropped_is_not_late(watch: Watch) -> None:
    watch.begin(watch.due(task("one")))
    watch.due(task("other")).dropped = True
    assert watch.wait(10_000) == [] and watch.timers.next() is None


def test_a_run_is_stuck_after_its_time_or_when_no_signal_ends_it(watch: Watch) -> None:
    watch.begin(watch.due(task("slow", stuck_after=60.0)))
    ended = watch.begin(watch.due(task("quick", stuck_after=60.0)))
    ended.run.outcome, ended.run.ended = Outcome.SUCCEEDED, watch.clock.now()
    watch.alerting.ended(ended)
    assert watch.wait(59) == []
    assert watch.wait(2) == ["stuck"]
    killed = watch.begin(watch.due(task("hard", grace=5.0)))
    watch.alerting.is_told_to_end(killed)
    assert watch.wait(14) == []
    assert watch.wait(2) == ["stuck"]


# Who sends it


class Pool:
    """Workers of whom one may become the sender."""

    def __init__(self) -> None:
        self.settings, self.server = Settings(), object()
        self.born: list[Any] = []
        self.said: list[Any] = []
        self.ended = 0

    def bear_sender(self, hears: Callable[[Any], None]) -> Any:
        worker = type("Worker", (), {"runs": 0, "server": self.server, "hears": staticmethod(hears)})()
        self.born.append(worker)
        return worker if self.server else None

    def say(self, worker: Any, message: Any) -> bool:
        self.said.append(replace(message))
        return True

    def end(self, worker: Any) -> None:
        self.ended += 1

    def dismiss(self, worker: Any, reason: str) -> None: ...

    def hello(self) -> None:
        self.born[-1].hears(Hello(pid=2, memory=1))

    def answer(self, problem: str = "") -> None:
        self.born[-1].hears(Told(errand=self.said[-1].errand, problem=problem))


class Errands:
    """A teller with its pool, and how errands went."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.sink, self.pool, self.timers = clock, Sink(), Pool(), Timers()
        self.teller = Teller(self.timers, Reporter(self.sink))
        self.teller.workers = self.pool  # type: ignore[assignment]
        self.problems: list[str] = []

    def call(self, text: str = "") -> None:
        message = Call(errand=0, task="app.tasks.work", moment="start", text=text)
        self.teller.call(message, self.problems.append)

    def wait(self, seconds: float) -> None:
        self.clock.seconds += seconds
        self.timers.run_due()


def test_errands_are_done_one_after_the_other_and_mails_first(clock: Clock) -> None:
    errands = Errands(clock)
    errands.call("one")
    errands.call("two")
    assert errands.pool.said == [], "nobody is there yet"
    errands.pool.hello()
    errands.teller.tell(Tell(errand=0, channel="mail", alerts=[]), errands.problems.append)
    errands.pool.answer()
    errands.pool.answer("no server")
    errands.pool.answer()
    kinds = [type(message).__name__ for message in errands.pool.said]
    assert kinds == ["Call", "Tell", "Call"] and errands.problems == ["", "no server", ""]
    assert len(errands.pool.born) == 1 and not errands.teller.busy()


def test_an_errand_that_takes_too_long_ends_with_its_sender(clock: Clock) -> None:
    errands = Errands(clock)
    errands.call()
    errands.call()
    errands.pool.hello()
    errands.wait(CALL_WITHIN)
    assert errands.problems == ["it took longer than 12 s"] and errands.pool.ended == 1
    assert len(errands.pool.born) == 2, "the next one has another"
    errands.pool.hello()
    errands.pool.answer()
    assert errands.problems[1:] == [""]


def test_a_sender_that_dies_is_replaced_after_a_pause(clock: Clock) -> None:
    errands = Errands(clock)
    errands.call()
    errands.call()
    errands.pool.hello()
    errands.pool.born[-1].hears(None)
    assert errands.problems == ["the process that should do it has ended"]
    assert len(errands.pool.born) == 1
    errands.wait(5)
    assert len(errands.pool.born) == 2


def test_calls_wait_while_there_can_be_no_sender(clock: Clock) -> None:
    errands = Errands(clock)
    errands.pool.server = None  # type: ignore[assignment]
    errands.call()
    errands.wait(5)
    assert errands.teller.busy() and not errands.problems
    errands.pool.server = object()
    errands.wait(5)
    errands.pool.hello()
    errands.pool.answer()
    assert errands.problems == [""]


def test_of_too_many_calls_the_oldest_are_left_out_which_is_told(clock: Clock) -> None:
    errands = Errands(clock)
    for number in range(MOST_CALLS + 5):
        errands.call(str(number))
    errands.pool.hello()
    while errands.teller.busy():
        errands.pool.answer()
    assert [message.text for message in errands.pool.said] == [str(n) for n in range(5, MOST_CALLS + 5)]
    assert errands.sink.said("ping") == [
        "Pings take longer than the runs that they tell of. The oldest are left out.",
        "5 pings had to be left out. Now all are sent again.",
    ]


def test_a_sender_with_old_code_is_replaced(clock: Clock) -> None:
    errands = Errands(clock)
    errands.call()
    errands.pool.hello()
    errands.pool.answer()
    errands.pool.server = object()
    errands.call()
    assert len(errands.pool.born) == 2


# Who is told


@pytest.mark.parametrize(
    ("linod", "alert", "hint"),
    [
        ({}, Alert(), True),
        ({"alert_tasks": False}, Alert(), False),
        ({"alert_url": "https://example.org"}, Alert(), False),
        ({}, Alert(to=("root",)), False),
        ({}, Alert(to=()), False),
    ],
)
def test_that_nobody_is_told_is_hinted_at_unless_it_is_wanted(linod: dict[str, Any], alert: Alert, hint: bool) -> None:
    site = LoadedSite(
        name="myprj",
        zone="UTC",
        uses_linod=True,
        settings=Settings(**linod),
        declarations={},
        overrides=Overrides(alert=alert),
    )
    with patch("linod.site.mail.people", return_value={"to": []}):
        assert bool(nobody_is_told(site)) == hint


# In words


def told(*alerts: TaskAlert, more: int = 0, linked: bool = True) -> tuple[str, str]:
    shown = [one.as_dict() for one in alerts]
    return letter.subject("myprj", shown, more), letter.text("myprj", "host", shown, more, linked=linked)


def test_a_mail_tells_what_has_happened_and_what_to_type() -> None:
    subject, text = told(
        alert(1, reason="ValueError: no", detail="Traceback\n  x\n", run=7, since=NOON.isoformat(), times=3)
    )
    assert subject == "myprj: work failed: ValueError: no"
    assert "The background tasks of myprj on host:\n\n* work failed: ValueError: no\n" in text
    assert " (run 7), 3 times in a row, since 20" in text
    assert "\n  linodctl why myprj work\n  linodctl show myprj 7\n  linodctl logs myprj work\n" in text
    assert "\n    Traceback\n      x\n" in text


def test_a_mail_about_much_names_some_in_its_subject() -> None:
    subject, text = told(*(alert(n, task=f"app.tasks.work{n}", name=f"work{n}") for n in range(5)), more=7)
    assert subject == "myprj: 12 changes of tasks: work0, work1, work2 and 2 more"
    assert text.count("* work") == 5 and "And 7 more changes, for which there was no room." in text


def test_a_task_that_goes_to_and_fro_is_one_paragraph() -> None:
    changes = [alert(n, event="recovered" if n % 2 else "failed", was="failing" if n % 2 else "") for n in range(9)]
    subject, text = told(*changes, alert(10, task="app.tasks.other", name="other"))
    assert subject == "myprj: 10 changes of tasks: work, other"
    assert text.count("\n* ") == 2
    assert "* work failed: \n" in text and "It goes to and fro: it had changed 8 times before that." in text


def test_a_mail_about_a_recovery_tells_since_when_it_had_been_otherwise() -> None:
    over = [alert(n, event="recovered", was=was, since=NOON.isoformat()) for n, was in enumerate(("late", "stuck"))]
    _, text = told(*over)
    assert "It had been late since 20" in text and "It had been stuck since 20" in text


def test_a_name_cannot_become_another_command() -> None:
    _, text = told(alert(1, name="x; rm -rf /"))
    assert "linodctl why myprj 'x; rm -rf /'" in text


def test_linodctl_is_not_named_where_it_does_not_know_the_site() -> None:
    assert "linodctl" not in told(alert(1), linked=False)[1]


# Addresses


@pytest.mark.claim("S45")
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hc.example/uuid", "https://hc.example/..."),
        ("http://127.0.0.1:8000/a/b?key=c#d", "http://127.0.0.1:8000/..."),
        ("https://user:password@hc.example", "https://hc.example/..."),
        ("https://[::1]:8/x", "https://[::1]:8/..."),
    ],
)
def test_of_an_address_its_host_is_shown(url: str, shown: str) -> None:
    assert web.is_url(url) and web.shown(url) == shown
    assert web.is_url(shown) and web.shown(shown) == shown, "what the daemon knows is an address as well"


@pytest.mark.parametrize(
    "value",
    ["", "hc.example", "ftp://hc.example", "file:///etc/passwd", "https://", "https://a b", "https://a:x", 7, None,
     "https://hc.example/\n", "https://hc.example/é", "https://[::1", "https://" + "a" * 2000],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_not_repeated(value: object) -> None:
    assert not web.is_url(value)
    if value is not None:
        with pytest.raises(DeclarationError, match=r"^ping= is no address on the web\.") as refused:
            Policies(ping=value)  # type: ignore[arg-type]
        assert "hc.example/é" not in str(refused.value)
    if isinstance(value, str) and value:
        with pytest.raises(LinodError, match=r"^LINOD\['alert_url'\] is no address on the web."):
            Settings(alert_url=value)


def test_a_redirection_is_followed_by_a_get_only(tmp_path: Path) -> None:
    with WebServer(tmp_path) as web:
        web.answer(301)
        telling.call(f"{web.url}/ping", None, "text/plain")
        with pytest.raises(LinodError, match=r"answers 301 \(Moved Permanently\)"):
            telling.call(f"{web.url}/hook", b"{}", "application/json")
        asked = [(request.method, request.path) for request in web.requests]
    assert asked == [("GET", "/ping"), ("GET", "/moved"), ("POST", "/hook")]


def test_a_moment_stands_before_what_follows_a_question_mark() -> None:
    assert web.below("https://hc.example/uuid", "start") == "https://hc.example/uuid/start"
    assert web.below("https://hc.example/uuid/?a=b", "fail") == "https://hc.example/uuid/fail?a=b"


@pytest.mark.claim("S45")
def test_what_leaves_the_site_has_no_secrets() -> None:
    declared = replace(task(), policies=Policies(ping="https://hc.example/secret"))
    assert "secret" not in str(declared.as_dict())
    assert Task.from_dict(declared.as_dict()).policies.ping == "https://hc.example/..."
    settings = Settings(alert_url="https://hc.example/secret").as_dict()
    assert "secret" not in str(settings) and Settings(**settings).alert_url == "https://hc.example/..."
