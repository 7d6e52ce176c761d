"""A storm: one fault after the other, at random, and from time to time a calm in which all is judged."""

import os
import time
import traceback
from contextlib import contextmanager
from dataclasses import fields
from datetime import timedelta
from random import Random

from linod.errors import LinodError
from linod.linux import children
from linod.task import Policies
from linod.wire import Ask, Standing
from tests.support.site import memory_of, state_of, until

from .judge import Broken, Case, judge, judge_notices
from .world import WATCHDOG, World

LONGEST_PAUSE = 4.0  # seconds between two faults
SOON = timedelta(seconds=95)  # in which all drawn intervals are due
PATIENCE = 60.0  # seconds that a task may be late after the storm
MOST_DESCRIPTORS = 100  # of a daemon with a dozen workers
MOST_THREADS = 3
MOST_MEMORY = 40 << 10  # KiB
SHOWN = 12  # runs and faults beside what is broken
MOST_TOLD = 20  # broken sentences


class Storm:
    """Faults on a world, all of them drawn from a seed."""

    def __init__(self, path, seed, faults, say=print):
        self.seed, self.faults, self.say = seed, faults, say
        self.random = Random(seed)
        self.world = World(path, self.random)
        self.broken = []

    def rage(self, seconds, between=180.0, soon=SOON):
        """For so many seconds, with a calm at least so often and at the end. Returns what is wrong.

        In a calm, the tasks that are due within `soon` must run.
        """
        end = time.monotonic() + seconds
        with self.world:
            while time.monotonic() < end and not self.broken:
                self.strike_until(min(end, time.monotonic() + between))
                self.be_calm(soon)
                if time.monotonic() < end and not self.broken:
                    self.world.start()
                    self.world.settle()
        return self.broken

    def strike_until(self, end):
        while time.monotonic() < end:
            time.sleep(min(self.random.expovariate(1.0), LONGEST_PAUSE))
            fault = self.random.choice(self.faults)
            with self.complaints():
                self.world.strike(fault, self.random)
            self.see_that_it_lives()

    @contextmanager
    def complaints(self):
        """What goes wrong with a fault is no reason to end the storm."""
        try:
            yield
        except (AssertionError, LinodError, OSError):
            self.world.complain(traceback.format_exc())

    def see_that_it_lives(self):
        daemon = self.world.daemon
        if daemon.process.poll() is None:
            return
        self.world.lives[-1].ends(killed=True)
        self.world.complain(
            f"the daemon has left by itself with {daemon.process.returncode}: {daemon.output()[-3000:]}"
        )
        self.world.start()
        with self.complaints():
            self.world.settle()

    # The calm

    def be_calm(self, soon):
        """Let all tasks run once more, stop the daemon, and judge."""
        world = self.world
        with self.complaints():
            world.settle()
            self.every_task_runs_again(soon)
            self.the_daemon_is_well()
        since = world.clock.now()
        world.stop()
        case = Case(
            runs=world.runs(),
            lines=world.ledger.lines(),
            model=world.model,
            policies={name: policies_of(task) for name, task in world.declared.items()},
            since=since,
            now=world.clock.now(),
            upset=[*world.clock_sets, *(life.ended for life in world.lives)],
        )
        self.broken += judge(case)
        self.broken += judge_notices(world.lives, world.notices, WATCHDOG)
        self.broken += [Broken(complaint) for complaint in world.complaints]
        self.say(
            f"{world.clock.now():%F %T}  {len(world.strikes)} faults, {case.certain()} due times,"
            f" {len(case.begun)} runs, {len(self.broken)} broken"
        )
        for broken in self.broken[:MOST_TOLD]:
            self.say(describe(broken, case, world))

    def every_task_runs_again(self, soon):
        """No task is silently disabled: each that is due soon runs, though perhaps late."""
        began, now, model = time.monotonic(), self.world.clock.now(), self.world.model
        waits = {}  # seconds until each task is due
        for task, schedule in model.wanted.items():
            due = schedule.next(now)
            # A time on the wall that has come before the clock was set back does not come again.
            if due and due - now < soon and not (schedule.follows_the_wall and model.is_set_back(task, due)):
                waits[task] = (due - now).total_seconds()

        def run_or_late():
            ran = {line.task for line in self.world.ledger.lines() if line.kind == "begin" and line.monotonic > began}
            waited = time.monotonic() - began
            late = {task for task in waits.keys() - ran if waited > waits[task] + PATIENCE}
            return late or waits.keys() <= ran

        late = until(run_or_late, timeout=soon.total_seconds() + 2 * PATIENCE, what="a run of each task")
        if late is not True:
            self.world.complain(f"these run no more: {sorted(late)}")

    def the_daemon_is_well(self):
        """It answers, and holds no more than it needs."""
        pid = self.world.daemon.pid
        standing = self.world.ask(Ask())
        if not isinstance(standing, Standing) or standing.trouble or standing.waiting_for:
            self.world.complain(f"the daemon is not well: {standing}")
        until(lambda: not [child for child in children(pid) if state_of(child) == "Z"], what="the end of zombies")
        for what, found, most in (
            ("descriptors", count_in(pid, "fd"), MOST_DESCRIPTORS),
            ("threads", count_in(pid, "task"), MOST_THREADS),
            ("KiB of memory", memory_of(pid), MOST_MEMORY),
        ):
            if found > most:
                self.world.complain(f"the daemon has {found} {what}")


def count_in(pid, directory):
    return len(os.listdir(f"/proc/{pid}/{directory}"))


def policies_of(task):
    """How the runs of a drawn task are treated."""
    names = {field.name for field in fields(Policies)}
    return Policies(**{name: value for name, value in task["declared"].items() if name in names})


def describe(broken, case, world):
    """A broken sentence, with all that one must see to understand it."""
    text = [f"\nBROKEN: {broken.task} {broken.sentence}"]
    if broken.task:
        text.append(f"  declared: {world.declared[broken.task]}")
        text += [f"  stretch: {stretch}" for stretch in case.model.stretches[broken.task][-5:]]
    runs = [case.by_id[id] for id in dict.fromkeys(broken.runs) if id in case.by_id][:SHOWN]
    for run in runs:
        text.append(f"  {describe_run(run)}")
        text += [f"    ledger: {line}" for line in case.lines if line.run == run.id]
    instants = [*broken.around, *(instant for run in runs for instant in (run.due, run.started, run.ended) if instant)]
    near = [strike for strike in world.strikes if any(strike.is_near(instant) for instant in instants)]
    text += [f"  fault: {strike}" for strike in near or world.strikes[-SHOWN:]]
    return "\n".join(text)


def describe_run(run):
    started = run.started and f"{run.started:%H:%M:%S.%f}"
    ended = run.ended and f"{run.ended:%H:%M:%S.%f}"
    return (
        f"run {run.id}: {run.trigger}, due {run.due:%F %T.%f}, lap {run.lap}, attempt {run.attempt}, dues {run.dues},"
        f" {started} to {ended}, {run.outcome}: {run.reason}"
    )
