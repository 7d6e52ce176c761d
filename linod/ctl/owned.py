"""What root owns in the directory of a site, because a job ran there as root: found, and given to the site's user.

A site's user may change its directory at any moment. So nothing is named by a path here: each directory is opened
below the one before, links are never followed, and what is given away is the very thing that was looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .accounts import Account
from .footing import opened

# What no task writes: it stays with whom it belongs to.
CODE = (".py", ".pyc", ".pyi", ".so", ".sh", ".toml", ".ini", ".cfg", ".conf")
CODE_DIRECTORIES = ("__pycache__", ".git", ".hg", "node_modules")
ENVIRONMENT = "pyvenv.cfg"  # which each virtual environment has
DEEPEST = 60  # directories below each other


@dataclass(frozen=True, kw_only=True)
class Owned:
    """Something of root's that the site's user cannot write."""

    path: Path  # relative to the site's directory
    shared: bool  # has other names, which may be anywhere: it is told, but never given away


@dataclass(frozen=True, kw_only=True)
class Found:
    """One thing in the directory, while it is held open."""

    fd: int
    path: Path
    info: os.stat_result


def owned_by_root(directory: Path, account: Account) -> list[Owned]:
    """What the tasks might have to write, but root owns. Directories that hold code are no such thing."""
    return [
        Owned(path=found.path, shared=is_shared(found.info)) for found in walk(directory) if is_missed(found, account)
    ]


def give(directory: Path, account: Account) -> int:
    """Give all of it to an account; returns how many."""
    number = 0
    with opened(directory) as top:
        group = os.fstat(top).st_gid or account.gid
        for found in below(top):
            if is_missed(found, account) and not is_shared(found.info):
                # By its descriptor: whatever has its name by now is another thing.
                os.chown(f"/proc/self/fd/{found.fd}", account.uid, -1 if found.info.st_gid else group)
                number += 1
    return number


def is_missed(found: Found, account: Account) -> bool:
    return found.info.st_uid == 0 and not may_write(found.info, account) and found.path.suffix not in CODE


def is_shared(info: os.stat_result) -> bool:
    return stat.S_ISREG(info.st_mode) and info.st_nlink > 1


def may_write(info: os.stat_result, account: Account) -> bool:
    """Whether somebody who isn't its owner may write it."""
    groups = os.getgrouplist(account.name, account.gid)
    return bool(info.st_mode & (stat.S_IWGRP if info.st_gid in groups else stat.S_IWOTH))


def walk(directory: Path) -> Iterator[Found]:
    """All files and directories of a site, on its own file system, without its code."""
    with opened(directory) as top:
        yield from below(top)


def below(parent: int, path: Path = Path(), depth: int = 0) -> Iterator[Found]:
    """The directory that is open, and all in it."""
    try:
        names, itself = sorted(os.listdir(parent)), os.fstat(parent)
    except OSError:
        return  # it is gone
    if ENVIRONMENT in names or depth > DEEPEST:
        return
    if not any(name.endswith(".py") for name in names):
        yield Found(fd=parent, path=path, info=itself)
    for name in names:
        if name in CODE_DIRECTORIES:
            continue
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError:
            continue  # it is gone
        try:
            yield from inside(fd, path / name, itself.st_dev, depth)
        finally:
            os.close(fd)


def inside(place: int, path: Path, device: int, depth: int) -> Iterator[Found]:
    """What is open as a mere place: a file, or a directory and all in it."""
    try:
        info = os.fstat(place)
        # Only directories are compared: overlayfs gives each file the device of a layer.
        enter = stat.S_ISDIR(info.st_mode) and info.st_dev == device
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place) if enter else None
    except OSError:
        return  # not for us to read, like what a user has mounted there
    if fd is not None:
        try:
            yield from below(fd, path, depth + 1)
        finally:
            os.close(fd)
    elif stat.S_ISREG(info.st_mode):
        yield Found(fd=place, path=path, info=info)
