"""Pauses that are made or lifted while no daemon runs: the next one finds them in history."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..archive import FILE, connect
from ..errors import HistoryError
from .clock import now
from .lock import lock_site
from .past import read_labels, read_pauses
from .pauses import SITE, find_pausable, make_pause, say_paused, say_resumed
from .statements import pausing, resuming


def pause(state: Path, task: str, *, reason: str, by: str) -> str:
    """Pause a task, or the whole site where it is empty. Returns a sentence for who has asked.

    Raises SiteLocked where a daemon runs, which must be asked instead, UnknownTask, and HistoryError.
    """
    with own_history(state) as db:
        labels, pauses = read_labels(db), read_pauses(db)
        id = find_pausable(task, labels, pauses)
        before = pauses.get(id)
        made = make_pause(before, task=id, reason=reason, by=by, now=now())
        for statement, values in pausing(made):
            db.execute(statement, values)
        return say_paused(labels.get(id, id), made, before)


def resume(state: Path, task: str) -> str:
    """Lift a pause; what was due meanwhile will not be caught up. Otherwise like `pause`."""
    with own_history(state) as db:
        labels, pauses = read_labels(db), read_pauses(db)
        id = find_pausable(task, labels, pauses)
        before = pauses.pop(id, None)
        if before is not None:
            for statement, values in resuming(id, now()):
                db.execute(statement, values)
        return say_resumed(labels.get(id, id), before, pauses.get(SITE))


@contextmanager
def own_history(state: Path) -> Iterator[sqlite3.Connection]:
    """The history of a site that nobody else writes meanwhile, in one transaction."""
    if not state.is_dir():
        raise HistoryError(
            f"There is no {state} yet.", "It is made when the site's daemon is started for the first time."
        )
    lock = lock_site(state)
    try:
        with closing(connect(state / FILE)) as db:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
    except (sqlite3.Error, OSError) as error:
        raise HistoryError(f"The history {state / FILE} cannot be written: {error}.") from None
    finally:
        os.close(lock)
