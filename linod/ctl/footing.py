"""Open a directory whose path somebody else may change while root works in it.

Who owns a directory on the way may put a link in its place, which leads to /etc as soon as root has looked the other
way. So a directory is opened once, and what is done in it is done below that descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from ..errors import LinodError

MOST_LINKS = 40  # as the kernel follows


@contextmanager
def opened(directory: Path) -> Iterator[int]:
    """A directory by its absolute path, open. Raises LinodError.

    A link is followed where only root could lay it, or where it leads to what belongs to who could.
    """
    try:
        place = reach(os.open("/", os.O_PATH | os.O_CLOEXEC), directory, iter(range(MOST_LINKS)))
        try:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
        finally:
            os.close(place)
    except OSError as error:
        raise LinodError(f"{directory} cannot be opened safely: {error.strerror}.") from None
    try:
        yield fd
    finally:
        os.close(fd)


def reach(place: int, path: PurePath, links: Iterator[int]) -> int:
    """Go from a place, which is closed, along a path; returns what is there, open."""
    for name in path.parts:
        try:
            following = step(place, name, links)
        finally:
            os.close(place)
        place = following
    return place


def step(place: int, name: str, links: Iterator[int]) -> int:
    """One name further, and where it is that of a link, all the way that it leads."""
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    if not stat.S_ISLNK(os.fstat(found).st_mode):
        return found
    try:
        target, owners = os.readlink("", dir_fd=found), {os.fstat(one).st_uid for one in (place, found)}
    finally:
        os.close(found)
    if next(links, None) is None:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    reached = reach(os.dup(place), PurePath(target), links)
    if owners - {0, os.fstat(reached).st_uid}:
        os.close(reached)
        raise PermissionError(errno.EPERM, f"the link {name} leads to {target}, and not only root could change it")
    return reached
