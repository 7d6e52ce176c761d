"""One daemon a site: a lock that the kernel releases when the daemon and all its workers are gone."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from ..errors import ConfigurationError, HistoryError, SiteLocked
from ..linux import birth
from ..sites import is_same_file
from ..state import OWN, give_to_owner, owner_name, user_name
from .clock import monotonic

FILE = "lock"
FOR_WORKERS = 10.0  # seconds to wait for workers whose daemon has died


def lock_site(state: Path) -> int:
    """Take the lock of a site; returns its descriptor, which workers hold as well.

    Raises SiteLocked, and says who has it. Where its daemon has died, waits until the last of its workers has followed.
    """
    fd = open_lock(state / FILE)
    deadline = monotonic() + FOR_WORKERS
    while not try_lock(fd):
        holder = read_holder(fd)
        if is_alive(holder):
            os.close(fd)
            raise SiteLocked(
                f"The tasks of this site are being run already, by process {holder[0]}.",
                "Stop that one first; only one can run them.",
            )
        if monotonic() > deadline:
            os.close(fd)
            raise SiteLocked(
                f"Workers of a daemon that has ended still hold {state / FILE}.",
                f"See who they are with: fuser -v {state / FILE}",
            )
        time.sleep(0.02)
    write_holder(fd, state)
    return fd


def keep_lock(state: Path, fd: int) -> None:
    """Lock the site again where its lock was taken away, with its directory, and another daemon could have it.

    The descriptor stays the same one, for the workers to come. Raises SiteLocked where another daemon has it already.
    """
    if is_same_file(Path(f"/proc/self/fd/{fd}"), state / FILE):
        return
    new = open_lock(state / FILE)
    try:
        if not try_lock(new):
            raise SiteLocked(
                f"The tasks of this site are run by process {read_holder(new)[0]} as well, which was started after"
                f" {state} had been taken away from this one.",
            )
        name_holder(new)
        os.dup2(new, fd, inheritable=False)
    finally:
        os.close(new)


def require_no_other_lock(directory: Path, state: Path) -> None:
    """Raises SiteLocked where a daemon runs the site's tasks that was started before the site was added to this host.

    That one has locked the state directory that the site had then.
    """
    before = directory / OWN
    if is_same_file(before, state):
        return
    if (fd := open_to_look(before)) is None:
        return
    try:
        if not try_lock(fd):
            raise SiteLocked(
                f"The tasks of this site are being run already, by process {read_holder(fd)[0]}, which has locked"
                f" {before}.",
                "Stop that one first; only one can run them.",
            )
    finally:
        os.close(fd)


def open_to_look(state: Path) -> int | None:
    """The lock of a site; None where there is none, or it is not for us to read.

    Whatever its user has put there: nothing that it is keeps us waiting.
    """
    try:
        return os.open(state / FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None


def open_lock(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
    except PermissionError:
        raise ConfigurationError(
            f"{path} belongs to {owner_name(path)} and cannot be opened by {user_name()}.",
            "Give the state directory and all that is in it to the user that runs linod.",
        ) from None
    except OSError as error:
        raise cannot_write(path.parent, error) from None
    give_to_owner(path)
    return fd


def cannot_write(state: Path, error: OSError) -> HistoryError:
    hint = "See to its disk, or name another directory in STATE_DIRECTORY."
    return HistoryError(f"{state} cannot be written: {error.strerror}.", hint)


def try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_holder(fd: int) -> tuple[int, int | None]:
    """Pid and birth of the process that wrote itself into the lock; (0, None) if that can't be read."""
    try:
        pid, born = os.pread(fd, 100, 0).split()
        return int(pid), int(born)
    except ValueError:
        return 0, None


def write_holder(fd: int, state: Path) -> None:
    try:
        name_holder(fd)
    except OSError as error:
        os.close(fd)
        raise cannot_write(state, error) from None


def name_holder(fd: int) -> None:
    """Write this process into a lock."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()} {birth(os.getpid())}\n".encode(), 0)


def is_alive(holder: tuple[int, int | None]) -> bool:
    pid, born = holder
    return pid > 0 and birth(pid) == born and born is not None
