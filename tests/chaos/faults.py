"""What can go wrong, one class each, and the list from which a storm draws.

A fault has a `name`, and `strike(world, random)`, which injects it, waits where need be, and has healed it when it
returns: then a daemon runs, or is being started, by the code that the site had before, or by what `world` was told.
Whatever a fault does to what the daemon should do (a pause, other code, another time) it does through the world, which
keeps account of it for the judge; whatever a fault draws, it draws from `random`.
"""

import os
import signal
import time
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Protocol

from linod.caller import connect
from linod.errors import EXIT_TRY_LATER, LinodError
from linod.wire import Ask, Cancel, Pause, Refused, Reload, Resume, RunNow, encode

from .drawing import draw_schedule, draw_task
from .resources import RESOURCES
from .world import World


class Fault(Protocol):
    """Something that goes wrong and is over."""

    name: str

    def strike(self, world: World, random: Random) -> None: ...


# The daemon


class KillDaemon:
    """It dies, and the service manager starts it again; sometimes later, sometimes several times in a row."""

    name = "kill-daemon"

    def strike(self, world, random):
        for _ in range(random.choice([1, 1, 1, 2, 4])):
            world.kill()
            time.sleep(random.choice([0, 0, random.uniform(0, 8)]))
            world.start()
            time.sleep(random.uniform(0, 2))
        world.settle()


class KillAsARunBegins:
    """It dies in the instant in which a task begins, before anything of that can be on the disk."""

    name = "kill-as-a-run-begins"

    def strike(self, world, random):
        size, deadline = world.ledger.size(), time.monotonic() + 5
        while world.ledger.size() == size and time.monotonic() < deadline:
            time.sleep(0.0002)
        world.kill()
        world.start()
        world.settle()


class StopAndStart:
    """systemctl restart, or stop and a while later start."""

    name = "stop-and-start"

    def strike(self, world, random):
        world.stop()
        time.sleep(random.choice([0, 0, random.uniform(0, 8)]))
        world.start()
        world.settle()


class KillWhileItDrains:
    """The service manager's patience is over."""

    name = "kill-while-it-drains"

    def strike(self, world, random):
        world.signal(signal.SIGTERM)
        time.sleep(random.uniform(0, 1))
        world.kill()
        world.start()
        world.settle()


class FreezeDaemon:
    """It gets no processor for a while."""

    name = "freeze-daemon"

    def strike(self, world, random):
        with world.frozen():
            time.sleep(random.uniform(0.1, 6))


class SecondDaemon:
    """Somebody starts another one, which must say so and leave."""

    name = "second-daemon"

    def strike(self, world, random):
        with world.site.daemon() as second:
            if (code := second.wait(60)) != EXIT_TRY_LATER:
                world.complain(f"a second daemon left with {code}: {second.output()}")


# What is below it


class KillForkServer:
    name = "kill-fork-server"

    def strike(self, world, random):
        send(world.daemon.fork_server(), random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV]))


class FreezeForkServer:
    """It hangs, so that no worker is born; perhaps it goes on."""

    name = "freeze-fork-server"

    def strike(self, world, random):
        pid = world.daemon.fork_server()
        send(pid, signal.SIGSTOP)
        time.sleep(random.uniform(0.1, 8))
        send(pid, signal.SIGCONT)


class KillWorkers:
    name = "kill-workers"

    def strike(self, world, random):
        for pid in some(random, world.workers()):
            send(pid, random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT, signal.SIGHUP]))


class FreezeWorkers:
    """They hang until their runs have taken too long, or go on before."""

    name = "freeze-workers"

    def strike(self, world, random):
        pids = some(random, world.workers())
        for pid in pids:
            send(pid, signal.SIGSTOP)
        if random.random() < 0.5:
            time.sleep(random.uniform(0, 3))
            for pid in pids:
                send(pid, signal.SIGCONT)


# The site's code


class ReloadStorm:
    """HUP again and again, with nothing changed."""

    name = "reload-storm"

    def strike(self, world, random):
        for _ in range(random.choice([1, 3, 20])):
            world.signal(signal.SIGHUP)
            time.sleep(random.choice([0, random.uniform(0, 0.5)]))
        world.reload()


class ChangeTasks:
    """A task comes, goes, or is due at other times, and the site is loaded anew; or killed while that is going on."""

    name = "change-tasks"

    def strike(self, world, random):
        world.declare(changed(random, world))
        if random.random() < 0.3:
            world.signal(signal.SIGHUP)
            time.sleep(random.uniform(0, 1))
            world.kill()
            world.start()
        else:
            world.reload()
        world.settle()


class Deploy:
    """Stop, other code, start."""

    name = "deploy"

    def strike(self, world, random):
        world.stop()
        world.declare(changed(random, world))
        world.start()
        world.settle()


class BrokenCode:
    """New code cannot be loaded, and the old one goes on."""

    name = "broken-code"

    def strike(self, world, random):
        with world.code(random.choice(["syntax error", "raise SystemError('broken')", "import nothing.of.the.kind"])):
            if not isinstance(world.ask(Reload()), Refused):
                world.complain("broken code was loaded")
            time.sleep(random.uniform(0, 2))
        world.reload()


# People


class PauseTask:
    """Somebody pauses a task, and resumes it."""

    name = "pause-task"

    def strike(self, world, random):
        self.pause(world, random, random.choice(world.names))

    def pause(self, world, random, task):
        world.tell(Pause(task=task, reason="we shall see", by="chaos"))
        if random.random() < 0.2:
            world.kill()
            world.start()
        world.settle()
        time.sleep(random.uniform(0, 5))
        world.tell(Resume(task=task, by="chaos"))
        world.settle()


class PauseSite(PauseTask):
    """The same with all of them."""

    name = "pause-site"

    def strike(self, world, random):
        self.pause(world, random, "")


class RunTasks:
    """Several people want tasks to run now, and some don't wait to hear how that goes."""

    name = "run-tasks"

    def strike(self, world, random):
        for _ in range(random.choice([1, 3, 10])):
            with suppress(LinodError, OSError), connect(world.site.path, 10) as channel:
                channel.send(encode(RunNow(task=random.choice(world.names), by="chaos")))
                time.sleep(random.choice([0, random.uniform(0, 0.5)]))


class CancelRuns:
    """Somebody cancels runs, of which some have not begun yet."""

    name = "cancel-runs"

    def strike(self, world, random):
        for run in some(random, world.unfinished()):
            with suppress(LinodError):  # it may have ended
                world.ask(Cancel(run=run.id, by="chaos"))


class Garbage:
    """Somebody talks nonsense to the daemon, or nothing at all."""

    name = "garbage"

    def strike(self, world, random):
        channels = []
        for _ in range(random.choice([1, 10, 80])):
            with suppress(LinodError, OSError):
                channels.append(connect(world.site.path, 2))
                channels[-1].send(random.choice([b"{}", b"[1]", b'{"Ask": 3}', b"\0", random.randbytes(3000)]))
        time.sleep(random.uniform(0, 1))
        for channel in channels:
            channel.close()
        world.ask(Ask())


# Time


class SetClockForward:
    """Past due times, and perhaps into summer time or out of it."""

    name = "set-clock-forward"

    def strike(self, world, random):
        world.set_clock(timedelta(seconds=random.choice([1.5, 10, 75, 1000, 3600]) * random.uniform(0.7, 1.3)))


class SetClockBack:
    """Somebody sets it wrong; mostly that is noticed soon."""

    name = "set-clock-back"

    def strike(self, world, random):
        by = timedelta(seconds=random.choice([1.5, 8, 60, 600, 3600]) * random.uniform(0.7, 1.3))
        world.set_clock(-by)
        time.sleep(random.uniform(0, 5))
        if random.random() < 0.7:
            world.set_clock(by)


FAULTS: list[Fault] = [
    KillDaemon(),
    KillAsARunBegins(),
    StopAndStart(),
    KillWhileItDrains(),
    FreezeDaemon(),
    SecondDaemon(),
    KillForkServer(),
    FreezeForkServer(),
    KillWorkers(),
    FreezeWorkers(),
    ReloadStorm(),
    ChangeTasks(),
    Deploy(),
    BrokenCode(),
    PauseTask(),
    PauseSite(),
    RunTasks(),
    CancelRuns(),
    Garbage(),
    SetClockForward(),
    SetClockBack(),
    *RESOURCES,
]


def send(pid, number):
    """Signal a process that may be gone."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def some(random, things):
    """One of them, or several."""
    return random.sample(things, min(len(things), random.choice([1, 1, 3]))) if things else []


def changed(random, world):
    """The site's tasks with one of them other than before."""
    tasks = [dict(task) for task in world.tasks]
    kind = random.choice(["new", "gone", "due otherwise", "due otherwise", "disabled"])
    if kind == "new" or len(tasks) < 8:
        return [*tasks, draw_task(random, world.clock.now(), world.new_number())]
    task = random.choice(tasks)
    match kind:
        case "gone":
            tasks.remove(task)
        case "due otherwise":
            policies = {k: v for k, v in task["declared"].items() if k not in ("every", "jitter", "cron", "at")}
            task["declared"] = draw_schedule(random, world.clock.now()) | policies
        case "disabled":
            task["declared"] = task["declared"] | {"enabled": not task["declared"].get("enabled", True)}
    return tasks
