"""Totals of a site's runs, for whoever watches how fast they grow: they go on when history forgets old runs.

SQLite keeps them by itself. A run is written several times, and counted when its outcome is written first, in the same
transaction: so each one is counted once, whoever writes it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime
from math import inf

# Upper bounds in seconds. Each run is kept with the bound that it was counted below, so others may be added.
DURATIONS = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0)
LATENESS = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0)
NO_BOUND = "9e999"  # as SQLite writes infinity


def bound_of(seconds: str, bounds: tuple[float, ...]) -> str:
    """In SQL: the bound that a number of seconds is counted below."""
    cases = " ".join(f"WHEN {seconds} <= {bound} THEN {bound}" for bound in bounds)
    return f"CASE {cases} ELSE {NO_BOUND} END"


LATE_BY = "max(0, new.started - new.due) / 1e6"
COUNT = f"""
    INSERT INTO totals VALUES (new.task, new.outcome, 1, coalesce(new.ended, new.started, new.due))
        ON CONFLICT DO UPDATE SET runs = runs + 1, latest = max(latest, excluded.latest);
    INSERT INTO durations
        SELECT new.task, {bound_of("new.duration", DURATIONS)}, 1, new.duration WHERE new.duration IS NOT NULL
        ON CONFLICT DO UPDATE SET runs = runs + 1, seconds = seconds + excluded.seconds;
    INSERT INTO lateness
        SELECT {bound_of(LATE_BY, LATENESS)}, 1, {LATE_BY}
        WHERE new.started IS NOT NULL AND new.trigger = 'schedule'
        ON CONFLICT DO UPDATE SET runs = runs + 1, seconds = seconds + excluded.seconds;
"""

# The runs that are known already are counted by outcome, so that nobody waits a week for a last success.
SCHEMA = f"""
CREATE TABLE totals (
    task TEXT NOT NULL,
    outcome TEXT NOT NULL,
    runs INTEGER NOT NULL,
    latest INTEGER NOT NULL,          -- when the latest of them ended
    PRIMARY KEY (task, outcome)
) WITHOUT ROWID;
CREATE TABLE durations (
    task TEXT NOT NULL,
    bound REAL NOT NULL,              -- seconds; they lasted as long at most, and longer than the bound before
    runs INTEGER NOT NULL,
    seconds REAL NOT NULL,            -- of all of them together
    PRIMARY KEY (task, bound)
) WITHOUT ROWID;
CREATE TABLE lateness (               -- of runs that a schedule has started: from their due times to their starts
    bound REAL PRIMARY KEY,
    runs INTEGER NOT NULL,
    seconds REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO totals
    SELECT task, outcome, count(*), max(coalesce(ended, started, due)) FROM runs
    WHERE outcome IS NOT NULL GROUP BY task, outcome;
CREATE TRIGGER runs_over AFTER UPDATE OF outcome ON runs WHEN old.outcome IS NULL AND new.outcome IS NOT NULL BEGIN
{COUNT}
END;
CREATE TRIGGER runs_over_at_once AFTER INSERT ON runs WHEN new.outcome IS NOT NULL BEGIN
{COUNT}
END;
"""

# A task has another id now. What was counted under the new one before is let go.
RENAME = (
    "UPDATE OR REPLACE totals SET task = ? WHERE task = ?",
    "UPDATE OR REPLACE durations SET task = ? WHERE task = ?",
)

# Totals of tasks of which nothing else is known any more.
FORGET = tuple(
    f"DELETE FROM {table} WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE id = {table}.task)"
    f" AND NOT EXISTS (SELECT 1 FROM runs WHERE task = {table}.task)"
    for table in ("totals", "durations")
)


@dataclass(frozen=True, kw_only=True)
class Total:
    """How many runs of a task had an outcome, and when the latest of them ended."""

    runs: int
    latest: datetime


class Spread:
    """How many runs took up to how many seconds: `runs` has one number for each bound, and one for those beyond."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.runs = [0] * (len(bounds) + 1)
        self.seconds = 0.0  # of all runs together

    def add(self, bound: float, runs: int, seconds: float) -> None:
        """Add what was counted below a bound. Raises ValueError for what cannot have been counted."""
        if bound <= 0 or runs < 0 or not 0 <= seconds < inf:
            raise ValueError(f"{runs!r:.50} runs took {seconds!r:.50} s")
        self.runs[bisect_left(self.bounds, bound)] += runs
        self.seconds += seconds
