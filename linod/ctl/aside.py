"""Take a program out of supervisor's configuration, and put it back.

The file as it was is kept beside the new one, under a name that supervisor doesn't read; a file that says nothing else
is only renamed. Each step replaces a file as a whole, so that supervisor never sees half of one.
"""

from __future__ import annotations

import configparser
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from ..errors import LinodError
from .supervisor import ASIDE, Unusable, divide, included, is_empty, programs_in, read_file


def aside_of(path: Path) -> Path:
    """Where the file as it was is kept."""
    return path.with_name(path.name + ASIDE)


def original_of(aside: Path) -> Path:
    return aside.with_name(aside.name.removesuffix(ASIDE))


def require_unread(path: Path, supervisord: Path) -> None:
    """Raises LinodError where supervisor would read the file that is kept as well."""
    try:
        patterns = included(read_file(supervisord), supervisord.parent)
    except (Unusable, configparser.Error):
        return  # elsewhere, or nowhere: then the names that Debian gives are what counts
    kept = str(aside_of(path))
    if wrong := next((pattern for pattern in patterns if fnmatch(kept, pattern)), None):
        raise LinodError(
            f"{supervisord} includes {wrong}, and with that the file that would be kept, {kept}.",
            "Let it include *.conf only.",
        )


def put_aside(path: Path, name: str) -> None:
    """Let supervisor read this program no more. Raises LinodError, and has then changed nothing."""
    aside = aside_of(path)
    with in_words(path):
        text = read_file(path)
        require_room(path, text)
        rest, _taken = divide(text, [name])
        if not is_empty(rest):
            if not os.path.lexists(aside):
                replace(aside, text, path)
            replace(path, rest, path)
        elif os.path.lexists(aside):
            path.unlink()  # the rest of it was taken out before
        else:
            path.rename(aside)
        sync(path.parent)


def put_back(path: Path, name: str) -> None:
    """Let supervisor read it again. Raises LinodError, and has then changed nothing."""
    aside = aside_of(path)
    with in_words(aside):
        whole = read_file(aside)
        current = read_file(path) if path.exists() else ""
        if name in programs_in(current):
            return
        text = joined(whole, current, name)
        if text == whole:
            aside.rename(path)  # with all that it has: its times, its owner
        else:
            replace(path, text, path if path.exists() else aside)
            if set(programs_in(whole)) <= set(programs_in(text)):
                aside.unlink()
        sync(path.parent)


def joined(whole: str, current: str, name: str) -> str:
    """The file as it shall be with the program: as it was, unless somebody has changed it since."""
    missing = [program for program in programs_in(whole) if program not in programs_in(current)]
    without_missing, _ = divide(whole, missing)
    if current == without_missing or (is_empty(current) and is_empty(without_missing)):
        return divide(whole, [program for program in missing if program != name])[0]
    _, section = divide(whole, [name])
    return f"{current.rstrip()}\n\n{section}"


def require_keepable(path: Path) -> None:
    """Raises LinodError where a file cannot be kept beside its place."""
    with in_words(path):
        require_room(path, read_file(path))


def require_room(path: Path, text: str) -> None:
    """Raises LinodError where a file that is kept there is no earlier state of this one."""
    aside = aside_of(path)
    if not os.path.lexists(aside):
        return
    whole = read_file(aside)
    missing = [program for program in programs_in(whole) if program not in programs_in(text)]
    if divide(whole, missing)[0] != text:
        raise LinodError(
            f"{aside} is there already, and is kept of another {path.name}.", f"Look at it, and remove it: rm {aside}"
        )


def replace(path: Path, text: str, model: Path) -> None:
    """Write a file as a whole, for the same people as another one."""
    info = model.stat()
    new = path.with_name(f".{path.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(text.encode())
            os.fchown(fd, info.st_uid, info.st_gid)
            os.fchmod(fd, stat.S_IMODE(info.st_mode))
            file.flush()
            os.fsync(fd)
        new.rename(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """What goes wrong with a file becomes a LinodError."""
    try:
        yield
    except Unusable as error:
        raise LinodError(f"{path} {error}") from None
    except configparser.Error as error:
        raise LinodError(f"{path} cannot be read as supervisor would: {error}.") from None
    except OSError as error:
        raise LinodError(f"{error.filename or path} cannot be changed: {error.strerror}.") from None
