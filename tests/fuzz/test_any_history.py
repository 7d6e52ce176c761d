"""Any history: its user may have written anything there, and every face shows it, or says what is wrong with it."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linod.archive import COLUMNS, FILE, Archive, run_from_row
from linod.conf import Settings
from linod.ctl import main
from linod.daemon.history import SqliteHistory
from linod.errors import HistoryError, LinodError
from linod.runs import Outcome, Run, Trigger
from linod.task import Policies, Task
from tests.support.ctl import CtlHost, run, task
from tests.support.texts import changed_values, encodable, numbers, texts

TABLES = {
    "runs": COLUMNS,
    "tasks": ("id", "position", "task", "since", "accounted"),
    "pauses": ("task", "since", "reason", "by"),
}
# What a column of SQLite can hold.
stored = st.one_of(
    st.none(),
    numbers.filter(lambda number: not isinstance(number, int) or abs(number) < 2**63),
    encodable,
    st.binary(max_size=8),
    st.sampled_from([*Outcome, *Trigger, "app.tasks.ping", "app.tasks.tidy"]),
)
columns = st.sampled_from([(table, column) for table, names in TABLES.items() for column in names])
TASKS = [task("ping"), task("tidy", at="20:00"), task("report", cron="5 4 * * *")]
described = changed_values(st.sampled_from([one.as_dict() for one in TASKS])).map(
    lambda one: json.dumps(one, default=str)
)
COMMANDS = (
    *(
        "sites",
        "sites --json",
        "list bad",
        "list bad --json",
        "history bad",
        "history --json",
        "history bad ping --failed",
    ),
    *("show bad 1", "show bad 2 --json", "why bad ping", "why bad tidy --json", "status bad", "status"),
)


@given(st.lists(stored, min_size=len(COLUMNS), max_size=len(COLUMNS)))
def test_a_row_is_a_run_or_refused(row: list[Any]) -> None:
    with suppress(TypeError, ValueError, OverflowError):
        assert isinstance(run_from_row(row), Run)


@given(described | encodable)
def test_a_description_is_a_task_or_refused(text: str) -> None:
    with suppress(ValueError, TypeError, KeyError):
        assert isinstance(Task.from_dict(json.loads(text)), Task)


@given(st.dictionaries(st.sampled_from(list(Policies.__dataclass_fields__)), stored, max_size=2))
def test_policies_are_refused_or_can_be_followed(said: dict[str, Any]) -> None:
    try:
        policies = Policies(**said)
    except LinodError as error:
        assert str(error)
        return
    delays = [policies.retry_after(attempt) for attempt in (1, 2, 100, policies.retries, policies.retries + 1)]
    assert all(delay is None or 0 <= delay <= 86400 for delay in delays)


class Histories:
    """A host with a good site, and one whose history is made anew for each example."""

    def __init__(self, host: CtlHost) -> None:
        self.host = host
        host.add("bad", "good")
        host.remember("good", TASKS, [run("ping")])
        pauses = [("app.tasks.tidy", 0, "why", "me")]
        host.remember("bad", TASKS, [run("ping"), run("ping", "failed"), run("ping", None), run("tidy")], pauses)
        self.path = host.var / "bad" / FILE
        self._original = self.path.read_bytes()

    def write(self, table: str, column: str, value: Any, *, free: bool = True) -> bool:
        """Let a column hold this. `free`: in tables without any type or constraint. False where SQLite refuses it."""
        for path in self.path.parent.iterdir():
            path.unlink()
        self.path.write_bytes(self._original)
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            try:
                if free:
                    db.execute(f"CREATE TABLE free ({', '.join(TABLES[table])})")
                    db.execute(f"INSERT INTO free SELECT {', '.join(TABLES[table])} FROM {table}")
                    db.execute(f"DROP TABLE {table}")
                    db.execute(f"ALTER TABLE free RENAME TO {table}")
                db.execute(f"UPDATE {table} SET {column} = ?", (value,))
            except sqlite3.Error:
                return False
        return True


@pytest.fixture
def histories() -> Iterator[Histories]:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        host = CtlHost(directory)
        host.patch(patch)
        yield Histories(host)


def ends(command: str) -> None:
    """A command ends with words, and never hides the other site."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command.split())
    assert isinstance(code, int) and 0 <= code < 126
    assert out.getvalue() or err.getvalue() or code == 0
    if command.startswith("sites"):
        assert "good" in out.getvalue()
    if command.endswith("--json") and out.getvalue():
        json.loads(out.getvalue())


@given(columns, stored)
@example(("runs", "due"), 253402300799999999)
@example(("pauses", "since"), -(2**62))
def test_every_face_shows_any_column_or_says_what_is_wrong(
    histories: Histories, column: tuple[str, str], value: Any
) -> None:
    if histories.write(*column, value):
        for command in COMMANDS:
            ends(command)


@given(described | texts)
@example("[" * 100_000)
@example('{"id": 1}')
def test_every_face_shows_any_description_or_says_what_is_wrong(histories: Histories, text: str) -> None:
    with suppress(UnicodeEncodeError):
        if histories.write("tasks", "task", text):
            for command in COMMANDS:
                ends(command)


@given(st.binary(max_size=40), st.integers(0, 40_000))
def test_every_face_says_that_a_file_is_damaged(histories: Histories, data: bytes, place: int) -> None:
    histories.write("runs", "reason", "x", free=False)
    content = bytearray(histories.path.read_bytes())
    content[place : place + len(data)] = data
    histories.path.write_bytes(content)
    for command in COMMANDS[:6]:
        ends(command)


@given(columns, stored | described)
@example(("runs", "lap"), "x")
@example(("runs", "peak_memory"), "")
@example(("pauses", "reason"), b"x")
@example(("tasks", "task"), "[" * 100_000)
def test_a_daemon_reads_the_past_or_puts_it_aside(histories: Histories, column: tuple[str, str], value: Any) -> None:
    if not histories.write(*column, value, free=False):
        return
    history = SqliteHistory(histories.path.parent, Settings())
    past = history.past()
    assert history.close(10)
    assert isinstance(past.last_id, int) and isinstance(past.lap, int)
    aside = list(histories.path.parent.glob(f"{FILE}.damaged-*"))
    assert len(past.tasks) == (0 if aside else len(TASKS)) or column == ("tasks", "id")
    for known in past.tasks.values():
        assert known.task is None or known.task.schedule.next(known.since)
    with Archive(histories.path.parent) as archive, suppress(HistoryError):
        assert len(archive.runs()) <= 4
