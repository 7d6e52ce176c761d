"""Every sentence that linod logs, by event. What is said here is said in one voice, whatever it is written to."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from ..runs import Outcome, Run
from ..task import Task
from ..words import brief_clock, clock, count, duration
from .clock import now
from .historyfile import Harm, Renewal
from .output import Line

if TYPE_CHECKING:
    from ..archive import PauseRecord
    from .plan import Changes

HOUR = 3600.0
MOST_NAMED = 5  # tasks in one line
TOLD_BY = {"mail": "A mail", "url": "A message to alert_url", "signal": "The signal task_alert"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One thing that linod says."""

    event: str
    text: str
    level: int = logging.INFO
    task: Task | None = None
    run: Run | None = None
    detail: str = ""  # more lines: a traceback
    line: Line | None = None  # what a task wrote


class Sink(Protocol):
    """Where records go."""

    def write(self, record: Record) -> None: ...
    def flush(self) -> None: ...
    def next_flush(self) -> float | None: ...
    def close(self) -> None: ...


@dataclass
class Reporter:
    """Says what happens. Quiet about frequent tasks that have nothing new to tell."""

    sink: Sink
    all_runs: bool = False
    happened: int = 0  # how much there was to tell, whether it was said or not
    last_failure: tuple[str, Run] | None = None  # of a task, by its label, that hasn't succeeded since
    _failing: str = ""  # how often that task has gone wrong
    _said_start: set[int] = field(default_factory=set)

    # The site

    def site_loaded(self, tasks: int, next_start: str) -> None:
        self._say("loaded", f"{count(tasks, 'task')}. {next_start}".strip())

    def not_started(self, reason: str, level: int = logging.ERROR) -> None:
        self._say("not_started", reason, level)

    def nothing_to_do(self, *, uses_linod: bool) -> str:
        """The sentence is returned as well: it is the status of the service."""
        text = "This site has no scheduled jobs." if uses_linod else "This site does not use linod."
        self._say("nothing", text)
        return text

    def site_changed(self, changes: Changes) -> None:
        parts = [
            f"{word}: {', '.join(names)}"
            for word, names in (("new", changes.new), ("gone", changes.gone), ("changed", changes.changed))
            if names
        ]
        if parts:
            self._say("changed", f"The tasks have changed. {'; '.join(parts)}.")

    def site_not_loaded(self, reason: str, traceback: str) -> None:
        self._say("not_loaded", f"The site cannot be loaded: {reason}", logging.ERROR, detail=traceback)

    def reloading(self) -> None:
        self._say("reloading", "Loading the site anew.")

    def reloaded(self, tasks: int, next_start: str) -> None:
        self._say("reloaded", f"The site's new code is in use. {count(tasks, 'task')}. {next_start}".strip())

    def reload_failed(self, reason: str, traceback: str) -> None:
        text = f"The site's new code cannot be loaded, the old one goes on: {reason}"
        self._say("reload_failed", text, logging.ERROR, detail=traceback)

    def override_complaint(self, complaint: str) -> None:
        self._say("override", complaint, logging.WARNING)

    def site_is_gone(self, how: str, pause: float) -> None:
        when = f"in {duration(pause)}" if pause else "now"
        self._say("site_gone", f"The site's fork server is gone: {how}. It is started again {when}.", logging.WARNING)

    def site_is_back(self) -> None:
        self._say("site_back", "The site is loaded again.")

    def site_has_threads(self, threads: list[str]) -> None:
        self._say(
            "threads",
            f"The site starts threads while loading ({', '.join(threads)}). A forked process can hang on their locks;"
            " if workers do, set LINOD = {'fork_server': False}.",
            logging.WARNING,
        )

    def site_wrote(self, text: str) -> None:
        for line in text.splitlines():
            self._say("site_output", line)

    def not_forked(self, reason: str) -> None:
        self._say("not_forked", f"The kernel refuses another worker: {reason}.", logging.ERROR)

    # Runs

    def run_started(self, task: Task, run: Run) -> None:
        self.happened += 1
        if self._wants(task):
            self._said_start.add(run.id)
            self._say("started", f"{task.label} started", task=task, run=run)

    def run_wrote(self, task: Task, run: Run, lines: list[Line]) -> None:
        for line in lines:
            self._say("output", line.message, line.level, task=task, run=run, detail=line.traceback, line=line)

    def run_hidden(self, task: Task, run: Run, size: int) -> None:
        self._say("output", f"[{size:,} more bytes; history keeps the last part]", task=task, run=run)

    def run_ended(self, task: Task, run: Run, *, news: bool, failures: int, since: datetime | None = None) -> None:
        """`news`: it went otherwise than last time; `failures`: how many runs in a row went wrong, `since` when.

        A failure that repeats itself is told in one line: the traceback was shown the first time, and history has it.
        """
        self.happened += 1
        self._note_failure(task.label, run, failures, since)
        said_start = run.id in self._said_start
        self._said_start.discard(run.id)
        if run.outcome is Outcome.SUCCEEDED:
            if news or run.output_bytes or said_start or self._wants(task):
                recovered = " again" if news and failures == 0 else ""
                self._say("succeeded", f"{task.label} succeeded{recovered} in {took(run)}", task=task, run=run)
            return
        assert run.outcome is not None
        level = logging.ERROR if run.outcome.bad else logging.WARNING
        times = f" ({how_often(failures, since)})" if failures > 1 and run.outcome.bad else ""
        text = f"{task.label} {run.outcome.replace('_', ' ')} after {took(run)}: {run.reason}{times}"
        detail = run.traceback if news or failures <= 1 else ""
        self._say(str(run.outcome), text, level, task=task, run=run, detail=detail)

    def run_skipped(self, task: Task | None, run: Run) -> None:
        label = task.label if task else run.task
        due = f"due at {clock(run.due)}" if run.dues == 1 else f"due {run.dues} times up to {clock(run.due)}"
        self._say("skipped", f"{label}, {due}, is skipped: {run.reason}", task=task, run=run)

    def run_lost(self, task: Task | None, run: Run) -> None:
        label = task.label if task else run.task
        self._note_failure(label, run)
        self._say(
            "lost", f"{label}, due at {clock(run.due)}, was lost: {run.reason}", logging.ERROR, task=task, run=run
        )

    def run_is_ended(self, task: Task, run: Run, reason: str) -> None:
        self._say("ending", f"{task.label} is ended: {reason}", logging.WARNING, task=task, run=run)

    def catching_up(self, task: Task, run: Run) -> None:
        missed = "its due time was missed" if run.dues == 1 else f"{run.dues} due times were missed"
        self._say("catch_up", f"{task.label} is caught up: {missed}, the last at {clock(run.due)}", task=task, run=run)

    def retrying(self, task: Task, run: Run, delay: float) -> None:
        self._say("retry", f"{task.label} is tried again in {duration(delay)}", task=task, run=run)

    def asked(self, task: Task, run: Run, by: str) -> None:
        self._say("asked", f"{task.label} is run now, asked for by {by}", task=task, run=run)

    def paused(self, label: str, task: Task | None, pause: PauseRecord) -> None:
        """`label`: that of the task, which may be declared no more; empty for the whole site."""
        reason = f": {pause.reason}" if pause.reason else ""
        text = f"{label or 'The whole site'} is paused by {pause.by}{reason}"
        self._say("paused", text, logging.WARNING, task=task)

    def resumed(self, label: str, task: Task | None, by: str) -> None:
        self._say("resumed", f"{label or 'The whole site'} is resumed by {by}", task=task)

    def claim_refused(self, task: Task, run: Run) -> None:
        self._say(
            "refused", f"{task.label}, due at {clock(run.due)}, has been seen to before", logging.WARNING, task=task
        )

    # Telling people

    def told(self, channel: str, tasks: Sequence[str], problem: str) -> None:
        """`problem`: what went wrong though it was told, as with a receiver of the site."""
        names = list(dict.fromkeys(tasks))
        more = f" and {count(len(names) - MOST_NAMED, 'more task')}" if len(names) > MOST_NAMED else ""
        what = f"{TOLD_BY[channel]} about {', '.join(names[:MOST_NAMED])}{more}"
        if problem:
            self._say("not_alerted", f"{what}: {problem}", logging.WARNING)
        else:
            self._say("alerted", f"{what} was sent.")

    def not_told(self, channel: str, alerts: int, problem: str) -> None:
        what = f"{TOLD_BY[channel]} about {count(alerts, 'change')} of tasks could not be sent: {problem}."
        self._say("not_alerted", f"{what} It is tried again, after longer and longer pauses.", logging.WARNING)

    def run_is_stuck(self, task: Task, run: Run, cause: str) -> None:
        self._say("stuck", f"{task.label} is stuck: {cause}", logging.ERROR, task=task, run=run)

    def run_is_left_behind(self, task: Task, run: Run) -> None:
        text = f"{task.label} is left behind: no signal ends it. The next daemon records it as lost when it has ended."
        self._say("stuck", text, logging.ERROR, task=task, run=run)

    def run_is_late(self, task: Task, run: Run, cause: str) -> None:
        self._say(
            "late", f"{task.label}, due at {clock(run.due)}, is late: {cause}", logging.WARNING, task=task, run=run
        )

    def pinged(self, task: Task, problem: str) -> None:
        address = task.policies.ping or "its address"
        if problem:
            text = f"The pings of {task.label} to {address} fail: {problem}. This is said once, until they work again."
            self._say("ping", text, logging.WARNING, task=task)
        else:
            self._say("ping", f"The pings of {task.label} to {address} work again.", task=task)

    def calls_too_slow(self) -> None:
        text = "Pings take longer than the runs that they tell of. The oldest are left out."
        self._say("ping", text, logging.WARNING)

    def calls_left_out(self, number: int) -> None:
        self._say("ping", f"{count(number, 'ping')} had to be left out. Now all are sent again.", logging.WARNING)

    # The daemon

    def clock_was_set(self, moved: timedelta) -> None:
        direction = "forward" if moved > timedelta() else "back"
        self._say("clock", f"The clock was set {direction} by {duration(abs(moved).total_seconds())}.", logging.WARNING)

    def record_from_the_future(self, task: Task, latest: datetime) -> None:
        text = f"What history says of {task.label} is of {clock(latest)}, which is far ahead; this is ignored."
        self._say("future", text, logging.WARNING, task=task)

    def history_trouble(self, reason: str) -> None:
        text = f"History cannot be written ({reason}). Tasks go on; what happens is kept in memory until it can."
        self._say("history", text, logging.ERROR)

    def history_back(self, let_go: int) -> None:
        missing = f" {count(let_go, 'run')} missing there: there was too much to keep in memory." if let_go else ""
        self._say("history", f"History can be written again.{missing}", logging.WARNING if let_go else logging.INFO)

    def history_renewed(self, renewal: Renewal) -> None:
        self._say("history_renewed", describe_renewal(renewal), logging.ERROR)

    def taken_over(self, reason: str) -> None:
        self._say("history_renewed", f"{reason} This one stops.", logging.ERROR)

    def history_behind(self, starts: int, *, known: bool) -> None:
        """`known`: which due times they were for."""
        not_again = "Their due times are not run again." if known else "No due time before now is caught up."
        text = (
            f"History is older than what has happened: it lacks {count(starts, 'start')}, as after a full disk,"
            f" or where an older file was put in its place. {not_again}"
        )
        self._say("history_renewed", text, logging.WARNING)

    def draining(self, signal_name: str, alive: int) -> None:
        what = f"waiting for {count(alive, 'run')} to end; once more kills" if alive else "nothing is running"
        self._say("draining", f"{signal_name}: stopping, {what}.")

    def killing(self, alive: int) -> None:
        self._say("killing", f"Asked again: killing {count(alive, 'run')}.", logging.WARNING)

    def stopped(self) -> None:
        self._say("stopped", "Stopped.")

    def notify_trouble(self, complaint: str) -> None:
        self._say("notify", complaint, logging.WARNING)

    def bug(self, text: str, traceback: str) -> None:
        self._say("bug", f"A fault of linod itself: {text}", logging.CRITICAL, detail=traceback)

    def turn_finished(self) -> None:
        """Let all that was said in one turn of the loop be read."""
        self.sink.flush()

    def next_flush(self) -> float | None:
        """Seconds until another turn should be finished, because not all could be written; None: all is."""
        return self.sink.next_flush()

    def close(self) -> None:
        """Let all that was said be read before this process ends."""
        self.sink.close()

    def say(self, text: str, level: int = logging.INFO) -> None:
        self._say("message", text, level)

    def describe_failure(self) -> str:
        """What went wrong last, in a few words; nothing if that task has succeeded since."""
        if self.last_failure is None:
            return ""
        label, run = self.last_failure
        outcome = str(run.outcome).replace("_", " ")
        times = f" ({self._failing})" if self._failing else ""
        return f"{label} {outcome} at {short_clock(run.ended or run.due)}: {run.reason}{times}"

    def task_was_failing(self, task: Task, run: Run, failures: int, since: datetime | None) -> None:
        """The last run of a task, under the daemon before, went wrong: the status goes on saying so."""
        self._note_failure(task.label, run, failures, since)

    def _note_failure(self, label: str, run: Run, failures: int = 1, since: datetime | None = None) -> None:
        if run.outcome and run.outcome.bad:
            self.last_failure = label, run
            self._failing = how_often(failures, since) if failures > 1 else ""
        elif run.outcome is not Outcome.CANCELLED and self.last_failure and self.last_failure[1].task == run.task:
            self.last_failure = None

    def _wants(self, task: Task) -> bool:
        return self.all_runs or task.schedule.period >= HOUR

    def _say(self, event: str, text: str, level: int = logging.INFO, **more: Any) -> None:
        self.happened += 1
        self.sink.write(Record(event=event, text=text, level=level, **more))


def describe_renewal(renewal: Renewal) -> str:
    """What became of the file of history, what is lost, and what to do."""
    match renewal.harm:
        case Harm.GONE:
            return f"{renewal.path} was deleted or moved away. It is written anew, with all that was in it."
        case Harm.REPLACED:
            return (
                f"{renewal.path} was replaced while the daemon runs. The other file is now {renewal.aside}, and history"
                " is written anew, with all that was in it. To put a copy back, stop the daemon first."
            )
        case Harm.LOST:
            return (
                f"{renewal.path} was deleted, and so was the copy of it that was being written. A new history has"
                " begun: the tasks, the pauses and the runs that go on are in it. To begin anew on purpose, stop the"
                " daemon first."
            )
    kept = (
        "the tasks, the pauses and the runs that go on are in it"
        if renewal.running
        else "what was paused is paused no more, and nothing is caught up"
    )
    return (
        f"{renewal.path} was damaged ({renewal.reason}). It is now {renewal.aside}, and a new history has begun:"
        f" {kept}. Earlier runs are no longer shown; sqlite3 {renewal.aside} .recover may read them. See to the disk."
    )


class TextSink:
    """Lines for a terminal, a log file, or a service manager that reads standard output."""

    COLOURS = ((logging.ERROR, "31"), (logging.WARNING, "33"))

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.colour = stream.isatty() and "NO_COLOR" not in os.environ
        # Standard error tells it where standard output goes through a pipe.
        self.under_systemd = journal_reads(1) or journal_reads(2)
        self.now: Callable[[], datetime] = now

    def write(self, record: Record) -> None:
        head, tail = self._head(record), "\x1b[0m\n" if self.colour else "\n"
        text = record.text.rstrip("\n")
        if "\n" in text or record.detail:
            text = f"{tail}{head}".join([*text.split("\n"), *record.detail.splitlines()])
        try:
            self.stream.write(f"{head}{text}{tail}")
        except (OSError, ValueError):
            pass  # the terminal is closed; the drain that follows needs no audience

    def flush(self) -> None:
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self._go_on_unseen()

    def next_flush(self) -> float | None:
        return None

    def close(self) -> None:
        self.flush()

    def _go_on_unseen(self) -> None:
        """The terminal is gone. What is still to be written goes nowhere, else Python would complain at its end."""
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)
            self.stream.flush()

    def _head(self, record: Record) -> str:
        who = f"{record.task.label}: " if record.line and record.task else ""
        if self.under_systemd:
            return f"<{syslog_priority(record.level)}>{who}"
        time = f"{time_of_day(int(self.now().timestamp()))} "
        if not self.colour:
            return time + who
        code = next((code for level, code in self.COLOURS if record.level >= level), "")
        return f"\x1b[2m{time}\x1b[0m" + (f"\x1b[36m{who}\x1b[0m" if who else "") + (f"\x1b[{code}m" if code else "")


@lru_cache(maxsize=1)
def time_of_day(second: int) -> str:
    """The time that the host's clock shows; thousands of lines may be written in one second."""
    return f"{datetime.fromtimestamp(second):%H:%M:%S}"


def standard_sink() -> Sink:
    # A task may write what the terminal cannot show; that is no reason to lose the line.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return TextSink(sys.stdout)


def journal_reads(fd: int) -> bool:
    """Whether a descriptor is connected to the journal.

    The environment alone doesn't tell it: below another service manager it is that one's, whose output it was.
    """
    device, _colon, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def syslog_priority(level: int) -> int:
    for limit, priority in (
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (25, 5),
        (logging.INFO, 6),
    ):
        if level >= limit:
            return priority
    return 7


def short_clock(instant: datetime) -> str:
    """An instant for a person, without the day where that is today."""
    return brief_clock(instant, now())


def how_often(failures: int, since: datetime | None) -> str:
    """How long it has gone wrong."""
    return f"{count(failures, 'time')} in a row" + (f", since {short_clock(since)}" if since else "")


def took(run: Run) -> str:
    return duration(run.duration or 0.0)
