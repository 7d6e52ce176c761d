"""How history is written, in SQL: one statement for all rows of a kind.

Each statement gives the interpreter's lock away and waits for it again, so there are few.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Any

from ..alert.task import TaskAlert
from ..archive import COLUMNS, PauseRecord, storable
from ..instants import to_micros
from .alerts import Known

Statement = tuple[str, tuple[Any, ...]]

# What makes a run the one that it is stays as it was first written, but for a rename, which sees to what is in its way.
FIXED = ("id", "task", "due", "attempt", "lap")

UPSERT = """
INSERT INTO runs ({columns})
SELECT {values} FROM json_each(?) WHERE true
ON CONFLICT (id) DO UPDATE SET {updates}
ON CONFLICT (task, due, attempt, lap) DO NOTHING
""".format(
    columns=", ".join(COLUMNS),
    values=", ".join(f"json_extract(value, '$[{i}]')" for i in range(len(COLUMNS))),
    updates=", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in FIXED),
)

ACCOUNT = """
UPDATE tasks SET accounted = max(ifnull(accounted, 0), new.value)
FROM json_each(?) AS new WHERE tasks.id = new.key
"""

# The last one of the next tasks after one.
SOME_TASKS = "SELECT max(task) FROM (SELECT DISTINCT task FROM runs WHERE task > ? ORDER BY task LIMIT ?)"

PRUNE = """
DELETE FROM runs WHERE id IN (
    SELECT id FROM (
        SELECT id, outcome, due, row_number() OVER (PARTITION BY task ORDER BY id DESC) AS nth
        FROM runs WHERE outcome IS NOT NULL AND task > ?4 AND task <= ?5
    )
    WHERE nth > 1 AND CASE WHEN outcome IN ('failed', 'timed_out', 'crashed', 'lost')
        THEN due < ?2 ELSE due < ?1 OR nth > ?3 END
    LIMIT ?6
)
"""

KNOW = "INSERT OR REPLACE INTO troubles (task, trouble, since) VALUES (?, ?, ?)"
KNOW_NO_MORE = "DELETE FROM troubles WHERE task = ? AND trouble = ?"
OWE = "INSERT OR REPLACE INTO untold (number, channels, alert) VALUES (?, ?, ?)"
OWE_NO_MORE = "DELETE FROM untold WHERE number = ?"
TELL = "INSERT OR REPLACE INTO told (channel, since, number) VALUES (?, ?, ?)"

# Those that say all about one row: of which table, and how many of their values are its key.
WHOLE_ROW = {
    KNOW: ("troubles", 2),
    KNOW_NO_MORE: ("troubles", 2),
    OWE: ("untold", 1),
    OWE_NO_MORE: ("untold", 1),
    TELL: ("told", 1),
}


def pausing(pause: PauseRecord) -> list[Statement]:
    """The statements that keep a pause."""
    values = (pause.task, to_micros(pause.since), storable(pause.reason), storable(pause.by))
    return [("INSERT OR REPLACE INTO pauses (task, since, reason, by) VALUES (?, ?, ?, ?)", values)]


def resuming(task: str, since: datetime) -> list[Statement]:
    """The statements that end the pause of a task, or of the whole site where it is empty."""
    return [
        ("DELETE FROM pauses WHERE task = ?", (task,)),
        ("UPDATE tasks SET since = ?1 WHERE id = ?2 OR ?2 = ''", (to_micros(since), task)),
    ]


def knowing(known: Known) -> Statement:
    """The statement that keeps a trouble that people know of."""
    return KNOW, (known.task, str(known.trouble), to_micros(known.since))


def knowing_no_more(known: Known) -> Statement:
    """The statement for one that is over."""
    return KNOW_NO_MORE, (known.task, str(known.trouble))


def owing(alert: TaskAlert, channels: Collection[str]) -> Statement:
    """The statement that keeps an alert until people have been told by these channels; with none, it is let go."""
    if not channels:
        return OWE_NO_MORE, (alert.number,)
    return OWE, (alert.number, " ".join(channels), json.dumps(alert.as_dict()))


def telling(channel: str, since: datetime, number: int) -> Statement:
    """The statement that keeps when people were told something by a channel, and the number of the latest alert."""
    return TELL, (channel, to_micros(since), number)


class Statements:
    """Statements in their order, without those whose row a later one of them writes anew."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], Statement] = {}
        self._others = 0  # statements about any rows: what was said before them is not taken back after them

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Statement]:
        return iter(self._kept.values())

    def add(self, statements: Iterable[Statement]) -> None:
        for statement in statements:
            row = row_of(statement)
            if not row:
                self._others += 1
            self._kept[(self._others, *row)] = statement


def row_of(statement: Statement) -> tuple[Any, ...]:
    """The table and the key of the row of which a statement says all; empty for any other statement."""
    sql, values = statement
    table, columns = WHOLE_ROW.get(sql, ("", 0))
    return (table, *values[:columns]) if table else ()
