"""History as the loop sees it, and its SQLite form.

The loop never waits for a disk. It hands what happened to a thread that has the writing connection; the thread writes
all that has gathered in one transaction, and tells the loop which claims are safe.

A claim says that a run will be started; it is written ahead of the due time, so that it delays nothing. The start
itself must be known even if the daemon is killed in the next instant, but cannot wait for a transaction: it is a mark
in memory, which the kernel keeps when a process dies. (When the kernel itself dies,
marks mean nothing, and a claim of another boot counts as started.)
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from .. import totals
from ..archive import FILE, PauseRecord, is_damage, row_from_run
from ..conf import Settings
from ..errors import HistoryError, LinodError, SiteLocked
from ..instants import MICROSECOND, to_micros
from ..runs import Run
from ..state import owner_name, user_name
from ..task import Task
from .batch import Batch
from .clock import monotonic, now
from .historyfile import HistoryFile, Renewal
from .marks import MARK_SLOTS, MARKS, Marks
from .past import Past, read_past
from .statements import ACCOUNT, PRUNE, SOME_TASKS, UPSERT, Statement, pausing, resuming

MOST_UNWRITTEN = MARK_SLOTS // 2  # runs begun but not written: with more, marks could overwrite each other
PRUNE_EVERY = 600.0  # seconds
PRUNED_TASKS, PRUNED_RUNS = 20, 2000  # at most, in one step
HANGS_AFTER = 5.0  # seconds for one transaction, after which nobody waits for it any more
GATHER = 0.01  # seconds between two transactions
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries to write


class History(Protocol):
    """What the loop asks of a history, wherever it is kept."""

    settings: Settings
    trouble: str  # why the last try to write failed
    taken_over: str  # by which other daemon

    def past(self) -> Past: ...
    def know(self, task: Task, position: int, since: datetime, accounted: datetime | None) -> None: ...
    def redeclare(self, task: Task, position: int) -> None: ...
    def forget(self, task: str) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def pause(self, pause: PauseRecord) -> None: ...
    def resume(self, task: str, since: datetime) -> None: ...
    def when_written(self, callback: Callable[[str], None]) -> None: ...
    def claim(self, run: Run, *, durable: bool) -> None: ...
    def mark_started(self, run: Run) -> None: ...
    def unmark_started(self, run: Run) -> None: ...
    def is_marked(self, run: Run) -> bool: ...
    def started_for_sure(self, run: Run) -> bool: ...
    def save(self, run: Run) -> None: ...
    def withdraw(self, run: Run) -> None: ...
    def write_together(self, statements: list[Statement]) -> None: ...
    def account(self, run: Run) -> None: ...
    def turn_finished(self) -> None: ...
    def patience(self) -> float | None: ...
    def fileno(self) -> int: ...
    def answers(self) -> list[tuple[int, bool]]: ...
    def renewals(self) -> list[Renewal]: ...
    def take_let_go(self) -> int: ...
    def busy(self) -> bool: ...
    def close(self, patience: float) -> bool: ...


class SqliteHistory:
    """History in one SQLite file, written by a thread of its own."""

    def __init__(self, state: Path, settings: Settings, keep_lock: Callable[[], None] = lambda: None) -> None:
        """`keep_lock`: called where the state directory was taken away; raises SiteLocked if others have the site."""
        self.settings = settings
        self.trouble = self.taken_over = ""
        path = state / FILE
        try:
            self._marks = Marks(state / MARKS)
            self._file = HistoryFile(path, keep_lock)
        except (sqlite3.Error, OSError) as error:
            raise HistoryError(
                f"The history {path} cannot be opened: {error}.",
                f"It must be writable for {user_name()} and on a disk that is not full; the directory belongs to"
                f" {owner_name(state)}.",
            ) from None
        self._wake_loop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Condition()
        self._turn = Batch()  # what has gathered in this turn; the loop's alone
        self._batch = Batch()  # what the thread takes next
        self._writing = Batch()  # what it has in hand
        self._writing_since: float | None = None
        self._answers: list[tuple[int, bool]] = []
        self._callbacks: list[tuple[Callable[[str], None], str]] = []
        self._let_go = 0
        self._closing = False
        self._next_prune = monotonic() + PRUNE_EVERY
        self._pruning: Iterator[bool] = iter(())
        self._thread = threading.Thread(target=self._write, name="history", daemon=True)

    # Called by the loop

    def past(self) -> Past:
        """What is known from before. Called once, before anything is written."""
        past = self._file.read(read_past)
        past.note_starts(self._marks.after(past.last_id), now())
        self._file.begins()
        self._thread.start()
        return past

    def know(self, task: Task, position: int, since: datetime, accounted: datetime | None) -> None:
        """Remember a task; what happened since then is judged by this."""
        values = (
            task.id,
            position,
            json.dumps(task.as_dict()),
            to_micros(since),
            None if accounted is None else to_micros(accounted),
        )
        self._turn.accounted.pop(task.id, None)
        self._turn.known.add(task.id)
        self._put_statement("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?, ?, ?)", values)

    def redeclare(self, task: Task, position: int) -> None:
        """Remember that a task whose due times are the same is declared otherwise."""
        values = (position, json.dumps(task.as_dict()), task.id)
        self._put_statement("UPDATE tasks SET position = ?, task = ? WHERE id = ?", values)

    def forget(self, task: str) -> None:
        """Let go of a task that is declared no more; its runs stay until they are too old."""
        self._put_statement("DELETE FROM tasks WHERE id = ?", (task,))
        self._put_statement("DELETE FROM troubles WHERE task = ?", (task,))

    def rename(self, old: str, new: str) -> None:
        """Give a task and its runs a new id."""
        self._turn.rename(old, new)
        self._put_statement("UPDATE OR REPLACE tasks SET id = ? WHERE id = ?", (new, old))
        self._put_statement("UPDATE OR IGNORE runs SET task = ? WHERE task = ?", (new, old))
        self._put_statement("UPDATE OR REPLACE pauses SET task = ? WHERE task = ?", (new, old))
        for statement in totals.RENAME:
            self._put_statement(statement, (new, old))
        self._put_statement("UPDATE OR REPLACE troubles SET task = ? WHERE task = ?", (new, old))

    def pause(self, pause: PauseRecord) -> None:
        """Remember that a task, or the whole site, is paused."""
        self.write_together(pausing(pause))

    def resume(self, task: str, since: datetime) -> None:
        """Remember that a pause is over: what was due before is not caught up."""
        self.write_together(resuming(task, since))

    def when_written(self, callback: Callable[[str], None]) -> None:
        """Have a function called when all that was said before is on the disk, or with the reason why it is not.

        It is called by the loop, from `answers`.
        """
        self._turn.callbacks.append(callback)
        self._turn.durable = True

    def claim(self, run: Run, *, durable: bool) -> None:
        """Say that a run will be started; `answers` tells when that is written, on the disk itself if durable."""
        self._turn.runs[run.id] = row_from_run(run)
        self._turn.claims.append(run.id)
        self._turn.durable |= durable

    def mark_started(self, run: Run) -> None:
        """Note that a run is being started, so that even SIGKILL cannot make us forget it."""
        self._marks.set(run)

    def unmark_started(self, run: Run) -> None:
        """Take the mark back: no worker could take the run."""
        self._marks.clear(run.id)

    def is_marked(self, run: Run) -> bool:
        """Whether it is known that a claim which was found without a start was started all the same."""
        return self._marks.has(run.id)

    def started_for_sure(self, run: Run) -> bool:
        """Whether a claim that was found without a start was started all the same, or must be taken for that."""
        return self._marks.unsure or self.is_marked(run)

    def save(self, run: Run) -> None:
        """Write a run as it is now."""
        self._turn.runs[run.id] = row_from_run(run)

    def withdraw(self, run: Run) -> None:
        """Take a claim back: the run was never started."""
        self._turn.runs.pop(run.id, None)
        self._turn.withdrawn.add(run.id)

    def account(self, run: Run) -> None:
        """Write a run that deals with its due time, and that it does, so that this is not caught up later."""
        self._turn.runs[run.id] = row_from_run(run)
        self._turn.account(run.task, to_micros(run.due))

    def write_together(self, statements: list[Statement]) -> None:
        """Have statements of statements.py written in one transaction."""
        self._turn.statements.add(statements)

    def turn_finished(self) -> None:
        """Have written what has gathered in one turn of the loop: all of it in one transaction, or nothing of it."""
        if self._turn:
            with self._lock:
                self._batch.put_before(self._turn)
                self._let_go += self._batch.shrink_sometimes()
                self._turn = Batch()
                self._lock.notify()
        if self._hangs():
            self._go_on_without()

    def patience(self) -> float | None:
        """Seconds until another turn should be finished, for nobody waits longer for the disk; None: nobody waits."""
        since, gathered = self._writing_since, (self._writing, self._batch)
        if since is None or not any(batch.claims or batch.callbacks for batch in gathered):
            return None
        return max(0.0, since + HANGS_AFTER - monotonic())

    def _hangs(self) -> bool:
        since = self._writing_since
        return since is not None and monotonic() - since >= HANGS_AFTER

    def _go_on_without(self) -> None:
        """The disk hangs: tasks are run all the same."""
        with self._lock:
            if not self._hangs():
                return  # it has answered at this moment
            waiting = [batch for batch in (self._writing, self._batch) if batch.claims or batch.callbacks]
            if waiting or not self.trouble:
                self.trouble = self.trouble or f"the disk has not answered for {HANGS_AFTER:g} s"
                for batch in waiting or [self._writing]:
                    self._grant(batch)

    def fileno(self) -> int:
        """Readable when there are answers."""
        return self._wake_loop

    def answers(self) -> list[tuple[int, bool]]:
        """The claims that were decided since the last call: (run, whether it may be started)."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake_loop)
        with self._lock:
            answers, self._answers = self._answers, []
            callbacks, self._callbacks = self._callbacks, []
        for callback, trouble in callbacks:
            callback(trouble)
        return answers

    def renewals(self) -> list[Renewal]:
        """Why the file had to be made anew since the last call; what was told before must then be told again."""
        waiting = self._file.renewals
        return [waiting.popleft() for _ in range(len(waiting))]

    def take_let_go(self) -> int:
        """How many runs were too many to keep in memory until they could be written, since the last call."""
        with self._lock:
            let_go, self._let_go = self._let_go, 0
        return let_go

    def busy(self) -> bool:
        """Whether so much is unwritten that no more runs should be started."""
        return len(self._batch.runs) + len(self._turn.runs) > MOST_UNWRITTEN and not self.trouble

    def close(self, patience: float) -> bool:
        """Write what is left, waiting for the disk up to so many seconds. False if something is lost."""
        self.turn_finished()
        with self._lock:
            self._closing = True
            self._lock.notify()
        if self._thread.is_alive():
            self._thread.join(patience)
        elif self._thread.ident is None:  # nobody has asked for the past
            self._marks.close()
        return not self._thread.is_alive() and not self._batch

    # In the thread

    def _write(self) -> None:
        pause = FIRST_PAUSE
        while (batch := self._next_batch()) is not None:
            try:
                refused = self._write_batch(batch)
                news, pause = self._disk_has_answered(), FIRST_PAUSE
                self._answer([(id, id not in refused) for id in batch.claims], batch.callbacks, news=news)
            except Exception as error:  # whatever it is: were this thread to end, no task would run any more
                self._writing_since = None
                if isinstance(error, SiteLocked):
                    self.taken_over = str(error)
                self.trouble = str(error) if isinstance(error, LinodError) else f"{type(error).__name__}: {error}"
                self._grant(batch)
                if self._put_back(batch, pause):
                    break
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._prune_sometimes()
        with suppress(Exception):
            self._file.ready()  # a successor finds it, also where it was taken away since the last transaction
        self._file.close()
        if not self._batch:
            with suppress(OSError):
                self._marks.close()

    def _next_batch(self) -> Batch | None:
        """Wait until there is something to write; None at the end."""
        if self._batch:
            time.sleep(GATHER)  # busy times: few large transactions leave more of the machine to the runs
        with self._lock:
            self._lock.wait_for(lambda: self._batch or self._closing)
            if not self._batch:
                return None
            batch, self._batch = self._batch, Batch()
            self._writing, self._writing_since = batch, monotonic()
            return batch

    def _disk_has_answered(self) -> bool:
        """There is no trouble any more. Whether that, or a new file, is news."""
        with self._lock:
            self._writing, self._writing_since = Batch(), None
            news, self.trouble = bool(self.trouble or self._file.renewals), ""
            return news

    def _write_batch(self, batch: Batch) -> set[int]:
        """Write a batch, into a new file where the old one is damaged. The claims that were refused."""
        try:
            refused = self._write_rows(batch)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._file.begin_anew(str(error))
            refused = self._write_rows(batch)
        self._file.written()
        self._marks.keep()
        return refused

    def _write_rows(self, batch: Batch) -> set[int]:
        """Write it in one transaction. The claims that were refused: another daemon has that due time."""
        db, refused = self._file.begin(durable=batch.durable), set[int]()
        try:
            for statement, values in batch.statements:
                db.execute(statement, values)
            if batch.withdrawn:
                db.execute(
                    "DELETE FROM runs WHERE id IN (SELECT value FROM json_each(?))",
                    (json.dumps(list(batch.withdrawn)),),
                )
            if batch.runs:
                # One statement for all rows: each statement gives the interpreter's lock away and waits for it again.
                changed = db.execute(UPSERT, (json.dumps(list(batch.runs.values())),)).rowcount
                if changed < len(batch.runs):
                    refused = not_ours(db, batch)
            if batch.accounted:
                db.execute(ACCOUNT, (json.dumps(batch.accounted),))
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return refused

    def _answer(
        self, answers: Iterable[tuple[int, bool]], callbacks: Iterable[Callable[[str], None]], *, news: bool = False
    ) -> None:
        """Wake the loop for answers, or because there is trouble or no more."""
        with self._lock:
            self._answers += answers
            self._callbacks += [(callback, self.trouble) for callback in callbacks]
            if self._answers or self._callbacks or news:
                os.eventfd_write(self._wake_loop, 1)

    def _grant(self, batch: Batch) -> None:
        """Answer claims that cannot be written: tasks go on without a history rather than stop for the want of one."""
        claims, batch.claims = batch.claims, []
        callbacks, batch.callbacks = batch.callbacks, []
        self._answer([(id, True) for id in claims], callbacks, news=True)

    def _put_back(self, batch: Batch, pause: float) -> bool:
        """Keep a batch for the next try, and wait. True when the daemon ended before."""
        deadline = monotonic() + pause
        with self._lock:
            batch.put_before(self._batch)
            self._let_go += batch.shrink()
            self._batch = batch
            if self._closing:
                return True
            while not self._closing and (rest := deadline - monotonic()) > 0:
                if self._batch.claims or self._batch.callbacks:
                    self._grant(self._batch)
                self._lock.wait_for(lambda: self._closing or self._batch.claims or self._batch.callbacks, rest)
        return False

    def _prune_sometimes(self) -> None:
        """Go on with the pruning: one step after each batch, and more as long as nothing waits to be written."""
        if monotonic() > self._next_prune:
            self._next_prune = monotonic() + PRUNE_EVERY
            self._pruning = self.prune()
        # What is wrong with the disk is told when records cannot be written; old ones may stay a while.
        with suppress(Exception):
            while self._prune_a_step() and not self._batch and not self._closing:
                pass
        self._writing_since = None

    def _prune_a_step(self) -> bool:
        """False when there was none left. As with a batch, nobody waits for it if it takes too long."""
        self._writing_since = monotonic()
        try:
            pruned = next(self._pruning, False)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._file.begin_anew(str(error))
            pruned = False
        if self._disk_has_answered():
            self._answer((), (), news=True)
        return pruned

    def prune(self) -> Iterator[bool]:
        """Delete runs that are too old or too many, a step each time; the last one of each task stays."""
        instant, day = to_micros(now()), timedelta(days=1) // MICROSECOND
        keep, keep_bad = (instant - days * day for days in (self.settings.keep_days, self.settings.keep_failures_days))
        after = ""
        while (last := self._file.ready().execute(SOME_TASKS, (after, PRUNED_TASKS)).fetchone()[0]) is not None:
            limits = (keep, keep_bad, self.settings.keep_runs, after, last, PRUNED_RUNS)
            pruned = self._file.ready().execute(PRUNE, limits).rowcount
            self._file.written()
            if pruned < PRUNED_RUNS:
                after = last
            yield True
        for statement in totals.FORGET:
            self._file.ready().execute(statement)
            self._file.written()

    def _put_statement(self, statement: str, values: tuple[Any, ...]) -> None:
        self._turn.statements.add([(statement, values)])


def not_ours(db: sqlite3.Connection, batch: Batch) -> set[int]:
    """The runs that could not be written, for somebody else's stand for their due times."""
    ids = json.dumps(list(batch.runs))
    there = db.execute("SELECT id FROM runs WHERE id IN (SELECT value FROM json_each(?))", (ids,))
    return set(batch.runs) - {id for (id,) in there}


def is_durable(task: Task) -> bool:
    """Whether a lost claim would matter: for a task whose period is an hour or more."""
    return task.schedule.period >= timedelta(hours=1).total_seconds()
