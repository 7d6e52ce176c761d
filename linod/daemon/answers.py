"""What the daemon answers to what faces ask for over its control socket."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from ..errors import LinodError
from ..instants import to_micros
from ..names import find_task
from ..runs import Outcome
from ..task import Task
from ..wire import Amend, Ask, Cancel, Done, Pause, Reload, Resume, RunNow, Standing
from ..words import duration
from .clock import now
from .control import Caller, Request
from .history import History
from .pauses import SITE, find_pausable, make_pause, one_line, say_paused, say_resumed
from .plan import Plan
from .reporter import Reporter
from .running import Running

MOST_TOLD = 100  # runs
SHORT, LONG = 50, 500  # characters


class Site(Protocol):
    """What becomes of the site's code; loading.py."""

    waiting_for: str

    def reload(self, answer: Callable[[str], None]) -> None: ...


class Answers:
    """Does what callers ask for, and tells them how that went."""

    def __init__(self, site: Site, plan: Plan, running: Running, history: History, reporter: Reporter) -> None:
        self._site, self._plan, self._running = site, plan, running
        self._history, self._reporter = history, reporter
        self._since = now()

    def take(self, caller: Caller, request: Request) -> None:
        """Answer one request; what cannot be done is told in words."""
        try:
            match request:
                case Ask():
                    caller.tell(self._standing())
                case RunNow():
                    self._run_now(caller, request)
                case Pause():
                    self._pause(caller, request)
                case Resume():
                    self._resume(caller, request)
                case Cancel():
                    self._cancel(caller, request)
                case Amend():
                    self._amend(caller, request)
                case Reload():
                    self._reload(caller)
        except LinodError as error:
            caller.refuse(str(error))

    def _standing(self) -> Standing:
        running = self._running
        return Standing(
            pid=os.getpid(),
            since=to_micros(self._since),
            waiting_for=self._site.waiting_for[:LONG],
            draining=running.closing,
            tasks=len(self._plan.entries),
            running=[
                {
                    "run": live.run.id,
                    "task": live.task.label[:SHORT],
                    "started": to_micros(live.run.started or live.run.due),
                    "progress": live.progress[:SHORT],
                }
                for live in islice(running.live.values(), MOST_TOLD)
            ],
            alive=len(running.live),
            workers=len(running.workers),
            trouble=self._history.trouble[:LONG],
        )

    def _run_now(self, caller: Caller, request: RunNow) -> None:
        by = one_line(request.by) or caller.name
        if self._running.closing:
            return caller.refuse("the daemon is about to stop")
        if not self._plan.entries:
            reason = self._site.waiting_for
            return caller.refuse(f"the site is not loaded: {reason}" if reason else "the site is not loaded yet")
        entry = self._plan.entries[find_task(request.task, self._plan.labels())]
        live = self._running.run_now(entry, caller)
        if isinstance(live, str):
            caller.refuse(f"{entry.task.label} is not run: {live}")
        else:
            self._reporter.asked(entry.task, live.run, by)

    def _pause(self, caller: Caller, request: Pause) -> None:
        labels, pauses = self._plan.labels(), self._plan.pauses
        id = find_pausable(request.task, labels, pauses)
        before, by = pauses.get(id), one_line(request.by) or caller.name
        pause = make_pause(before, task=id, reason=request.reason, by=by, now=now())
        self._running.pause(pause)
        self._reporter.paused(labels.get(id, id), self._task(id), pause)
        self._confirm(caller, say_paused(labels.get(id, id), pause, before))

    def _resume(self, caller: Caller, request: Resume) -> None:
        labels, pauses = self._plan.labels(), self._plan.pauses
        id = find_pausable(request.task, labels, pauses)
        before = pauses.get(id)
        if before is not None:
            self._plan.unpause(id)
            self._reporter.resumed(labels.get(id, id), self._task(id), one_line(request.by) or caller.name)
        self._confirm(caller, say_resumed(labels.get(id, id), before, pauses.get(SITE)))

    def _task(self, id: str) -> Task | None:
        entry = self._plan.entries.get(id)
        return entry.task if entry else None

    def _confirm(self, caller: Caller, text: str) -> None:
        """Say that something is done, when a crash of the host could not undo it any more."""

        def written(trouble: str) -> None:
            caller.owed -= 1
            but = (
                f" But this cannot be written down, and is forgotten when the daemon ends: {trouble}."
                if trouble
                else ""
            )
            caller.tell(Done(text=text + but))

        caller.owed += 1
        self._history.when_written(written)

    def _cancel(self, caller: Caller, request: Cancel) -> None:
        reason = f"cancelled by {one_line(request.by) or caller.name}"
        live = self._running.live.get(request.run)
        if live is None:
            return self._cancel_before_it_began(caller, request.run, reason)
        name = f"{live.task.label}, run {live.run.id},"
        if live.guest is not None:
            caller.refuse(f"{name} is run by a command itself, process {live.guest.pid}; end that one")
        elif live.verdict is not None:
            caller.refuse(f"{name} is being ended already: {live.verdict_reason}")
        else:
            self._running.end(live, Outcome.CANCELLED, reason)
            grace = duration(live.task.policies.grace)
            caller.tell(Done(text=f"{name} is asked to end; if it has not within {grace}, it is killed."))

    def _cancel_before_it_began(self, caller: Caller, run: int, reason: str) -> None:
        live = self._plan.find_not_begun(run)
        if live is None:
            return caller.refuse(f"no run {run} is going on")
        self._running.cancel(live, reason)
        caller.tell(Done(text=f"{live.task.label}, run {run}, had not begun yet and will not."))

    def _amend(self, caller: Caller, request: Amend) -> None:
        if self._running.closing:
            return caller.refuse("the daemon is about to stop")
        try:
            tasks = [Task.plannable(task) for task in request.tasks]
        except (KeyError, TypeError, ValueError) as error:
            return caller.refuse(f"this is no task of linod: {error!r}")
        self._reporter.site_changed(self._plan.amend(tasks, request.gone))
        caller.tell(Done())

    def _reload(self, caller: Caller) -> None:
        def answer(problem: str) -> None:
            caller.owed -= 1
            if problem:
                caller.refuse(problem)
            else:
                caller.tell(Done(text="The site is loaded anew."))

        caller.owed += 1
        self._site.reload(answer)
