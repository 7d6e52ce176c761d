"""The history of a site: real files, written by the thread, read by others, also after a SIGKILL."""

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from linod.alert.task import TaskAlert
from linod.archive import COLUMNS, FILE, VERSION, Archive, Streak, connect, row_from_run
from linod.conf import Settings
from linod.daemon import history as history_module
from linod.daemon import statements
from linod.daemon.alerts import Known, Trouble
from linod.daemon.batch import MOST_KEPT, MOST_TEXT, TASK, Batch
from linod.daemon.clock import now
from linod.daemon.history import SqliteHistory, is_durable
from linod.daemon.marks import MARK_SLOTS
from linod.errors import HistoryError
from linod.runs import Outcome, Run, Trigger
from linod.schedules import Interval
from linod.task import Policies, Task

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
NOBODY = 65534
PATIENCE = 10.0


def run(id: int, task: str = "app.work", **fields: Any) -> Run:
    return Run(id=id, task=task, **{"due": NOON + timedelta(seconds=id)} | fields)


def task(id: str = "app.work", seconds: float = 10, **policies: Any) -> Task:
    return Task(
        id=id, label="work", text="", schedule=Interval(seconds, phase=0.0), policies=Policies(**policies), tags=("a",)
    )


Open = Callable[[], SqliteHistory]


@pytest.fixture
def history(open_history: Open) -> SqliteHistory:
    """A history that has begun."""
    history = open_history()
    history.past()
    return history


def answers(history: SqliteHistory, number: int) -> dict[int, bool]:
    """Wait for so many answers, as the loop does."""
    found: dict[int, bool] = {}
    history.turn_finished()
    end = time.monotonic() + PATIENCE
    while len(found) < number and time.monotonic() < end:
        select.select([history], [], [], 1)
        found |= dict(history.answers())
    return found


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def rows(state: Path, columns: str = "id", where: str = "true") -> list[Any]:
    """What a reader finds in the file."""
    with Archive(state) as archive:
        found = list(archive._rows(f"SELECT {columns} FROM runs WHERE {where} ORDER BY id"))
    return [row[0] if len(row) == 1 else row for row in found]


# Claims


@pytest.mark.claim("P2")
def test_a_claim_is_written_before_it_is_answered(history: SqliteHistory, tmp_path: Path) -> None:
    history.claim(run(1), durable=False)
    assert answers(history, 1) == {1: True}
    assert rows(tmp_path, "id, started, outcome") == [(1, None, None)]


def test_claims_are_answered_each_once(history: SqliteHistory) -> None:
    for id in range(1, 501):
        history.claim(run(id), durable=id % 100 == 0)
    assert answers(history, 500) == dict.fromkeys(range(1, 501), True)
    assert history.answers() == []
    assert not select.select([history], [], [], 0)[0]


@pytest.mark.claim("P2")
def test_a_due_time_is_claimed_only_once(open_history: Open) -> None:
    """Where two daemons share a history, the unique row settles who runs it."""
    one, other = open_history(), open_history()
    one.past(), other.past()
    one.claim(run(1), durable=False)
    assert answers(one, 1) == {1: True}
    other.claim(run(2, due=run(1).due), durable=False)
    other.claim(run(3), durable=False)
    assert answers(other, 2) == {2: False, 3: True}


@pytest.mark.parametrize("other", [{"attempt": 2}, {"lap": 1}, {"task": "app.other"}])
def test_another_attempt_lap_or_task_is_another_claim(history: SqliteHistory, other: dict[str, Any]) -> None:
    history.claim(run(1, due=NOON), durable=False)
    history.claim(run(2, **{"due": NOON} | other), durable=False)
    assert answers(history, 2) == {1: True, 2: True}


def test_a_claim_that_was_withdrawn_is_not_there(history: SqliteHistory, tmp_path: Path) -> None:
    history.claim(run(1), durable=False)
    history.withdraw(run(1))
    history.claim(run(2), durable=False)
    answers(history, 1)
    history.claim(run(3), durable=False)
    answers(history, 1)
    history.withdraw(run(3))
    assert history.close(PATIENCE)
    assert rows(tmp_path) == [2]


def test_a_withdrawn_due_time_can_be_claimed_again(history: SqliteHistory) -> None:
    history.claim(run(1, due=NOON), durable=False)
    answers(history, 1)
    history.withdraw(run(1, due=NOON))
    history.claim(run(2, due=NOON), durable=False)
    assert answers(history, 1) == {2: True}


@pytest.mark.claim("P25")
def test_claims_of_rare_tasks_are_durable() -> None:
    assert is_durable(task(seconds=3600))
    assert not is_durable(task(seconds=3599))


# Runs


def test_the_last_state_of_a_run_is_what_counts(history: SqliteHistory, tmp_path: Path) -> None:
    work = run(1)
    history.claim(work, durable=False)
    for number in range(100):
        work.reason = f"state {number}"
        history.save(work)
    assert history.close(PATIENCE)
    assert rows(tmp_path, "reason") == ["state 99"]


def test_a_run_is_read_as_it_was_written(history: SqliteHistory, tmp_path: Path) -> None:
    whole = run(
        1,
        due=NOON + timedelta(microseconds=1),
        lap=2,
        trigger=Trigger.CATCH_UP,
        attempt=3,
        dues=4,
        boot="boot",
        pid=5,
        born=6,
        started=NOON + timedelta(microseconds=999_999),
        ended=NOON + timedelta(days=1, microseconds=3),
        outcome=Outcome.TIMED_OUT,
        reason="it took too long",
        traceback="Traceback\n  é 😀 \"'",
        output="a\nb",
        output_bytes=1 << 40,
        duration=0.1,
        cpu=1e-9,
        peak_memory=123456,
    )
    history.save(whole)
    assert history.close(PATIENCE)
    with Archive(tmp_path) as archive:
        assert archive.run(1) == whole
        assert archive.runs() == [whole]
        assert archive.run(2) is None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("before\0after", "before\N{SYMBOL FOR NULL}after"),
        (os.fsdecode(b"caf\xe9"), "caf\\udce9"),  # what Python makes of a file name that is not UTF-8
        ("\x1b[31m\r\x7f\u2028", "\x1b[31m\r\x7f\u2028"),
    ],
)
def test_any_text_can_be_kept(history: SqliteHistory, tmp_path: Path, text: str, kept: str) -> None:
    history.save(run(1, outcome=Outcome.FAILED, reason=text, traceback=text, output=text))
    assert history.close(PATIENCE)
    with Archive(tmp_path) as archive:
        [found] = archive.runs()
    assert (found.reason, found.traceback, found.output) == (kept, kept, kept)


# Tasks


def test_a_task_is_known_at_the_next_start(history: SqliteHistory, open_history: Open) -> None:
    history.know(task(), 0, NOON, None)
    history.know(task("app.other", retries=3), 1, NOON, NOON + timedelta(hours=1))
    history.account(run(1, "app.work", due=NOON + timedelta(hours=2)))
    history.account(run(5, "app.work", due=NOON + timedelta(hours=1)))  # earlier than what was said just before
    history.account(run(2, "app.other", due=NOON))  # earlier than what is known: that stays
    history.account(run(3, "app.unknown", due=NOON))
    assert history.close(PATIENCE)
    past = open_history().past()
    assert list(past.tasks) == ["app.work", "app.other"]
    work, other = past.tasks.values()
    assert (work.task, work.since, work.accounted) == (task(), NOON, NOON + timedelta(hours=2))
    assert (other.task, other.accounted) == (task("app.other", retries=3), NOON + timedelta(hours=1))


def test_a_task_that_is_forgotten_keeps_its_runs(history: SqliteHistory, open_history: Open, tmp_path: Path) -> None:
    history.know(task(), 0, NOON, None)
    history.save(run(1, outcome=Outcome.SUCCEEDED))
    history.forget("app.work")
    assert history.close(PATIENCE)
    assert not open_history().past().tasks
    assert rows(tmp_path) == [1]


def test_a_renamed_task_keeps_its_runs(history: SqliteHistory, open_history: Open, tmp_path: Path) -> None:
    history.know(task("app.old"), 0, NOON, NOON)
    history.save(run(1, "app.old", ended=NOON, outcome=Outcome.SUCCEEDED))
    assert history.close(PATIENCE)
    again = open_history()
    again.past()
    again.rename("app.old", "app.new")
    again.know(task("app.new"), 0, NOON, NOON)
    assert again.close(PATIENCE)
    past = open_history().past()
    assert list(past.tasks) == ["app.new"]
    assert list(past.last_runs) == ["app.new"]
    assert rows(tmp_path, "task") == ["app.new"]


def test_so_do_those_that_are_not_written_yet(history: SqliteHistory, tmp_path: Path) -> None:
    """Another task may have its former name at once."""
    history.save(run(1, "app.old", outcome=Outcome.SUCCEEDED))
    history.rename("app.old", "app.new")
    history.save(run(2, "app.old", outcome=Outcome.SUCCEEDED))
    assert history.close(PATIENCE)
    assert [tuple(row) for row in rows(tmp_path, "id, task")] == [(1, "app.new"), (2, "app.old")]


def test_what_failed_to_be_written_is_renamed_by_what_comes_later() -> None:
    early, later, last = Batch(), Batch(), Batch()
    early.runs[1] = row_from_run(run(1, "app.old"))
    later.rename("app.old", "app.new")
    later.runs[2] = row_from_run(run(2, "app.old"))
    last.runs[3] = row_from_run(run(3, "app.old"))
    later.put_before(last)
    early.put_before(later)
    assert [row[TASK] for row in early.runs.values()] == ["app.new", "app.old", "app.old"]


def test_a_task_of_another_version_is_known_without_its_schedule(history: SqliteHistory, tmp_path: Path) -> None:
    assert history.close(PATIENCE)
    db = sqlite3.connect(tmp_path / FILE)
    for number, text in enumerate(['{"id": "x"}', "not json", '{"schedule": {"kind": "lunar"}}', "[]"]):
        db.execute("INSERT INTO tasks VALUES (?, ?, ?, 1, NULL)", (f"app.{number}", number, text))
    db.commit()
    db.close()
    again = SqliteHistory(tmp_path, Settings())
    assert [known.task for known in again.past().tasks.values()] == [None] * 4
    again.close(PATIENCE)


# What a new daemon finds


def test_the_latest_run_of_each_task_tells_how_it_fares(history: SqliteHistory, open_history: Open) -> None:
    for position, id in enumerate(("app.work", "app.other")):
        history.know(task(id), position, NOON, None)
    history.save(run(1, ended=NOON, outcome=Outcome.SUCCEEDED))
    history.save(run(2, ended=NOON, outcome=Outcome.FAILED))
    history.save(run(3, ended=NOON, outcome=Outcome.SKIPPED))
    history.save(run(4, "app.other", ended=NOON, outcome=Outcome.SUCCEEDED))
    history.save(run(5, "app.other", lap=7))
    assert history.close(PATIENCE)
    past = open_history().past()
    assert {task: run.id for task, run in past.last_runs.items()} == {"app.work": 2, "app.other": 4}
    assert [run.id for run in past.unfinished] == [5]
    assert (past.last_id, past.lap) == (5, 7)


def test_a_new_daemon_counts_on_how_often_a_task_has_gone_wrong(history: SqliteHistory, open_history: Open) -> None:
    for position, id in enumerate(("app.work", "app.well", "app.old")):
        history.know(task(id), position, NOON, None)
    outcomes = ["failed", "succeeded", "failed", "skipped", "cancelled", "crashed", "lost", "cancelled"]
    for number, outcome in enumerate(outcomes, start=1):
        at = NOON + timedelta(seconds=number)
        history.save(run(number, due=at, started=at, ended=at, outcome=Outcome(outcome)))
    history.save(run(20, "app.well", ended=NOON, outcome=Outcome.FAILED))
    history.save(run(21, "app.well", lap=1, ended=NOON, outcome=Outcome.SUCCEEDED))
    history.save(run(22, "app.old", ended=NOON, outcome=Outcome.FAILED))
    assert history.close(PATIENCE)
    past = open_history().past()
    assert past.streaks["app.work"] == Streak(count=3, since=NOON + timedelta(seconds=3))
    assert sorted(past.streaks) == ["app.old", "app.work"]
    past.rename("app.old", "app.new")
    assert sorted(past.streaks) == ["app.new", "app.work"]


KILLED = """
import os, select, signal, sys, threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from linod.conf import Settings
from linod.daemon.history import SqliteHistory
from linod.runs import Outcome, Run

history = SqliteHistory(Path(sys.argv[1]), Settings())
history.past()
noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
runs = [Run(id=id, task="app.work", due=noon + timedelta(seconds=id)) for id in range(1, 6)]
history.save(Run(id=6, task="app.work", due=noon, started=noon))
for run in runs:
    history.claim(run, durable=False)
history.turn_finished()
answered = []
while len(answered) < len(runs):
    select.select([history], [], [])
    answered += history.answers()
history._lock.acquire()  # from here on the thread writes nothing: all that is left are the marks
for run in runs[:3]:
    history.mark_started(run)
history.unmark_started(runs[1])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The state directory of a daemon that was killed: runs 1 and 3 of five were begun."""
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, timeout=20, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    return tmp_path


@pytest.mark.claim("P3")
def test_a_start_is_known_after_a_sigkill_in_the_next_instant(killed: Path, open_history: Open) -> None:
    history = open_history()
    past = history.past()
    assert [run.id for run in past.unfinished] == [1, 2, 3, 4, 5, 6]
    assert [run.id for run in past.unfinished if history.started_for_sure(run)] == [1, 3]
    assert past.last_id == 6


def test_an_id_that_was_marked_is_not_given_again(tmp_path: Path, open_history: Open) -> None:
    """A run may have begun whose row was lost with the file."""
    history = open_history()
    history.past()
    history.mark_started(run(MARK_SLOTS + 7))
    history.mark_started(run(9))
    assert history.close(PATIENCE)
    (tmp_path / FILE).unlink()
    assert open_history().past().last_id == MARK_SLOTS + 7


def test_marks_are_overwritten_by_much_later_runs_only(history: SqliteHistory) -> None:
    for id in range(1, MARK_SLOTS + 1):
        history.mark_started(run(id))
    assert history.started_for_sure(run(1))
    history.mark_started(run(MARK_SLOTS + 1))
    assert not history.started_for_sure(run(1))
    assert history.started_for_sure(run(2)) and history.started_for_sure(run(MARK_SLOTS + 1))


# Retention


def fill(state: Path, runs: Iterable[Run]) -> None:
    from linod.archive import row_from_run

    db = sqlite3.connect(state / FILE)
    db.executemany(f"INSERT INTO runs VALUES ({', '.join('?' * len(COLUMNS))})", map(row_from_run, runs))
    db.commit()
    db.close()


def prune(history: SqliteHistory) -> None:
    """All steps of it."""
    assert all(history.prune())


def test_old_runs_and_those_beyond_a_count_are_deleted(history: SqliteHistory, tmp_path: Path) -> None:
    history.settings = Settings(keep_runs=100, keep_days=30, keep_failures_days=180)
    day = timedelta(days=1)
    good, bad = {"outcome": Outcome.SUCCEEDED}, {"outcome": Outcome.FAILED}
    fill(
        tmp_path,
        [
            run(1, "app.rare", due=now() - 300 * day, **good),  # its last one
            run(2, "app.old", due=now() - 31 * day, **good),
            run(3, "app.old", due=now() - 29 * day, **good),
            run(4, "app.old", due=now() - 29 * day - timedelta(seconds=1), **good),
            run(5, "app.bad", due=now() - 181 * day, **bad),
            run(6, "app.bad", due=now() - 179 * day, **bad),
            run(7, "app.bad", due=now() - 31 * day, outcome=Outcome.SKIPPED),
            run(8, "app.bad", due=now() - 300 * day, outcome=Outcome.LOST),
            run(9, "app.bad", due=now(), **good),
            run(10, "app.open", due=now() - 300 * day),
            run(11, "app.open", due=now(), **good),
            *[run(id, "app.many", due=now() - timedelta(seconds=20_000 - id), **good) for id in range(100, 10_100)],
            *[run(id, "app.bads", due=now() - timedelta(seconds=40_000 - id), **bad) for id in range(20_000, 20_300)],
        ],
    )
    began = time.monotonic()
    prune(history)
    assert time.monotonic() - began < 5
    assert rows(tmp_path, where="id < 100") == [1, 3, 4, 6, 9, 10, 11]
    assert rows(tmp_path, where="task = 'app.many'") == list(range(10_000, 10_100))
    assert rows(tmp_path, "count(*)", where="task = 'app.bads'") == [300]


def test_the_thread_prunes_from_time_to_time(history: SqliteHistory, tmp_path: Path) -> None:
    history.settings = Settings(keep_runs=1)
    fill(tmp_path, [run(id, outcome=Outcome.SUCCEEDED, due=now()) for id in range(1, 6)][:1])
    history._next_prune = 0.0
    for id in range(2, 6):
        history.save(run(id, outcome=Outcome.SUCCEEDED, due=now()))
    history.turn_finished()
    until(lambda: history._next_prune > 0)
    assert history.close(PATIENCE)
    assert rows(tmp_path)[-1] == 5 and 1 not in rows(tmp_path)


def test_old_runs_that_cannot_be_deleted_are_no_trouble(history: SqliteHistory, tmp_path: Path) -> None:
    """What was written stays written, and is answered once."""
    history.settings = Settings(keep_runs=1)
    with closing(connect(tmp_path / FILE)) as other:
        other.execute("CREATE TRIGGER kept BEFORE DELETE ON runs BEGIN SELECT RAISE(ABORT, 'kept'); END")
    for id in (1, 2):
        history.save(run(id, outcome=Outcome.SUCCEEDED, due=now() + timedelta(seconds=id)))
    told: list[str] = []
    history.when_written(told.append)
    history._next_prune = 0.0
    answers(history, 0)
    history.claim(run(3), durable=False)
    assert answers(history, 1) == {3: True}
    until(lambda: history._next_prune > 0)
    history.claim(run(4), durable=False)
    assert answers(history, 1) == {4: True}
    assert (told, history.trouble) == ([""], "")
    assert rows(tmp_path) == [1, 2, 3, 4]


def prune_after(history: SqliteHistory, monkeypatch: pytest.MonkeyPatch, before: Callable[[], object]) -> None:
    """Let the thread prune, and call a function before each step."""
    steps = history.prune

    def prune() -> Iterator[bool]:
        before()
        for step in steps():
            yield step
            before()

    monkeypatch.setattr(history, "prune", prune)
    history._next_prune = 0.0
    history.save(run(1, outcome=Outcome.SUCCEEDED))
    history.turn_finished()


def test_claims_come_between_the_steps_of_pruning(
    history: SqliteHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.settings = Settings(keep_runs=1)
    fill(tmp_path, [run(id, f"app.{id % 30:02}", due=now(), lap=id, outcome=Outcome.FAILED) for id in range(100, 160)])
    fill(tmp_path, [run(id, f"app.{id % 30:02}", due=now(), lap=id, outcome=Outcome.SUCCEEDED) for id in range(10, 70)])
    monkeypatch.setattr(history_module, "PRUNED_TASKS", 1)
    steps = threading.Semaphore(0)
    prune_after(history, monkeypatch, steps.acquire)
    until(lambda: history._writing_since and not history._writing)
    history.claim(run(2), durable=False)
    history.turn_finished()
    steps.release()
    assert answers(history, 1) == {2: True}
    assert len(rows(tmp_path, where="id BETWEEN 10 AND 69")) > 50
    steps.release(100)
    until(lambda: not rows(tmp_path, where="id BETWEEN 10 AND 69"))


def test_more_than_a_step_deletes_are_deleted_in_several(
    history: SqliteHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.settings = Settings(keep_runs=1)
    monkeypatch.setattr(history_module, "PRUNED_RUNS", 10)
    fill(tmp_path, [run(id, due=now() + timedelta(seconds=id), outcome=Outcome.SUCCEEDED) for id in range(1, 46)])
    assert len(list(history.prune())) == 5
    assert rows(tmp_path) == [45]


@pytest.mark.claim("H9")
def test_pruning_that_hangs_stops_no_task(
    history: SqliteHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "HANGS_AFTER", 0.2)
    history.settings = Settings(keep_runs=1)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None, check_same_thread=False)) as other:
        prune_after(history, monkeypatch, lambda: other.in_transaction or other.execute("BEGIN IMMEDIATE"))
        until(lambda: other.in_transaction)
        history.claim(run(2), durable=False)
        until(lambda: history.turn_finished() or dict(history.answers()) == {2: True})
        assert history.trouble == "the disk has not answered for 0.2 s"
        monkeypatch.undo()
        other.execute("ROLLBACK")
    until(lambda: not history.trouble)
    until(lambda: rows(tmp_path) == [1, 2])


def test_damage_that_is_found_while_pruning_is_told(
    history: SqliteHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_damage() -> None:
        (tmp_path / FILE).write_text("This is no database. " * 1000)
        (tmp_path / f"{FILE}-wal").write_text("")

    prune_after(history, monkeypatch, find_damage)
    assert select.select([history], [], [], PATIENCE)[0]
    assert [renewal.harm for renewal in history.renewals()] == ["damaged"]


# Trouble

CANNOT_WRITE = """
import json, os, resource, select, sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from linod.conf import Settings
from linod.daemon import history as module
from linod.runs import Outcome, Run

module.FIRST_PAUSE = 1.5
state = Path(sys.argv[1])
history = module.SqliteHistory(state, Settings())
history.past()
noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
runs = {id: Run(id=id, task="app.work", due=noon + timedelta(seconds=id)) for id in range(1, 7)}

def answer(id):
    "Claim a run; how long it took until the answer, and what it was."
    began = time.monotonic()
    history.claim(runs[id], durable=False)
    history.turn_finished()
    found = {}
    while id not in found:
        assert select.select([history], [], [], 10)[0]
        found |= dict(history.answers())
    return found[id], time.monotonic() - began

def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)

assert answer(1)[0] and not history.trouble
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
told = [answer(2)]
trouble = history.trouble
told += [answer(3), answer(4)]
runs[2].outcome, runs[2].reason = Outcome.SUCCEEDED, "after the trouble began"
history.save(runs[2])
history.withdraw(runs[4])
select.select([history], [], [], 0)
history.answers()
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
woken = bool(select.select([history], [], [], 10)[0])
wait_for(lambda: not history.trouble)
told += [answer(5)]
closed = history.close(10)
print(json.dumps({"told": told, "trouble": trouble, "woken": woken, "closed": closed}))
"""


@pytest.mark.claim("P24")
def test_tasks_go_on_while_nothing_can_be_written(tmp_path: Path) -> None:
    """Claims are granted at once, also between two tries; what happened is written when that works again."""
    ended = subprocess.run(
        [sys.executable, "-c", CANNOT_WRITE, str(tmp_path)], cwd=ROOT, timeout=30, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert [granted for granted, _ in found["told"]] == [True] * 4
    assert all(seconds < 1 for _, seconds in found["told"]), found["told"]
    assert "Error: " in found["trouble"]
    assert found["woken"], "the loop hears that the trouble is over"
    assert found["closed"]
    assert rows(tmp_path, "id, ifnull(outcome, '')") == [(1, ""), (2, "succeeded"), (3, ""), (5, "")]


def test_no_error_ends_the_thread(history: SqliteHistory, tmp_path: Path) -> None:
    """Were it to end, no claim would be answered, and no task would run any more."""
    history._put_statement("INSERT INTO nowhere VALUES (?)", (1 << 70,))  # SQLite and Python both refuse that
    history.claim(run(1), durable=False)
    assert answers(history, 1) == {1: True}
    assert "Error" in history.trouble
    assert history._thread.is_alive()


def test_so_much_unwritten_is_busy(history: SqliteHistory) -> None:
    """With more, marks of runs that are not written yet could overwrite each other."""
    for id in range(1, MARK_SLOTS):
        history.save(run(id))
    assert history.busy()
    history.turn_finished()
    until(lambda: not history.busy())


def test_closing_waits_for_what_is_unwritten(history: SqliteHistory, tmp_path: Path) -> None:
    for id in range(1, 3001):
        history.save(run(id))
    assert history.close(PATIENCE)
    assert rows(tmp_path, "count(*)") == [3000]
    assert not (tmp_path / f"{FILE}-wal").exists()


def test_closing_does_not_wait_for_ever(history: SqliteHistory, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    history.save(run(1))
    began = time.monotonic()
    assert not history.close(0.05)
    assert time.monotonic() - began < 5
    other.execute("ROLLBACK")
    other.close()
    assert history.close(PATIENCE)
    assert rows(tmp_path) == [1]


def batch(ids: Iterable[int], outcome: str | None) -> Batch:
    from linod.archive import row_from_run

    return Batch(runs={id: row_from_run(run(id, outcome=outcome and Outcome(outcome))) for id in ids})


@pytest.mark.parametrize("number", [MOST_KEPT // 2 + 1, MOST_KEPT, MOST_KEPT + 10])
def test_only_when_there_are_too_many_rows_the_oldest_dull_ones_are_let_go(number: int) -> None:
    kept = batch(range(number), "succeeded")
    kept.runs |= batch([5], "failed").runs
    kept.shrink()
    assert len(kept.runs) == min(number, MOST_KEPT)
    assert 5 in kept.runs and number - 1 in kept.runs


@pytest.mark.claim("H7")
def test_output_that_is_too_much_to_keep_is_let_go_with_the_oldest_dull_runs() -> None:
    kept = batch(range(1, 5), "succeeded")
    kept.runs |= batch([5, 6], "failed").runs | batch([7], None).runs
    for row in kept.runs.values():
        row[COLUMNS.index("output")] = "x" * (MOST_TEXT // 4)
    assert kept.shrink() == 3
    assert list(kept.runs) == [4, 5, 6, 7]


@pytest.mark.claim("H7")
def test_where_nothing_went_well_the_oldest_that_went_wrong_are_let_go_and_never_one_without_an_end() -> None:
    kept = batch(range(MOST_KEPT), None)
    kept.runs |= batch(range(MOST_KEPT, MOST_KEPT + 10), "failed").runs
    assert kept.shrink() == 10
    assert list(kept.runs) == list(range(MOST_KEPT))
    kept.runs |= batch([MOST_KEPT], None).runs
    assert kept.shrink() == 0


@pytest.mark.claim("H7")
def test_how_much_was_let_go_is_told_once(history: SqliteHistory) -> None:
    with history._lock:
        history._put_back(batch(range(MOST_KEPT + 7), "succeeded"), 0)
    assert (history.take_let_go(), history.take_let_go()) == (7, 0)


def test_a_batch_that_could_not_be_written_goes_before_what_came_later() -> None:
    early, later = batch([1, 2, 3], None), batch([2, 4], "succeeded")
    early.accounted, later.accounted = {"a": 1, "b": 1, "c": 3}, {"a": 2, "c": 2}
    early.statements.add([("one", ())])
    later.statements.add([("two", ())])
    later.withdrawn = {3}
    early.put_before(later)
    assert early.runs == batch([1], None).runs | later.runs
    assert early.accounted == {"a": 2, "b": 1, "c": 3}
    assert [sql for sql, _ in early.statements] == ["one", "two"]
    assert early.withdrawn == {3}


def alert(number: int, detail: str = "") -> TaskAlert:
    return TaskAlert(number=number, event="failed", task="app.work", name="site", at="", detail=detail)


def test_of_what_people_know_and_are_told_only_the_last_is_kept_for_writing(
    history: SqliteHistory, tmp_path: Path
) -> None:
    """However long a disk does not answer."""
    failing = Known(task="app.work", trouble=Trouble.FAILING, since=NOON)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        history.save(run(1))
        history.turn_finished()
        until(lambda: history._writing.runs)
        for number in range(100):
            at = NOON + timedelta(seconds=number)
            history.write_together([statements.owing(alert(1, f"{number}"), ["mail"]), statements.owing(alert(2), [])])
            history.write_together([statements.knowing(failing), statements.knowing_no_more(failing)])
            history.write_together([statements.telling("mail", at, number)])
            history.turn_finished()
        assert len(history._batch.statements) == 4
        other.execute("ROLLBACK")
    assert history.close(PATIENCE)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        [(number, text)] = db.execute("SELECT number, alert FROM untold")
        assert (number, json.loads(text)["detail"]) == (1, "99")
        assert db.execute("SELECT channel, number FROM told").fetchall() == [("mail", 99)]
        assert db.execute("SELECT * FROM troubles").fetchall() == []


def test_what_people_know_of_a_task_goes_with_it_when_it_is_renamed_or_forgotten(
    history: SqliteHistory, tmp_path: Path
) -> None:
    """Also in one transaction, where another task has its id afterwards."""
    history.write_together([statements.knowing(Known(task="app.a", trouble=Trouble.LATE, since=NOON))])
    history.rename("app.a", "app.b")
    history.write_together([statements.knowing(Known(task="app.a", trouble=Trouble.LATE, since=NOON))])
    history.write_together([statements.knowing(Known(task="app.c", trouble=Trouble.LATE, since=NOON))])
    history.forget("app.c")
    assert history.close(PATIENCE)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("SELECT task FROM troubles ORDER BY task").fetchall() == [("app.a",), ("app.b",)]


def test_what_was_accounted_for_before_a_task_begins_anew_is_void() -> None:
    early, later = Batch(accounted={"a": 9, "b": 9}), Batch(accounted={"a": 2}, known={"a"})
    early.put_before(later)
    assert early.accounted == {"a": 2, "b": 9}


def test_what_happens_in_one_turn_is_written_together(history: SqliteHistory, tmp_path: Path) -> None:
    with closing(connect(tmp_path / FILE)) as other:
        other.execute("BEGIN IMMEDIATE")
        history.claim(run(1), durable=False)
        history.turn_finished()
        until(lambda: history._writing.claims)  # the thread is held up with it,
        history.save(run(1, outcome=Outcome.LOST))
        other.execute("ROLLBACK")  # and is back before this turn has ended
    until(lambda: history.answers() == [(1, True)])
    until(lambda: history._lock._waiters)  # type: ignore[attr-defined]  # the thread has nothing to do
    assert rows(tmp_path, "outcome") == [None]
    history.claim(run(2, attempt=2), durable=False)
    answers(history, 1)
    assert rows(tmp_path, "outcome") == ["lost", None]


# Files that are not what they should be


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"This is no database. " * 100,
        lambda content: b"\0" * len(content),
        lambda content: content[: len(content) // 2],
        lambda content: content[:4096] + os.urandom(len(content) - 4096),
    ],
    ids=["text", "zeros", "half", "noise"],
)
def test_a_damaged_file_is_put_aside(
    history: SqliteHistory, tmp_path: Path, open_history: Open, damage: Callable[[bytes], bytes]
) -> None:
    history.know(task(), 0, NOON, None)
    for id in range(1, 200):
        history.save(run(id, output="x" * 500))
    assert history.close(PATIENCE)
    file = tmp_path / FILE
    broken = damage(file.read_bytes())
    file.write_bytes(broken)
    again = open_history()
    past = again.past()
    assert not past.tasks and not past.unfinished
    again.claim(run(1), durable=True)
    assert answers(again, 1) == {1: True}
    [aside] = tmp_path.glob(f"{FILE}.damaged-*")
    assert aside.read_bytes() == broken


@pytest.mark.parametrize(
    "script",
    [
        "UPDATE runs SET outcome = 'x'",
        "UPDATE runs SET peak_memory = ''",
        "UPDATE runs SET lap = 'x'",
        "UPDATE tasks SET since = 'x'",
        "UPDATE tasks SET id = NULL",
        "INSERT INTO pauses VALUES ('', 0, x'ff', '')",
    ],
)
def test_a_file_with_what_linod_has_not_written_is_put_aside(
    history: SqliteHistory, tmp_path: Path, open_history: Open, script: str
) -> None:
    history.know(task(), 0, NOON, None)
    history.save(run(1))
    assert history.close(PATIENCE)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.executescript(script)
    again = open_history()
    assert not again.past().tasks
    again.claim(run(1), durable=True)
    assert answers(again, 1) == {1: True}
    assert list(tmp_path.glob(f"{FILE}.damaged-*"))


def test_a_description_that_is_too_deep_is_none(history: SqliteHistory, tmp_path: Path, open_history: Open) -> None:
    history.know(task(), 0, NOON, None)
    assert history.close(PATIENCE)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("UPDATE tasks SET task = ?", ("[" * 100_000,))
        db.commit()
    [known] = open_history().past().tasks.values()
    assert known.task is None


def test_an_alert_that_is_too_deep_is_none(history: SqliteHistory, tmp_path: Path, open_history: Open) -> None:
    history.write_together([statements.owing(alert(1), ["mail"]), statements.owing(alert(2), ["mail"])])
    assert history.close(PATIENCE)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("UPDATE untold SET alert = ? WHERE number = 1", ("[" * 100_000,))
        db.commit()
    assert [alert.number for alert, _ in open_history().past().alerts.untold] == [2]


def test_an_empty_file_is_a_new_history(tmp_path: Path, open_history: Open) -> None:
    (tmp_path / FILE).touch()
    assert open_history().past().last_id == 0
    assert not list(tmp_path.glob("*damaged*"))


def test_a_file_of_a_newer_linod_is_left_alone(history: SqliteHistory, tmp_path: Path) -> None:
    assert history.close(PATIENCE)
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(HistoryError, match=f"newer linod .schema 99, this one knows {VERSION}.*put the file aside"):
        SqliteHistory(tmp_path, Settings())
    assert not list(tmp_path.glob("*damaged*"))


def test_a_state_directory_that_is_missing_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"history .*/missing/history.sqlite3 cannot be opened: .*writable for"):
        SqliteHistory(tmp_path / "missing", Settings())


# Readers


def read(state: Path) -> list[int]:
    with Archive(state) as archive:
        return [run.id for run in archive.runs()]


def as_nobody(function: Callable[[], object]) -> str:
    """What a function returns, or the error it raises, as text, when a user without any right calls it."""
    if os.getuid() != 0:
        return outcome_of(function)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.write(writing, outcome_of(function).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading, encoding="utf-8") as pipe:
        return pipe.read()


def outcome_of(function: Callable[[], object]) -> str:
    try:
        return str(function())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.fixture
def public() -> Iterator[Path]:
    """A state directory that everybody can reach: those of pytest are for their owner only."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def public_history(public: Path) -> Iterator[SqliteHistory]:
    """A history that has begun there."""
    history = SqliteHistory(public, Settings())
    history.past()
    yield history
    history.close(PATIENCE)


def test_where_no_daemon_ran_yet_the_history_is_empty(tmp_path: Path) -> None:
    with Archive(tmp_path) as archive:
        assert (archive.runs(), archive.tasks(), archive.last_starts(), archive.run(1)) == ([], [], {}, None)
    assert not list(tmp_path.iterdir()), "a reader leaves nothing behind"


def test_the_history_is_read_while_the_daemon_writes(history: SqliteHistory, tmp_path: Path) -> None:
    history.claim(run(1), durable=False)
    answers(history, 1)
    assert read(tmp_path) == [], "a claim that never began is no run"
    history.save(run(1, started=NOON))
    history.save(run(2, outcome=Outcome.SKIPPED))
    history.claim(run(3), durable=False)
    answers(history, 1)
    assert read(tmp_path) == [2, 1]


def test_a_reader_sees_what_was_written_after_it_had_opened(history: SqliteHistory, tmp_path: Path) -> None:
    history.save(run(1, started=NOON))
    history.claim(run(2), durable=False)
    answers(history, 1)
    with Archive(tmp_path) as archive:
        assert [run.id for run in archive.runs()] == [1]
        history.save(run(3, started=NOON))
        history.claim(run(4), durable=False)
        answers(history, 1)
        assert [run.id for run in archive.runs()] == [3, 1]


def test_a_user_who_may_only_read_can_read_up_stopped_and_killed(public_history: SqliteHistory, public: Path) -> None:
    history = public_history
    history.save(run(1, started=NOON))
    history.claim(run(2), durable=False)
    answers(history, 1)
    for file in public.iterdir():
        file.chmod(0o644)
    assert as_nobody(lambda: read(public)) == "[1]", "up"
    assert history.close(PATIENCE)
    assert as_nobody(lambda: read(public)) == "[1]", "stopped"
    subprocess.run([sys.executable, "-c", KILLED, str(public)], cwd=ROOT, timeout=20)
    assert (public / f"{FILE}-wal").stat().st_size
    assert as_nobody(lambda: read(public)) == "[6]", "killed"


def test_the_runs_can_be_filtered(history: SqliteHistory, tmp_path: Path) -> None:
    outcomes = list(Outcome)
    for id, outcome in enumerate(outcomes, 1):
        history.save(run(id, "app.odd" if id % 2 else "app.even", outcome=outcome, started=NOON))
    assert history.close(PATIENCE)
    with Archive(tmp_path) as archive:
        assert [run.id for run in archive.runs(limit=2)] == [7, 6]
        assert {run.task for run in archive.runs(task="app.odd")} == {"app.odd"}
        assert {run.outcome for run in archive.runs(bad=True)} == {outcome for outcome in outcomes if outcome.bad}
        assert archive.last_starts() == {"app.odd": NOON, "app.even": NOON}


def test_who_may_not_read_is_told_who_may(public_history: SqliteHistory, public: Path) -> None:
    assert public_history.close(PATIENCE)
    (public / FILE).chmod(0)
    told = as_nobody(lambda: read(public))
    assert told.startswith(f"HistoryError: The history cannot be read. {public / FILE} can be read by root, ")
    (public / FILE).chmod(0o644)
    public.chmod(0)
    told = as_nobody(lambda: read(public))
    public.chmod(0o755)
    assert told.startswith("HistoryError: The history cannot be read.") and "can be read by root" in told


def test_a_file_that_is_no_database_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("This is no database. " * 100)
    with pytest.raises(HistoryError, match="cannot be read: file is not a database"):
        read(tmp_path)
