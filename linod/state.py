"""Where a site keeps its history and its lock, found the same way by every process and every user.

1. `STATE_DIRECTORY`, which systemd sets for a unit;
2. `/var/lib/linod/SITE`, where a link in /etc/linod/sites leads to the site's directory;
3. `.linod` in the site's directory: a directory, or a link to where 1. led a daemon before.

So one lock and one history serve the daemon of the service manager and a command typed by a member of the site's group.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from . import sites
from .errors import HistoryError
from .sites import is_same_file, linked_name

OWN = ".linod"
CONTROL = "control"  # the daemon's socket


def site_name(directory: Path) -> str:
    """The name of a site: that of its link, else of its directory."""
    return linked_name(directory) or directory.resolve().name or "site"


def find_state(directory: Path) -> Path:
    """The state directory of a site; it may not exist yet."""
    if given := os.environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(given)
    if name := linked_name(directory):
        return sites.STATES / name
    return directory / OWN


def find_control(directory: Path) -> Path:
    """Where the daemon of a site listens; nothing may be there."""
    name = linked_name(directory)
    runtime = sites.RUNTIMES / name if name else None
    return (runtime if runtime and runtime.is_dir() else find_state(directory)) / CONTROL


def make_state(directory: Path) -> Path:
    """The state directory, made where it is missing and open to the group of the site; raises HistoryError."""
    state = find_state(directory)
    try:
        if state.is_symlink() and not state.exists():
            state.unlink(missing_ok=True)  # it led to a state directory that was removed since
        if not state.is_dir():
            state.mkdir(parents=True, exist_ok=True)  # another one may be starting at this moment
            if state == directory / OWN:
                share_with_group(state, directory)
        leave_pointer(directory, state)
    except OSError as error:
        raise HistoryError(
            f"The state directory {state} cannot be made: {error.strerror}.",
            "Make it for the user that runs linod, or name another one in STATE_DIRECTORY.",
        ) from None
    if not os.access(state, os.W_OK | os.X_OK):
        raise HistoryError(
            f"The state directory {state} cannot be written by {user_name()}.",
            f"Run linod as {owner_name(state)}, or change its owner.",
        )
    return state


def make_again(state: Path) -> None:
    """Make a state directory anew that somebody has taken away while its daemon runs; raises HistoryError."""
    if state.is_dir():
        return
    try:
        state.mkdir(mode=0o750)
        if state.name == OWN:
            share_with_group(state, state.parent)
    except OSError as error:
        raise HistoryError(
            f"{state} was deleted or moved away, and {user_name()} cannot make it again: {error.strerror}.",
            "Move it back, or make it.",
        ) from None


def share_with_group(state: Path, directory: Path) -> None:
    """Give a new state directory the site's group, and what is made in it as well."""
    give_to_owner(state)
    group = directory.stat().st_gid
    if group != state.stat().st_gid:
        try:
            os.chown(state, -1, group)
        except PermissionError:
            pass  # not a member of that group: then its members can't read here, and are told so
    state.chmod(0o2770)


def give_to_owner(path: Path) -> None:
    """Let a file that root has made in a state directory belong to whom the directory belongs.

    Else the daemon of that user could not write it, after root has once typed a command.
    """
    if os.geteuid() == 0:
        owner = path.parent.stat()
        # Never the target of a link, which whoever owns the directory may have laid there.
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def leave_pointer(directory: Path, state: Path) -> None:
    """Let others find a state directory that only the environment named."""
    pointer = directory / OWN
    if state in (pointer, sites.STATES / (linked_name(directory) or "")) or is_same_file(pointer, state):
        return
    try:
        if pointer.is_symlink():
            pointer.unlink()  # it leads to where the state was before
        pointer.symlink_to(state)
    except OSError:
        pass  # the site's directory is not ours to write; then only STATE_DIRECTORY leads there


def why_unreadable(path: Path) -> str:
    """In words: who could read a file that this user cannot."""
    place = path
    while not os.access(place.parent, os.X_OK) and place.parent != place.parent.parent:
        place = place.parent
    try:
        info = place.stat()
    except OSError:
        place = place.parent
        info = place.stat()
    readers = "" if not info.st_mode & stat.S_IRGRP else f" and members of the group {group_name(info.st_gid)}"
    owners = ", ".join(dict.fromkeys(["root", owner_name(place)]))
    return f"{path} can be read by {owners}{readers}, not by {user_name()}."


def user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def owner_name(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):
        return "its owner"


def group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
