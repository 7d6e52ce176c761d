"""The judge: what must be true of all that happened. Each sentence of it is a function that yields what broke it."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from itertools import groupby, pairwise
from math import inf
from operator import itemgetter

from linod.daemon.plan import HANDED_ON
from linod.runs import Outcome, Run, Trigger
from linod.task import Policies

from .ledger import Line
from .model import Model

MICROSECOND = timedelta(microseconds=1)
UNHAPPY = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED)
BY_ITSELF = (Trigger.SCHEDULE, Trigger.CATCH_UP)
EARLY = 0.05  # seconds by which a retry may seem to come too early: two clocks are read one after the other
SOON = 2.0  # seconds within which a daemon notices that something is due
LATE = 10.0  # seconds by which a retry may be late on a busy machine
LATE_FOR_LOCK = 60.0  # and where it waits for its turn
UNTIL_REPEATED = 120.0  # seconds after a run began that is lost: then its repetition has begun


@dataclass(frozen=True)
class Broken:
    """A sentence that isn't true, of which task, and the runs that show it."""

    sentence: str
    task: str = ""
    runs: tuple[int, ...] = ()
    around: tuple[datetime, ...] = ()  # other instants of interest


@dataclass
class Case:
    """All that happened, after a daemon has drained between two instants of the world's clock."""

    runs: list[Run]
    lines: list[Line]
    model: Model
    policies: dict[str, Policies]
    since: datetime
    now: datetime
    upset: list[float] = field(default_factory=list)  # when a daemon ended, or the clock was set, monotonic

    def __post_init__(self):
        # What has begun keeps its number.
        self.by_id = {run.id: run for run in sorted(self.runs, key=lambda run: run.started is not None)}
        self.begun = {line.run: line for line in self.lines if line.kind == "begin"}
        self.ended = {line.run: line for line in self.lines if line.kind == "end"}
        self.attempts = defaultdict(list)
        self.of_task = defaultdict(list)
        for run in self.runs:
            self.attempts[run.task, run.due, run.attempt].append(run)
            self.of_task[run.task].append(run)

    @cached_property
    def bounds(self):
        """How often each due time must be accounted for, by task, schedule and due time."""
        return {task: self.model.bounds(task, since=self.since, now=self.now) for task in self.model.stretches}

    def certain(self):
        """How many times a due time must have been accounted for."""
        schedules = [schedule for bounds in self.bounds.values() for schedule in bounds.values()]
        return sum(least for limits in schedules for least, _most in limits.values())

    def goes_on(self, task, since, seconds):
        """Whether from an instant of the monotonic clock on nothing may have kept the daemon from repeating a run."""
        upset = any(since <= instant <= since + seconds for instant in self.upset)
        return not upset and self.model.wants(task, since, seconds)


def by_identity(runs):
    """Runs by what makes them one: the number of a record that was lost with its history may be given again."""
    return {(run.id, run.task, run.due): run for run in runs}


def judge(case):
    """All that is wrong."""
    return [broken for law in LAWS for broken in law(case)]


# The ledger and the history


def no_run_begins_twice(case):
    for run, number in Counter(line.run for line in case.lines if line.kind == "begin").items():
        if number > 1:
            yield Broken(f"run {run} has begun {number} times", case.begun[run].task, (run,))


def what_began_is_recorded(case):
    for line in case.begun.values():
        run = case.by_id.get(line.run)
        if run is None:
            yield Broken(f"run {line.run} has begun, and history does not know it", line.task)
        elif run.task != line.task or run.pid not in known_pids(run, line):
            yield Broken(f"run {run.id} was of {line.task} in process {line.pid}", run.task, (run.id,))


def known_pids(run, line):
    """A daemon that dies in the instant in which a run begins has not written where."""
    return (line.pid, None) if run.outcome is Outcome.LOST else (line.pid,)


def every_run_has_the_outcome_that_it_had(case):
    for run in case.runs:
        # The number of a record that was lost with its history may be given again.
        is_it = case.by_id[run.id] is run
        began, ended = is_it and run.id in case.begun, is_it and run.id in case.ended
        match run.outcome:
            case None:
                right = not began and run.boot == HANDED_ON
            case Outcome.SKIPPED:
                right = not began and run.started is None
            case Outcome.SUCCEEDED | Outcome.FAILED:
                right = ended
            case _:
                right = True
        if not right:
            seen = "ended" if ended else "begun" if began else "not begun"
            yield Broken(f"run {run.id} has {seen}, and its outcome is {run.outcome}", run.task, (run.id,))
        elif run.outcome not in (None, Outcome.SUCCEEDED) and not run.reason:
            yield Broken(f"run {run.id} is {run.outcome} for no reason", run.task, (run.id,))


def policies_of_overlap_and_locks_hold(case):
    for line in case.lines:
        if line.kind in ("overlap", "lock"):
            other = "another run of its task" if line.kind == "overlap" else "a run with the same lock"
            yield Broken(f"run {line.run} has begun while {other} was alive", line.task, (line.run,))


# Due times


def every_due_time_is_accounted_for(case):
    for task, bounds in case.bounds.items():
        times = defaultdict(list)  # by schedule and due time, the runs that account for it
        for run in case.of_task[task]:
            if run.attempt == 1 and run.trigger in BY_ITSELF:
                yield from account(case, run, bounds, times)
        for schedule, limits in bounds.items():
            wrong = [
                (due, f"{len(times[schedule, due])} times rather than {in_words(*limits[due])}")
                for due in sorted(limits)
                if not limits[due][0] <= len(times[schedule, due]) <= limits[due][1]
            ]
            for how, group in groupby(wrong, key=itemgetter(1)):
                dues = [due for due, _how in group]
                yield Broken(
                    f"{len(dues)} due times from {dues[0]:%F %T.%f} on are accounted for {how}",
                    task,
                    (*times[schedule, dues[0]], *neighbours(case, task, dues[0])),
                    around=(dues[0], dues[-1]),
                )


def in_words(least, most):
    return str(least) if least == most else f"{least} to {most}"


def account(case, run, bounds, times):
    """Note for which due times a run stands: its own, and those before that were missed."""
    schedules = [schedule for schedule in bounds if schedule.previous(run.due) == run.due]
    if not schedules:
        yield Broken(f"run {run.id} is for a due time of no schedule", run.task, (run.id,))
        return
    # One that still wants it, where the due times of two schedules meet.
    schedule = max(
        schedules, key=lambda schedule: bounds[schedule].get(run.due, [0, 0])[0] - len(times[schedule, run.due])
    )
    due = run.due
    for _ in range(run.dues):
        if due not in bounds[schedule]:
            yield Broken(f"run {run.id} is for {due:%F %T.%f}, when its task was not wanted", run.task, (run.id,))
            return
        times[schedule, due].append(run.id)
        due = schedule.previous(due - MICROSECOND)


def neighbours(case, task, due):
    """The runs of a task before and after a due time."""
    runs = [run for run in case.of_task[task] if run.attempt == 1]
    before = [run.id for run in runs if run.due < due]
    after = [run.id for run in runs if run.due > due]
    return (*before[-3:], *after[:3])


# Repetitions


def lost_runs_are_repeated_once_where_that_is_safe(case):
    for (task, due, attempt), runs in case.attempts.items():
        again = [run for run in case.attempts.get((task, due, attempt + 1), []) if run.trigger is Trigger.RERUN]
        lost = [run for run in runs if run.outcome is Outcome.LOST and run.trigger is not Trigger.RERUN]
        wanted = lost if case.policies[task].rerun_lost else []
        # A repetition may be let go, as anything that waits, when its task is paused or gone.
        begun = [case.begun.get(run.id) for run in wanted]
        kept = all(line and case.model.wants(task, line.monotonic, UNTIL_REPEATED) for line in begun)
        if len(again) > len(wanted) or (len(again) < len(wanted) and kept):
            ids = tuple(run.id for run in (*runs, *again))
            yield Broken(f"of attempt {attempt}, {len(wanted)} lost runs had {len(again)} repetitions", task, ids)


def retries_follow_their_policy(case):
    for run in case.runs:
        if run.trigger is not Trigger.RETRY:
            continue
        before = [
            other
            for other in case.attempts.get((run.task, run.due, run.attempt - 1), [])
            if other.outcome in UNHAPPY and other.trigger is not Trigger.MANUAL and other.id < run.id
        ]
        delay = case.policies[run.task].retry_after(run.attempt - 1)
        if not before or delay is None:
            yield Broken(f"run {run.id} is a retry of nothing", run.task, (run.id,))
            continue
        ended, began = case.ended.get(before[-1].id), case.begun.get(run.id)
        if not ended or not began or was_set_between(ended, began):
            continue
        if began.monotonic - ended.monotonic < delay - EARLY:
            yield Broken(f"run {run.id} is a retry that came too early", run.task, (before[-1].id, run.id))


def was_set_between(one, other):
    """Whether the clock was set between two lines of the ledger."""
    return abs((other.wall - one.wall) - (other.monotonic - one.monotonic)) > EARLY


def what_went_wrong_is_tried_again(case):
    for run in case.runs:
        policies, began = case.policies[run.task], case.begun.get(run.id)
        delay = policies.retry_after(run.attempt, share=1)
        if run.outcome not in UNHAPPY or run.trigger is Trigger.MANUAL or delay is None or not began:
            continue
        ended = began.monotonic + run.duration
        tried = (run.task, run.due, run.attempt + 1) in case.attempts
        patience = delay + (LATE if policies.lock is None else LATE_FOR_LOCK)
        if tried or is_superseded(case, run, delay) or not case.goes_on(run.task, ended, patience):
            continue
        if run.ended + timedelta(seconds=patience) < case.since:
            yield Broken(f"run {run.id} was {run.outcome}, and is not tried again", run.task, (run.id,))


def is_superseded(case, run, delay):
    """Whether another run of its task waited or came before a run could be tried again: that is a new try."""
    until = run.ended + timedelta(seconds=delay + SOON)
    others = [other for other in case.of_task[run.task] if other.id != run.id and other.due <= until]
    return any((other.ended or other.started or until) > run.ended for other in others)


LAWS = (
    no_run_begins_twice,
    what_began_is_recorded,
    every_run_has_the_outcome_that_it_had,
    policies_of_overlap_and_locks_hold,
    every_due_time_is_accounted_for,
    lost_runs_are_repeated_once_where_that_is_safe,
    retries_follow_their_policy,
    what_went_wrong_is_tried_again,
)


# The daemon


def judge_notices(lives, notices, watchdog):
    """What is wrong with what daemons have said to the service manager, which kills those that are silent too long."""
    for life in lives:
        for silent in silences(life, notices):
            if silent > watchdog:
                yield Broken(f"daemon {life.pid} has been silent for {silent:.1f} s")
        said = [notice.name for notice in notices.of(life.pid, "RELOADING", "MONOTONIC_USEC", "READY")]
        if said.count("RELOADING") != said.count("MONOTONIC_USEC"):
            yield Broken(f"daemon {life.pid} has told of a reload without its time")
        if not life.killed and said[-1:] == ["MONOTONIC_USEC"]:
            yield Broken(f"daemon {life.pid} has not told that its reload is over")
    if strangers := {notice.pid for notice in notices.all} - {life.pid for life in lives}:
        yield Broken(f"other processes than daemons spoke to the service manager: {sorted(strangers)}")


def silences(life, notices):
    """How many seconds a daemon let pass between two signs of life, up to its end, without those when it was frozen."""
    moments = [notice.at for notice in notices.of(life.pid, "READY", "WATCHDOG") if notice.at < life.ended]
    if moments and life.ended < inf:
        moments.append(life.ended)
    for one, other in pairwise(moments):
        yield other - one - sum(until - since for since, until in life.frozen if one <= until <= other)
