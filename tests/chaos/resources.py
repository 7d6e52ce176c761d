"""What a daemon needs is taken away for a while: descriptors, the disk, its history, its directory, who listens to it.

All of it is given back, or made anew by the daemon itself, before a strike is over: a daemon that is killed while
nothing can be written takes with it how its runs ended, and that is no lie of history.
"""

import os
import shutil
import sqlite3
import time
from contextlib import closing, suppress

from linod.archive import FILE
from linod.errors import HistoryError
from linod.linux import children
from linod.wire import Ask
from tests.support.harms import delete
from tests.support.limits import descriptors, limited
from tests.support.site import name_of, until

PATIENCE = 60.0  # seconds; a daemon tries to write again after thirty at the latest
SMALL = 4096  # bytes: less than history has already


def is_whole(world):
    """Whether the daemon writes into the file that is there, and has written all that it knows."""
    try:
        with world.site.history() as archive:
            known = {row["id"] for row in archive.tasks()}
    except HistoryError:
        return False  # it is being made anew
    return known == set(world.names) and not world.ask(Ask()).trouble


def heal(world):
    """Let the daemon notice, and wait until all is well."""
    until(lambda: known_again(world), PATIENCE, "a whole history")


def known_again(world):
    with suppress(HistoryError):
        world.ask_for_order()
        return is_whole(world)


class DiskFull:
    """No file of the daemon can grow."""

    name = "disk-full"

    def strike(self, world, random):
        with limited(world.daemon.pid, "RLIMIT_FSIZE", SMALL):
            time.sleep(random.uniform(0, 6))
        heal(world)


class DiskHangs:
    """Nothing is written until it answers again."""

    name = "disk-hangs"

    def strike(self, world, random):
        with closing(sqlite3.connect(world.site.state / FILE, isolation_level=None, timeout=PATIENCE)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(random.choice([random.uniform(0, 2), random.uniform(4, 15)]))
            other.execute("ROLLBACK")
        heal(world)


class HistoryDeleted:
    name = "history-deleted"

    def strike(self, world, random):
        delete(world.site.state)
        heal(world)


class StateDirectoryMoved:
    """With history, lock, marks and the control socket."""

    name = "state-directory-moved"

    def strike(self, world, random):
        elsewhere = world.path / "elsewhere"
        world.site.state.rename(elsewhere)
        until((world.site.state / "control").exists, PATIENCE, "a new control socket")
        heal(world)
        shutil.rmtree(elsewhere)


class HistoryDamaged:
    """What ran before is lost with it, so the world remembers that; all else must be there again."""

    name = "history-damaged"

    def strike(self, world, random):
        path = world.site.state / FILE
        with closing(sqlite3.connect(path, isolation_level=None, timeout=PATIENCE)) as other:
            other.execute("BEGIN IMMEDIATE")  # in no transaction of the daemon's
            world.remember()
            for harmed in (path, path.with_name(f"{FILE}-wal")):
                harmed.write_bytes(random.randbytes(random.randrange(1, 40_000)))
            with suppress(sqlite3.Error):
                other.execute("ROLLBACK")
        heal(world)


class NoDescriptors:
    """Neither for another worker nor for somebody who asks."""

    name = "no-descriptors"

    def strike(self, world, random):
        pid = world.daemon.pid
        with limited(pid, "RLIMIT_NOFILE", max(10, descriptors(pid) - random.choice([0, 0, 5]))):
            time.sleep(random.uniform(0, 5))
        world.ask(Ask())


class NoProcesses:
    """The kernel forks no more workers. It counts the processes of a user, and not those of root."""

    name = "no-processes"

    def strike(self, world, random):
        server = next((pid for pid in children(world.daemon.pid) if name_of(pid) == "linod-forkserve"), None)
        if server is not None:
            with suppress(ProcessLookupError), limited(server, "RLIMIT_NPROC", 1):
                time.sleep(random.uniform(0, 5))


class NobodyListens:
    """The service manager's socket is gone, as while that executes itself anew."""

    name = "nobody-listens"

    def strike(self, world, random):
        hidden = f"{world.notices.path}.hidden"
        os.rename(world.notices.path, hidden)
        time.sleep(random.uniform(0, 3))
        os.rename(hidden, world.notices.path)


RESOURCES = [
    DiskFull(),
    DiskHangs(),
    HistoryDeleted(),
    StateDirectoryMoved(),
    HistoryDamaged(),
    NoDescriptors(),
    NoProcesses(),
    NobodyListens(),
]
