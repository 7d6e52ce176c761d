"""What waits to be written to history: gathered by the loop, written by a thread in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..archive import COLUMNS, TEXTS_AT
from ..runs import Outcome
from .statements import Statements

# Kept in memory while the file cannot be written.
MOST_KEPT = 20_000  # rows
MOST_TEXT = 16 << 20  # characters of what runs wrote, and of their tracebacks
SLACK = 10  # one part in so many may be added before all is looked through again

TASK, OUTCOME = COLUMNS.index("task"), COLUMNS.index("outcome")
DULL = (Outcome.SUCCEEDED, Outcome.SKIPPED)


@dataclass
class Batch:
    """What has gathered for the next transaction; only the last state of a row counts."""

    runs: dict[int, list[Any]] = field(default_factory=dict)
    withdrawn: set[int] = field(default_factory=set)
    claims: list[int] = field(default_factory=list)
    accounted: dict[str, int] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)  # tasks that begin anew: what was accounted for before is void
    renamed: list[tuple[str, str]] = field(default_factory=list)  # tasks whose runs from before have a new id
    statements: Statements = field(default_factory=Statements)
    callbacks: list[Callable[[str], None]] = field(default_factory=list)
    durable: bool = False
    rows_added: int = 0  # since it was last looked whether there is too much
    text_added: int = 0

    def __bool__(self) -> bool:
        return bool(self.runs or self.withdrawn or self.accounted or self.statements or self.callbacks)

    def account(self, task: str, due: int) -> None:
        """A due time is dealt with, and so are those before it; what deals with an earlier one may come later."""
        self.accounted[task] = max(due, self.accounted.get(task, due))

    def rename(self, old: str, new: str) -> None:
        """Give the runs of a task a new id, as the statements do that are executed before these are written."""
        self.renamed.append((old, new))
        for row in self.runs.values():
            if row[TASK] == old:
                row[TASK] = new

    def put_before(self, later: Batch) -> None:
        """Take in what has gathered since."""
        for old, new in later.renamed:
            self.rename(old, new)
        self.runs.update(later.runs)
        self.rows_added += len(later.runs)
        self.text_added += sum(map(text_of, later.runs.values()))
        for id in later.withdrawn:
            self.runs.pop(id, None)
        self.withdrawn |= later.withdrawn
        self.claims += later.claims
        for task in later.known:
            self.accounted.pop(task, None)
        self.known |= later.known
        for task, due in later.accounted.items():
            self.account(task, due)
        self.statements.add(later.statements)
        self.callbacks += later.callbacks
        self.durable |= later.durable

    def shrink_sometimes(self) -> int:
        """The same as `shrink`, at almost no cost: only when much was added since the last time."""
        if self.rows_added <= MOST_KEPT // SLACK and self.text_added <= MOST_TEXT // SLACK:
            return 0
        return self.shrink()

    def shrink(self) -> int:
        """Let go of the rows that matter least, where there is too much to keep in memory; returns how many.

        First the oldest that went well or were skipped, then the oldest that went wrong; never one that has no end yet.
        """
        self.rows_added = self.text_added = 0
        rows, text = len(self.runs), sum(map(text_of, self.runs.values()))
        too_many = []
        for id in self._least_important():
            if rows <= MOST_KEPT and text <= MOST_TEXT:
                break
            rows, text = rows - 1, text - text_of(self.runs[id])
            too_many.append(id)
        for id in too_many:
            del self.runs[id]
        return len(too_many)

    def _least_important(self) -> Iterator[int]:
        yield from (id for id, row in self.runs.items() if row[OUTCOME] in DULL)
        yield from (id for id, row in self.runs.items() if row[OUTCOME] is not None and row[OUTCOME] not in DULL)


def text_of(row: list[Any]) -> int:
    return sum(len(row[index]) for index in TEXTS_AT)
