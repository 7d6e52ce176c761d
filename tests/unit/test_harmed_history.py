"""A history that somebody harms while its daemon runs, or that is older than what has happened."""

from __future__ import annotations

import mmap
import os
import select
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from linod.archive import FILE, Archive, PauseRecord, connect, put_aside
from linod.conf import Settings
from linod.daemon import batch as batch_module
from linod.daemon import history as history_module
from linod.daemon import historyfile as historyfile_module
from linod.daemon import marks as marks_module
from linod.daemon.alerting import Alerting
from linod.daemon.anew import tell_all
from linod.daemon.clock import Timers, monotonic, now
from linod.daemon.history import SqliteHistory
from linod.daemon.historyfile import Harm, Renewal
from linod.daemon.marks import ID, MARK_SLOTS, MARKS, SHARED, SIZE, START, STARTS_AT, map_saved, read_saved
from linod.daemon.pauses import make_pause
from linod.daemon.plan import Plan
from linod.daemon.reporter import Reporter
from linod.daemon.running import Running
from linod.runs import Outcome, Run, Trigger
from tests.unit.test_history import KILLED, NOBODY, NOON, PATIENCE, ROOT, answers, rows, run, task, until
from tests.unit.test_reporter import Kept


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory that can be moved away."""
    state = tmp_path / "state"
    state.mkdir()
    return state


Open = Callable[[], SqliteHistory]


@pytest.fixture
def history(open_history: Open) -> SqliteHistory:
    """A history with a hundred runs, part of them in the write-ahead log."""
    history = open_history()
    history.past()
    history.know(task(), 0, NOON, None)
    for id in range(1, 101):
        history.save(run(id, output="x" * 2000, outcome=Outcome.SUCCEEDED))
        history.turn_finished()
        if id == 50:
            until(lambda: not history._batch)
    claim(history, 101)
    return history


def claim(history: SqliteHistory, id: int) -> None:
    """Claim a run, and wait until that is written."""
    history.claim(run(id), durable=False)
    assert answers(history, 1) == {id: True}
    assert not history.trouble


def wal(state: Path) -> Path:
    return state / f"{FILE}-wal"


def overwrite(path: Path, begin: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(data)


def fill_with_garbage(state: Path) -> None:
    for path in (state / FILE, wal(state)):
        overwrite(path, 0, os.urandom(path.stat().st_size))


def fill_with_text(state: Path) -> None:
    for path in (state / FILE, wal(state)):
        path.write_text("This is no database. " * 1000)


def damage_the_log(state: Path) -> None:
    overwrite(wal(state), 4096, os.urandom(wal(state).stat().st_size - 4096))


def shorten_the_log(state: Path) -> None:
    os.truncate(wal(state), 5000)


def empty_the_file(state: Path) -> None:
    """Nothing is in the log that could make up for it."""
    os.truncate(wal(state), 0)
    os.truncate(state / FILE, 0)


DAMAGES = [fill_with_garbage, fill_with_text, damage_the_log, shorten_the_log, empty_the_file]


@pytest.mark.claim("H1")
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_file_that_is_damaged_while_the_daemon_runs_is_put_aside(
    history: SqliteHistory, state: Path, damage: Callable[[Path], None]
) -> None:
    damage(state)
    claim(history, 102)
    [renewal] = history.renewals()
    assert (renewal.harm, renewal.is_whole, renewal.running) == (Harm.DAMAGED, False, True)
    assert put_aside(state) == [Path(renewal.aside)]
    assert renewal.reason
    claim(history, 103)
    assert history.renewals() == []
    assert rows(state) == [102, 103]


@pytest.mark.parametrize("page", range(1, 8))
def test_a_page_in_the_middle_is_enough(history: SqliteHistory, state: Path, page: int) -> None:
    history._file.ready().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(state / FILE, page * 4096, b"\xff" * 4096)
    claim(history, 102)
    assert [renewal.harm for renewal in history.renewals()] == [Harm.DAMAGED]


def test_another_database_in_its_place_is_damage_as_well(history: SqliteHistory, state: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other")) as db:
        db.executescript("CREATE TABLE notes (text); INSERT INTO notes VALUES ('of somebody else')")
    wal(state).write_bytes(b"")
    (state / FILE).write_bytes((tmp_path / "other").read_bytes())
    claim(history, 102)
    assert [renewal.harm for renewal in history.renewals()] == [Harm.DAMAGED]


def test_damage_that_is_found_while_writing_is_no_trouble(history: SqliteHistory, state: Path) -> None:
    """As of a disk that loses a page: the file looks as it was left."""
    history._file.ready().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(state / FILE, 4096, b"\xff" * ((state / FILE).stat().st_size - 4096))
    history._file.written()
    history._file.ready().execute("PRAGMA shrink_memory")
    claim(history, 102)
    assert [renewal.harm for renewal in history.renewals()] == [Harm.DAMAGED]
    assert rows(state) == [102]


def test_damage_while_it_waits_for_others_who_write_is_noticed(history: SqliteHistory, state: Path) -> None:
    with closing(sqlite3.connect(state / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        history.claim(run(102), durable=False)
        history.turn_finished()
        until(lambda: history._writing.claims == [102])
        fill_with_garbage(state)
        other.execute("ROLLBACK")
        assert answers(history, 1) == {102: True}
    assert [renewal.harm for renewal in history.renewals()] == [Harm.DAMAGED]
    assert rows(state) == [102]


def test_a_renewal_that_is_noted_while_the_loop_asks_is_told_the_next_time(history: SqliteHistory) -> None:
    note = history._file.renewals.append  # the thread is there,
    assert history.renewals() == []  # and the loop here
    note(Renewal(harm=Harm.GONE, path=Path("history")))
    assert [renewal.harm for renewal in history.renewals()] == [Harm.GONE]


def test_two_that_are_put_aside_within_a_second_are_two(history: SqliteHistory, state: Path) -> None:
    for id in (102, 103):
        fill_with_garbage(state)
        claim(history, id)
    assert len(set(put_aside(state))) == 2
    assert [renewal.aside for renewal in history.renewals()] == list(map(str, put_aside(state)))


def delete(state: Path) -> None:
    for path in state.iterdir():
        path.unlink()


def delete_the_file_alone(state: Path) -> None:
    (state / FILE).unlink()


def remove_the_directory(state: Path) -> None:
    shutil.rmtree(state)


def move_the_directory(state: Path) -> None:
    state.rename(state.with_name("elsewhere"))


TAKEN = [delete, delete_the_file_alone, remove_the_directory, move_the_directory]


@pytest.mark.claim("H4")
@pytest.mark.parametrize("take", TAKEN, ids=lambda take: take.__name__)
def test_a_file_that_is_taken_away_is_written_anew_with_all_that_was_in_it(
    history: SqliteHistory, state: Path, open_history: Open, take: Callable[[Path], None]
) -> None:
    history.mark_started(run(101))
    take(state)
    claim(history, 102)
    [renewal] = history.renewals()
    assert (renewal.harm, renewal.is_whole, renewal.aside) == (Harm.GONE, True, "")
    assert rows(state) == list(range(1, 103))
    history.mark_started(run(102))
    assert history.close(PATIENCE)
    assert rows(state) == list(range(1, 103))
    again = open_history()
    past = again.past()
    assert [found.id for found in past.unfinished if again.started_for_sure(found)] == [101, 102]
    assert list(past.tasks) == ["app.work"]


def test_a_file_that_is_taken_away_from_an_idle_daemon_is_there_at_its_end(history: SqliteHistory, state: Path) -> None:
    (state / FILE).unlink()
    assert history.close(PATIENCE)
    assert rows(state) == list(range(1, 102))


@pytest.mark.claim("H4")
def test_a_file_that_is_replaced_is_put_aside(history: SqliteHistory, state: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("of somebody else")
    (tmp_path / "other").rename(state / FILE)
    claim(history, 102)
    [renewal] = history.renewals()
    assert (renewal.harm, renewal.is_whole) == (Harm.REPLACED, True)
    assert Path(renewal.aside).read_text() == "of somebody else"
    assert rows(state) == list(range(1, 103))


def test_a_file_that_is_deleted_again_while_it_is_written_anew_is_not_lost(
    history: SqliteHistory, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by rm, which removes the log and the file one after the other."""

    def connect_too_late(path: Path) -> sqlite3.Connection:
        monkeypatch.undo()
        path.unlink()
        return connect(path)

    monkeypatch.setattr(historyfile_module, "connect", connect_too_late)
    wal(state).unlink()
    history.claim(run(102), durable=False)
    assert answers(history, 1) == {102: True}
    until(lambda: not history.trouble)
    assert rows(state) == list(range(1, 103))
    assert not (state / f"{FILE}.new").exists()


@pytest.mark.claim("H4")
@pytest.mark.parametrize("take", TAKEN, ids=lambda take: take.__name__)
def test_a_file_that_is_taken_away_just_when_it_was_written_is_written_anew(
    history: SqliteHistory, state: Path, monkeypatch: pytest.MonkeyPatch, take: Callable[[Path], None]
) -> None:
    written = history._file.written

    def too_late() -> None:
        monkeypatch.undo()
        take(state)
        written()

    monkeypatch.setattr(history._file, "written", too_late)
    history.claim(run(102), durable=False)
    assert answers(history, 1) == {102: True}
    until(lambda: not history.trouble)
    claim(history, 103)
    assert [renewal.harm for renewal in history.renewals()] == [Harm.GONE]
    assert rows(state) == list(range(1, 104))


def test_where_the_copy_is_deleted_as_well_history_begins_anew(
    history: SqliteHistory, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by rm of all that is there, just when it is being made again."""
    copy = historyfile_module.copy

    def copy_in_vain(db: sqlite3.Connection, path: Path) -> None:
        copy(db, path)
        path.unlink()

    monkeypatch.setattr(historyfile_module, "copy", copy_in_vain)
    (state / FILE).unlink()
    claim(history, 102)
    claim(history, 103)
    renewals = history.renewals()
    assert [renewal.is_whole for renewal in renewals if renewal.harm is Harm.LOST] == [False]
    assert rows(state) == [102, 103]


@pytest.mark.claim("H4")
def test_where_what_was_put_in_its_place_is_deleted_as_well_nothing_is_lost(
    history: SqliteHistory, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just when it is being looked at."""
    copy, samefile = historyfile_module.copy, Path.samefile

    def copy_while_another_is_put_there(db: sqlite3.Connection, path: Path) -> None:
        copy(db, path)
        (state / FILE).write_text("another")

    def samefile_too_late(path: Path, other: Path) -> bool:
        monkeypatch.undo()
        path.unlink()
        return samefile(path, other)

    monkeypatch.setattr(historyfile_module, "copy", copy_while_another_is_put_there)
    monkeypatch.setattr(Path, "samefile", samefile_too_late)
    (state / FILE).unlink()
    history.claim(run(102), durable=False)
    assert answers(history, 1) == {102: True}
    until(lambda: not history.trouble)
    assert [renewal.harm for renewal in history.renewals()] == [Harm.GONE]
    assert rows(state) == list(range(1, 103))


@pytest.mark.parametrize("reads", [False, True])
def test_a_log_that_is_deleted_costs_nothing(history: SqliteHistory, state: Path, reads: bool) -> None:
    """Also while somebody reads, with whose connection the log is not written back by closing ours."""
    with Archive(state) as archive:
        assert len(list(archive.runs(limit=1000))) == 100
        if not reads:
            archive.__exit__()
        wal(state).unlink()
        claim(history, 102)
    copy = state.with_name("copy")
    shutil.copytree(state, copy)  # what a daemon finds after a SIGKILL
    assert rows(copy) == list(range(1, 103))
    assert history.renewals() == []


def test_what_an_administrator_writes_is_kept(history: SqliteHistory, state: Path) -> None:
    with closing(sqlite3.connect(state / FILE)) as db:
        db.execute("UPDATE runs SET reason = 'seen' WHERE id = 7")
        db.commit()
    claim(history, 102)
    assert history.renewals() == []
    assert rows(state, "reason", "id IN (7, 102)") == ["seen", ""]


def test_a_directory_that_cannot_be_made_again_is_trouble_and_tasks_go_on(history: SqliteHistory, state: Path) -> None:
    state.rename(state.with_name("elsewhere"))
    state.write_text("in the way")
    history.claim(run(102), durable=False)
    assert answers(history, 1) == {102: True}
    assert history.trouble.startswith(f"{state} was deleted or moved away, and ")
    assert history.trouble.endswith("cannot make it again: File exists. Move it back, or make it.")
    state.unlink()
    until(lambda: not history.trouble)
    assert rows(state) == list(range(1, 103))


# What a new history is told


class World:
    """A plan and its runs, with a real history."""

    def __init__(self, history: SqliteHistory) -> None:
        reporter = Reporter(Kept())
        self.history = history
        self.plan = Plan(history, reporter, "boot", once=False)
        timers = Timers()
        self.alerting = Alerting(history, timers, reporter)
        self.running = Running(self.plan, history, timers, reporter, self.alerting)
        self.plan.resume(history.past())

    def begin_anew(self, state: Path) -> None:
        """Let the file be damaged, and history be told again."""
        self.history.turn_finished()
        until(lambda: self.plan.take_answers() or not self.plan._unconfirmed)
        fill_with_garbage(state)
        claim(self.history, 999)
        assert len(self.history.renewals()) == 1
        tell_all(self.history, self.plan, self.running, self.alerting)
        assert self.history.close(PATIENCE)


@pytest.fixture
def world(open_history: Open) -> World:
    return World(open_history())


@pytest.mark.claim("H2")
def test_what_people_know_and_are_to_be_told_is_told_again(world: World, state: Path, open_history: Open) -> None:
    world.alerting.use(Settings(), ["mail", "url"])
    world.plan.adopt([task("app.work", 10)], None)
    failing = world.plan.claim(world.plan.entries["app.work"], NOON, at=now(), trigger=Trigger.SCHEDULE)
    failing.run.started = failing.run.ended = NOON
    failing.run.outcome, failing.entry.failures = Outcome.FAILED, 1
    world.alerting.ended(failing)
    world.begin_anew(state)
    past = open_history().past().alerts
    assert [(known.task, known.trouble, known.since) for known in past.known] == [("app.work", "failing", NOON)]
    [(alert, channels)] = past.untold
    assert (alert.event, alert.task, channels) == ("failed", "app.work", ["mail", "url"])


@pytest.mark.claim("H2")
def test_tasks_pauses_claims_and_runs_are_told_again(world: World, state: Path, open_history: Open) -> None:
    plan = world.plan
    plan.adopt([task("app.work", 10), task("app.rare", 3600), task("app.paused", 10)], None)
    rare = plan.entries["app.rare"]
    rare.accounted = NOON
    world.running.pause(make_pause(None, task="app.paused", reason="broken", by="root", now=NOON))
    claimed = plan.claim(rare, NOON + timedelta(hours=1), at=now(), trigger=Trigger.SCHEDULE)
    alive = plan.claim(plan.entries["app.work"], NOON, at=now(), trigger=Trigger.SCHEDULE)
    alive.run.started, alive.decided = NOON, True
    world.running.live[alive.run.id] = alive
    world.begin_anew(state)
    past = open_history().past()
    assert {id: known.task for id, known in past.tasks.items()} == {
        id: entry.task for id, entry in plan.entries.items()
    }
    assert past.tasks["app.rare"].accounted == NOON
    assert [known.since for known in past.tasks.values()] == [entry.since for entry in plan.entries.values()]
    assert past.pauses == {"app.paused": PauseRecord(task="app.paused", since=NOON, reason="broken", by="root")}
    started = {found.id: found.started for found in past.unfinished if found.id != 999}
    assert started == {claimed.run.id: None, alive.run.id: NOON}


# Starts that history lacks


def older(state: Path) -> None:
    """Put the history of before in the place of the one that is there."""
    for path in state.glob(f"{FILE}*"):
        path.unlink()
    shutil.copy(state.with_name("copy"), state / FILE)


@pytest.fixture
def set_back(history: SqliteHistory, state: Path, open_history: Open) -> Callable[..., SqliteHistory]:
    """Let runs be started, then put a history in place that has them not; returns the new one."""
    history.know(task("app.daily", 86400), 1, NOON, NOON)
    history.save(run(101, "app.daily", outcome=Outcome.FAILED))
    assert history.close(PATIENCE)
    shutil.copy(state / FILE, state.with_name("copy"))

    def set_back(*runs: Run) -> SqliteHistory:
        later = open_history()
        later.past()
        for started in runs:
            later.claim(started, durable=True)
            later.mark_started(started)
        answers(later, len(runs))
        later.close(PATIENCE)
        older(state)
        return open_history()

    return set_back


@pytest.mark.claim("H5")
def test_a_start_that_history_lacks_is_not_started_again(set_back: Callable[..., SqliteHistory]) -> None:
    due = NOON + timedelta(days=1)
    past = set_back(run(102, "app.daily", due=due), run(103, "app.daily", due=due, attempt=2)).past()
    assert (past.missing, past.behind, past.last_id) == (2, False, 103)
    assert past.tasks["app.daily"].accounted == due
    assert past.tasks["app.work"].accounted is None
    assert "app.daily" not in past.last_runs, "what went wrong was tried again since"
    assert "app.work" in past.last_runs


def test_one_that_a_person_asked_for_counts_for_no_due_time(set_back: Callable[..., SqliteHistory]) -> None:
    past = set_back(run(102, "app.daily", due=NOON + timedelta(days=1), trigger=Trigger.MANUAL)).past()
    assert (past.missing, past.tasks["app.daily"].accounted) == (1, NOON)


def test_what_history_knows_better_stays(set_back: Callable[..., SqliteHistory]) -> None:
    past = set_back(run(102, "app.daily", due=NOON - timedelta(days=1))).past()
    assert past.tasks["app.daily"].accounted == NOON


@pytest.mark.claim("H5")
def test_where_marks_were_overwritten_nothing_is_caught_up(set_back: Callable[..., SqliteHistory]) -> None:
    begun = now()
    past = set_back(run(101 + MARK_SLOTS), run(102 + MARK_SLOTS)).past()
    assert past.behind
    assert all(known.since >= begun for known in past.tasks.values())


def test_marks_of_the_first_version_are_read(history: SqliteHistory, state: Path, open_history: Open) -> None:
    """They have ids only."""
    assert history.close(PATIENCE)
    marks = bytearray(MARK_SLOTS * ID.size)
    for id in (100, 101, 102):
        struct.pack_into("<q", marks, id * ID.size, id)
    (state / MARKS).write_bytes(marks)
    again = open_history()
    past = again.past()
    assert (past.missing, past.behind, past.last_id) == (1, True, 102)
    assert again.started_for_sure(run(101)) and not again.started_for_sure(run(99))


@pytest.mark.parametrize(
    ("slot", "id", "due"),
    [
        (102, 102, 2**62),
        (102, 102, -(2**62)),
        (102, 103, -1),
        (MARK_SLOTS - 1, 2**63 - 1, -1),
        (0, 2**53, -1),
    ],
)
def test_what_linod_cannot_have_marked_is_no_mark(
    history: SqliteHistory, state: Path, open_history: Open, slot: int, id: int, due: int
) -> None:
    history.mark_started(run(101))
    assert history.close(PATIENCE)
    overwrite(state / MARKS, slot * ID.size, ID.pack(id))
    overwrite(state / MARKS, STARTS_AT + slot * START.size, START.pack(due, 1))
    again = open_history()
    past = again.past()
    assert (past.last_id, past.missing, past.behind) == (101, 0, False)
    assert again.started_for_sure(run(101))


@pytest.fixture
def killed_state(state: Path) -> Path:
    """The state directory of a daemon that was killed; of five claims, it had begun two."""
    died = subprocess.run([sys.executable, "-c", KILLED, state], cwd=ROOT, timeout=20, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    return state


def test_marks_that_are_gone_with_a_daemon_that_died_may_have_been_there(killed_state: Path) -> None:
    """As in a container whose memory is not kept: what was claimed counts as started."""
    for path in SHARED.glob("linod-*"):
        if path.name.split("-")[2] == str(killed_state.stat().st_ino):
            path.unlink()
    again = SqliteHistory(killed_state, Settings())
    past = again.past()
    assert all(again.started_for_sure(found) for found in past.unfinished)
    assert again.close(PATIENCE)
    assert not SqliteHistory(killed_state, Settings()).started_for_sure(run(5))


def live_marks(state: Path) -> Path:
    """Where a daemon that was killed has left its marks in memory."""
    info, (_, cookie, _) = state.stat(), read_saved(state / MARKS)
    return SHARED / f"linod-{info.st_dev}-{info.st_ino}-{cookie:016x}"


def invent_marks(live: Path) -> None:
    """As any user can, where the name is free."""
    live.unlink(missing_ok=True)
    live.write_bytes(struct.pack("<q", 2**63 - 1).ljust(SIZE, b"\0"))
    live.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(live, NOBODY, NOBODY)
    else:
        live.chmod(0o666)


def open_to_others(live: Path) -> None:
    live.chmod(0o622)


def shorten(live: Path) -> None:
    os.truncate(live, 0)


def give_another_name(live: Path) -> None:
    live.with_name(f"{live.name}-other").hardlink_to(live)


def lead_elsewhere(live: Path) -> None:
    live.rename(live.with_name(f"{live.name}-other"))
    live.symlink_to(live.with_name(f"{live.name}-other"))


def lay_a_pipe(live: Path) -> None:
    live.unlink()
    os.mkfifo(live, 0o600)


HOSTILE = [invent_marks, open_to_others, shorten, give_another_name, lead_elsewhere, lay_a_pipe]


@pytest.fixture
def clean_memory(state: Path) -> Iterator[None]:
    """Nothing of this state directory is left in memory."""
    info = state.stat()
    yield
    for path in SHARED.glob(f"linod-{info.st_dev}-{info.st_ino}-*"):
        path.unlink()


@pytest.mark.claim("S24")
@pytest.mark.parametrize("take_over", HOSTILE, ids=lambda take_over: take_over.__name__)
@pytest.mark.usefixtures("clean_memory")
def test_marks_of_another_user_are_not_believed(
    killed_state: Path, open_history: Open, take_over: Callable[[Path], None]
) -> None:
    """They count as gone: what was claimed counts as started, and nothing else does."""
    live = live_marks(killed_state)
    take_over(live)
    history = open_history()
    past = history.past()
    assert history._marks._live not in (None, live)
    assert (past.last_id, past.missing) == (6, 0)
    assert all(history.started_for_sure(found) for found in past.unfinished)
    history.mark_started(run(7))


@pytest.mark.claim("S24")
@pytest.mark.usefixtures("clean_memory")
def test_the_name_of_marks_is_never_used_again(history: SqliteHistory, open_history: Open) -> None:
    """Another user has seen it, and takes it while no daemon runs."""
    history.mark_started(run(101))
    live = history._marks._live
    assert live is not None
    assert history.close(PATIENCE)
    invent_marks(live)
    again = open_history()
    assert again.past().last_id == 101
    assert again.started_for_sure(run(101)) and not again.started_for_sure(run(102))
    assert live.read_bytes()[:8] == struct.pack("<q", 2**63 - 1), "nothing was written there"


@pytest.mark.usefixtures("clean_memory")
def test_a_name_that_was_seen_is_not_used_for_a_directory_that_is_made_again(
    history: SqliteHistory, state: Path
) -> None:
    before = history._marks._cookie
    remove_the_directory(state)
    claim(history, 102)
    assert history._marks._cookie != before
    assert history._marks._live == history._marks._place()


def test_a_copy_of_the_directory_has_marks_of_its_own(history: SqliteHistory, state: Path) -> None:
    copy = state.with_name("copy")
    shutil.copytree(state, copy)
    history.mark_started(run(101))
    other = SqliteHistory(copy, Settings())
    assert not other._marks.has(101)
    assert other.close(PATIENCE)
    assert history._marks.has(101)


def test_where_no_memory_outlives_a_process_marks_are_in_the_file(
    state: Path, open_history: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks_module, "SHARED", state / "missing")
    history = open_history()
    history.past()
    history.mark_started(run(7))
    (state / MARKS).unlink()
    claim(history, 8)
    history.mark_started(run(9))
    again = open_history()
    assert [again.started_for_sure(run(id)) for id in (7, 8, 9)] == [True, False, True]


def test_what_is_marked_while_the_file_is_made_anew_is_not_lost(
    state: Path, open_history: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks_module, "SHARED", state / "missing")
    history = open_history()
    history.past()
    history.mark_started(run(6))

    def map_late(path: Path) -> mmap.mmap:
        history.mark_started(run(7))  # as the loop may do it at any moment
        history.unmark_started(run(6))
        return map_saved(path)

    monkeypatch.setattr(marks_module, "map_saved", map_late)
    (state / MARKS).unlink()
    claim(history, 8)
    monkeypatch.undo()
    assert [history.started_for_sure(run(id)) for id in (6, 7)] == [False, True]
    with (state / MARKS).open("rb") as file:
        file.seek(7 * ID.size)
        assert ID.unpack(file.read(ID.size)) == (7,)


def test_nothing_is_left_in_memory_after_an_orderly_end(history: SqliteHistory) -> None:
    live = history._marks._live
    assert live is not None and live.exists()
    history.mark_started(run(101))
    assert history.close(PATIENCE)
    assert not live.exists()


def test_nothing_lacks_after_a_usual_end_or_a_sigkill(history: SqliteHistory, state: Path, open_history: Open) -> None:
    history.mark_started(run(101))
    assert history.close(PATIENCE)
    past = open_history().past()
    assert (past.missing, past.behind, past.last_id) == (0, False, 101)


UNWRITTEN = """
import os, resource, select, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from linod.conf import Settings
from linod.daemon.history import SqliteHistory
from linod.runs import Run

history = SqliteHistory(Path(sys.argv[1]), Settings())
history.past()
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
run = Run(id=102, task="app.work", due=datetime(2026, 11, 25, tzinfo=UTC))
history.claim(run, durable=True)
history.turn_finished()
while not history.answers():
    select.select([history], [], [])
assert history.trouble
history.mark_started(run)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.claim("H8")
def test_what_was_started_while_nothing_could_be_written_is_not_started_again_after_a_sigkill(
    history: SqliteHistory, state: Path, open_history: Open
) -> None:
    assert history.close(PATIENCE)
    died = subprocess.run([sys.executable, "-c", UNWRITTEN, state], cwd=ROOT, timeout=20, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    past = open_history().past()
    assert (past.missing, past.tasks["app.work"].accounted) == (1, datetime(2026, 11, 25, tzinfo=UTC))


# A disk that hangs


@pytest.mark.claim("H9")
def test_a_disk_that_hangs_stops_no_task(history: SqliteHistory, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "HANGS_AFTER", 0.2)
    with closing(sqlite3.connect(state / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        told: list[str] = []
        history.claim(run(102), durable=True)
        history.when_written(told.append)
        found: dict[int, bool] = {}
        until(lambda: found.update(answers_now(history)) or found)
        assert found == {102: True}
        assert history.trouble == "the disk has not answered for 0.2 s"
        until(lambda: answers_now(history) or told)
        assert told == [history.trouble]
        other.execute("ROLLBACK")
    until(lambda: not history.trouble)
    assert 102 in rows(state)


@pytest.mark.claim("H9")
def test_the_loop_wakes_when_nobody_waits_for_the_disk_any_more(
    history: SqliteHistory, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing else happens, there is no other turn."""
    monkeypatch.setattr(history_module, "HANGS_AFTER", 0.5)
    until(lambda: history._writing_since is None)
    assert history.patience() is None
    with closing(sqlite3.connect(state / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        history.claim(run(102), durable=True)
        history.turn_finished()
        until(lambda: history._writing_since)
        begun = monotonic()
        while not (found := answers_now(history)):
            assert select.select([history], [], [], history.patience())[0] or history.patience() == 0
        assert found == {102: True}
        assert 0.3 < monotonic() - begun < 5
        assert history.patience() is None, "it is woken once"
        other.execute("ROLLBACK")


@pytest.mark.claim("H7")
@pytest.mark.parametrize(
    ("limit", "number", "output"), [("MOST_KEPT", 100, ""), ("MOST_TEXT", 100_000, "x" * 1000)], ids=["rows", "text"]
)
def test_while_a_disk_hangs_no_more_is_kept_than_while_it_fails(
    history: SqliteHistory, state: Path, monkeypatch: pytest.MonkeyPatch, limit: str, number: int, output: str
) -> None:
    monkeypatch.setattr(batch_module, limit, number)
    with closing(sqlite3.connect(state / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        history.save(run(102))
        history.turn_finished()
        until(lambda: history._writing.runs)
        most = 0
        for id in range(103, 603):
            history.save(run(id, outcome=Outcome.SUCCEEDED, output=output))
            history.turn_finished()
            most = max(most, len(history._batch.runs))
        assert 100 <= most <= 111
        assert min(history._batch.runs) > 102 + 389
        assert history.take_let_go() == 500 - len(history._batch.runs)
        other.execute("ROLLBACK")


def answers_now(history: SqliteHistory) -> dict[int, bool]:
    history.turn_finished()
    return dict(history.answers())
