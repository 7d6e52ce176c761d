"""What must be true of a daemon between two turns, whatever has happened to it: each sentence of it is a function.

They are asked of a site in simulated time, after each turn.
"""

from __future__ import annotations

from collections.abc import Iterator

from linod.archive import Archive
from linod.daemon.agenda import Entry
from linod.instants import from_micros
from linod.runs import Run

from .simulation import SimulatedSite


def what_is_wrong(site: SimulatedSite) -> Iterator[str]:
    for sound in (
        what_is_planned,
        what_waits_comes_to_the_front,
        what_may_begin_begins,
        locks_and_places_are_held_by_runs,
        runs_belong_to_their_tasks,
    ):
        yield from sound(site)
    if not site.disk_waits:
        yield from history_agrees(site)


def what_is_planned(site: SimulatedSite) -> Iterator[str]:
    """Each task that runs by itself has a next due time, planned or claimed; no other has one."""
    plan = site.plan
    claimed = {*plan._agenda.all_claimed(), *plan._unconfirmed.values()}
    planned = {(entry.task.id, due) for due, _order, entry in plan._agenda._due_times}
    for entry in plan.entries.values():
        if entry.due is not None and (entry.task.id, entry.due) not in planned:
            yield f"{entry.task.id} believes to be due at {entry.due}, and nobody sees to that"
        if entry.next is not None and (entry.next.decided or entry.next not in claimed):
            yield f"{entry.task.id} waits for run {entry.next.run.id}, and nobody sees to that"
        if plan.runs_by_itself(entry) and entry.due is None and entry.next is None and goes_on(site, entry):
            yield f"{entry.task.id} has no next due time"
        if not plan.runs_by_itself(entry) and (entry.due or entry.next):
            yield f"{entry.task.id} does not run by itself, and is due"


def goes_on(site: SimulatedSite, entry: Entry) -> bool:
    return not site.plan.closed and entry.task.schedule.next(site.now) is not None


def what_waits_comes_to_the_front(site: SimulatedSite) -> Iterator[str]:
    """A run that waits stands in line for a worker, or there is another one of its task in front of it."""
    in_line = set(site.running.waiting)
    for entry in site.plan.entries.values():
        if entry.waiting and not entry.alive and entry.waiting[0] not in in_line:
            yield f"run {entry.waiting[0].run.id} waits for nothing"
        for live in entry.waiting:
            if live.dropped or not live.decided or not live.confirmed:
                yield f"run {live.run.id} waits, and is not to begin"
    for live in in_line:
        if not live.dropped and live not in live.entry.waiting:
            yield f"run {live.run.id} stands in line, and does not wait"


def what_may_begin_begins(site: SimulatedSite) -> Iterator[str]:
    """Where there is room, only a lock is in the way of a run that stands in line."""
    running = site.running
    if not running._capacity.room() or not running.workers.idle() or running._history.busy():
        return
    for live in running.waiting:
        if not live.dropped and live.task.policies.lock not in running._locks:
            yield f"run {live.run.id} might begin, and does not"


def locks_and_places_are_held_by_runs(site: SimulatedSite) -> Iterator[str]:
    """What has begun holds them, and nothing else."""
    running = site.running
    for name, holder in running._locks.items():
        if running.live.get(holder.run.id) is not holder:
            yield f"the lock {name} is held by run {holder.run.id}, which does not go on"
    young = sum(live.young for live in running.live.values())
    if (running._capacity.alive, running._capacity._young) != (len(running.live), young):
        yield f"{running._capacity.alive} runs are counted where {len(running.live)} go on"


def runs_belong_to_their_tasks(site: SimulatedSite) -> Iterator[str]:
    """Each run that goes on is known to its task, also where that is gone."""
    plan = site.plan
    alive = {live for entry in [*plan.entries.values(), *plan._left.values()] for live in entry.alive}
    if alive != set(site.running.live.values()):
        yield "tasks and workers do not agree about what goes on"
    for live in [*alive, *plan.not_begun(set(plan.entries.values()))]:
        if live.run.task != live.task.id:
            yield f"run {live.run.id} is of {live.run.task}, and its task is {live.task.id}"


def history_agrees(site: SimulatedSite) -> Iterator[str]:
    """What is written is what the daemon knows."""
    site.have_written()
    plan = site.plan
    with Archive(site.state) as archive:
        unfinished, tasks, pauses = archive.unfinished(), archive.tasks(), archive.pauses()
    known = [live.run for live in [*plan.not_begun(set(plan.entries.values())), *site.running.live.values()]]
    for one, other, where in ((unfinished, known, "only in history"), (known, unfinished, "not in history")):
        for run in {*map(identity, one)} - {*map(identity, other)}:
            yield f"{run} has no end, and is known {where}"
    if pauses != plan.pauses:
        yield f"paused are {sorted(pauses)} in history, and {sorted(plan.pauses)}"
    if sorted(row["id"] for row in tasks) != sorted(plan.entries):
        yield f"tasks are {sorted(row['id'] for row in tasks)} in history, and {sorted(plan.entries)}"
        return
    for row in tasks:
        entry = plan.entries[row["id"]]
        accounted = row["accounted"] and from_micros(row["accounted"])
        # What is paused counts from the end of that.
        if plan.runs_by_itself(entry) and from_micros(row["since"]) != entry.since:
            yield f"{entry.task.id} counts from {from_micros(row['since'])} in history, and {entry.since}"
        # A due time is accounted for in history when its run begins.
        if accounted and (entry.accounted is None or accounted > entry.accounted):
            yield f"{entry.task.id} is accounted for until {accounted} in history, and {entry.accounted}"


def identity(run: Run) -> str:
    return f"run {run.id} of {run.task}, {run.trigger} of {run.due:%F %T.%f}"
