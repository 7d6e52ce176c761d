"""What runs do that people, or other programs, want to hear of: noticed here, decided in alerts.py, sent by outbox.py.

A run that waits for too long, or goes on for too long, is noticed by a timer; all else by what becomes of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from ..alert.task import LONGEST_REASON, TaskAlert
from ..conf import Settings
from ..runs import Outcome, Run, Trigger
from ..wire import Call
from ..words import duration
from . import planner, statements
from .agenda import Entry, LiveRun
from .alerts import Alerts, Known
from .children import KILLED_WITHIN
from .clock import Timer, Timers, monotonic, now
from .history import History
from .outbox import Outbox
from .past import Past
from .reporter import Reporter
from .teller import Teller, is_set

LONGEST_TEXT = 8000  # characters that a ping sends along
SHORTEST_LOOK = 0.1  # seconds between two looks at what waits


class Alerting:
    """Watches the runs of a site."""

    def __init__(self, history: History, timers: Timers, reporter: Reporter) -> None:
        self.teller = Teller(timers, reporter)
        self.why_it_waits: Callable[[LiveRun], str] = lambda live: ""
        self._outbox = Outbox(history, timers, reporter, self.teller)
        self._history, self._timers, self._reporter = history, timers, reporter
        self._changes: list[statements.Statement] = []
        self._alerts = Alerts([], 0, self._note)
        self._late_after = Settings().late_after
        self._waiting: dict[int, LiveRun] = {}  # due, and not begun
        self._look: Timer | None = None
        self._deaf: set[str] = set()  # tasks whose pings fail

    def use(self, settings: Settings, channels: Sequence[str]) -> None:
        """Go on with other settings, and the channels that the site wants."""
        self._late_after = settings.late_after
        self._outbox.use(channels, settings.alert_every)

    def resume(self, past: Past, entries: Iterable[Entry]) -> None:
        """Go on where the last daemon stopped. Called when it is known which runs were lost."""
        self._alerts = Alerts(past.alerts.known, past.alerts.last_number, self._note)
        self._outbox.resume(past.alerts)
        by_id = {entry.task.id: entry for entry in entries}
        lost = [run for run in past.unfinished if run.outcome is Outcome.LOST]
        dead = {run.task for run in lost}
        for id, run in past.last_runs.items():
            if id not in dead and (entry := by_id.get(id)):
                self._make_up(entry, run)
        for run in lost:
            if entry := by_id.get(run.task):
                self._lost(entry, run)

    def _make_up(self, entry: Entry, run: Run) -> None:
        """The last daemon may have died between a run's end and its alert."""
        if run.outcome is not Outcome.SUCCEEDED and self._alerts.is_failing(entry.task):
            return
        if run.outcome is not Outcome.LOST or not planner.wants_rerun(entry.task, run):
            self._tell(self._alerts.ended(entry.task, run, failures=entry.failures, since=entry.failing_since))

    def renamed(self, old: str, new: str) -> None:
        """A task has a new id."""
        self._alerts.renamed(old, new)

    def _lost(self, entry: Entry, run: Run) -> None:
        entry.failing_since = entry.failing_since or run.started or run.due
        self._ping(entry, run)
        if not planner.wants_rerun(entry.task, run):
            self._tell(self._alerts.ended(entry.task, run, failures=entry.failures, since=entry.failing_since))

    # What becomes of a run

    def waits(self, live: LiveRun) -> None:
        """It is due, and may have to wait."""
        if live.run.trigger is Trigger.MANUAL or not self._patience(live):
            return
        self._waiting[live.run.id] = live
        self._look_within(self._patience(live))

    def began(self, live: LiveRun) -> None:
        self._waiting.pop(live.run.id, None)
        if stuck_after := live.task.policies.stuck_after:
            cause = f"it goes on for longer than {duration(stuck_after)}"
            live.stuck = self._timers.after(stuck_after, lambda: self._is_stuck(live, cause))
        if self._alerts.is_late(live.task) and self._is_in_time(live):
            self._tell(self._alerts.began_in_time(live.task, live.run, now()))
        self._ping(live.entry, live.run)

    def is_told_to_end(self, live: LiveRun) -> None:
        """It gets a TERM now, and a KILL after its grace."""
        self._timers.cancel(live.stuck)
        patience = live.task.policies.grace + KILLED_WITHIN
        cause = f"it was killed {duration(KILLED_WITHIN)} ago and is still there"
        live.stuck = self._timers.after(patience, lambda: self._is_stuck(live, cause))

    def ended(self, live: LiveRun) -> None:
        self._timers.cancel(live.stuck)
        entry = live.entry
        self._tell(self._alerts.ended(entry.task, live.run, failures=entry.failures, since=entry.failing_since))
        self._ping(entry, live.run)

    def gave_up(self, entry: Entry, run: Run, reason: str) -> None:
        """linod has paused a task."""
        self._tell(self._alerts.paused(entry.task, run, now(), failures=entry.failures, reason=reason))

    # What takes too long

    def _patience(self, live: LiveRun) -> float:
        """Seconds that it may wait; 0: as long as it takes."""
        own = live.task.policies.late_after
        return self._late_after if own is None else own

    def _is_in_time(self, live: LiveRun) -> bool:
        if live.run.trigger is Trigger.MANUAL:
            return False  # that a person could have it run says nothing about its due times
        patience = self._patience(live)
        return not patience or (now() - live.at) / timedelta(seconds=1) <= patience

    def _look_within(self, seconds: float) -> None:
        """Look at what waits in so many seconds, unless that is to be done sooner anyway."""
        seconds = max(seconds, SHORTEST_LOOK)
        if self._look is None or not is_set(self._look) or self._look.deadline > monotonic() + seconds:
            self._timers.cancel(self._look)
            self._look = self._timers.after(seconds, self._look_at_waiting)

    def _look_at_waiting(self) -> None:
        """Tell of the runs that should have begun, and look again when the next one should have."""
        instant = now()
        self._waiting = {id: live for id, live in self._waiting.items() if not live.dropped}
        rests = []
        for live in list(self._waiting.values()):
            rest = self._patience(live) - (instant - live.at) / timedelta(seconds=1)
            if rest > 0:
                rests.append(rest)
            else:
                del self._waiting[live.run.id]
                self._is_late(live, self.why_it_waits(live))
        if rests:
            self._look_within(min(rests))

    def _is_late(self, live: LiveRun, cause: str) -> None:
        if alerts := self._alerts.late(live.task, live.run, live.at, now(), cause):
            self._reporter.run_is_late(live.task, live.run, cause)
            self._tell(alerts)

    def _is_stuck(self, live: LiveRun, cause: str) -> None:
        if live.run.ended is None and (alerts := self._alerts.stuck(live.task, live.run, now(), cause)):
            self._reporter.run_is_stuck(live.task, live.run, cause)
            self._tell(alerts)

    # Telling

    def _note(self, known: Known, knows: bool) -> None:
        self._changes.append(statements.knowing(known) if knows else statements.knowing_no_more(known))

    def _tell(self, alerts: Sequence[TaskAlert]) -> None:
        """Keep what people know now together with what they are to be told: a crash must not part them."""
        if alerts:
            changes, self._changes = self._changes, []
            self._history.write_together([*changes, *self._outbox.keep(alerts)])

    def _ping(self, entry: Entry, run: Run) -> None:
        """Call the address of the task, if it has one."""
        if not entry.task.policies.ping or run.outcome is Outcome.CANCELLED:
            return
        text = ""
        if run.outcome is None:
            moment = "start"
        elif run.outcome is Outcome.SUCCEEDED:
            moment = "success"
        else:
            moment, text = "fail", last_words(run)
        message = Call(errand=0, task=entry.task.id, moment=moment, text=text)
        self.teller.call(message, lambda problem: self._called(entry, problem))

    def _called(self, entry: Entry, problem: str) -> None:
        """Say once that the calls of a task fail, and once that they don't any more."""
        id = entry.task.id
        if bool(problem) != (id in self._deaf):
            self._deaf ^= {id}
            self._reporter.pinged(entry.task, problem)

    def statements(self) -> list[statements.Statement]:
        """All that history must know of it, where it has to begin anew."""
        return [*map(statements.knowing, self._alerts.known()), *self._outbox.statements(self._alerts.last_number)]

    # The end

    def hurry(self) -> None:
        """Tell what there is to tell without waiting for more."""
        self._outbox.hurry()

    def say_farewell(self, patience: float) -> bool:
        """All runs have ended: what there is still to do is done within so many seconds. True where that begins now."""
        self.hurry()
        return self.teller.say_farewell(patience)

    def close(self, live: Iterable[LiveRun]) -> None:
        """The daemon is about to stop. What runs may have to be told of when it ends, and then no sender can be had."""
        self.hurry()
        if self.teller.busy() or any(one.task.policies.ping for one in live):
            self.teller.stay()


def last_words(run: Run) -> str:
    """What a run said at last, for who reads of its failure elsewhere."""
    head = f"{str(run.outcome).replace('_', ' ')}: {run.reason[:LONGEST_REASON]}"
    rest = "\n".join(filter(None, [run.output, run.traceback]))
    return f"{head}\n\n{rest[-LONGEST_TEXT:]}".strip()
