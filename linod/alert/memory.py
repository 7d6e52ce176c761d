"""What an alert remembers in the state directory: how to send mail, and whether people know already.

mail.json    how the site sent mail when it was last loaded, readable by the unit's user alone
alerted      since when people know that the site has failed; not there while all is well
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

MAIL = "mail.json"
STAMP = "alerted"


@dataclass(frozen=True, kw_only=True)
class Mail:
    """How and to whom a site sends mail: what Django calls ADMINS, SERVER_EMAIL and EMAIL_*."""

    to: tuple[str, ...] = ()
    sender: str = "root@localhost"
    prefix: str = ""  # of each subject
    host: str = ""
    port: int = 25
    user: str = ""
    password: str = field(default="", repr=False)
    starttls: bool = False
    ssl: bool = False
    timeout: float = 20.0  # seconds for each answer of the server
    lacking: str = ""  # why there is no host, or no address

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Mail:
        """Mail settings as a site has sent them; what is unknown or of a wrong type is left at its default."""
        kinds = {each.name: type(each.default) for each in fields(cls)}
        known: dict[str, Any] = {}
        for name, value in given.items():
            kind = kinds.get(name)
            if kind is tuple and isinstance(value, list | tuple):
                known[name] = tuple(address for address in value if isinstance(address, str))
            elif kind is float and isinstance(value, int) and not isinstance(value, bool):
                known[name] = float(value)
            elif kind is not None and type(value) is kind:
                known[name] = value
        return cls(**known)


def remember(state: Path, mail: Mapping[str, Any]) -> str:
    """Note how the site sends mail. Returns why that was not possible, in words: an alert then uses the last note."""
    path, text = state / MAIL, json.dumps(dict(mail), indent=1, sort_keys=True) + "\n"
    part = path.with_suffix(".part")
    try:
        if read_text(path) == text:
            return ""
        with suppress(FileNotFoundError):
            part.unlink()
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            file.write(text)
        os.replace(part, path)
    except OSError as error:
        return f"{path} cannot be written: {error.strerror}."
    return ""


def recall(state: Path) -> Mail | None:
    """How the site sent mail when it was last loaded; None: that was never noted."""
    try:
        return Mail.from_mapping(json.loads(read_text(state / MAIL)))
    except (ValueError, TypeError, AttributeError):
        return None


def read_text(path: Path) -> str:
    """What a file says; nothing where there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def recovery_command(state: Path, site: str) -> list[str] | None:
    """The command that tells people that a site runs again; None where they don't know that it had failed.

    For the daemon, once the site has been loaded and has run for a while.
    """
    if not os.path.lexists(state / STAMP):
        return None
    return [sys.executable, "-I", "-m", "linod.alert", "recovered", site]


class Stamp:
    """Since when people know that a site has failed."""

    def __init__(self, state: Path) -> None:
        self._path = state / STAMP

    def since(self) -> str:
        """The words of the stamp; empty where there is none."""
        return read_text(self._path).strip()

    def set(self, since: str) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        with open(fd, "w") as file:
            file.write(f"{since}\n")

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


@contextmanager
def alone(state: Path) -> Iterator[Stamp]:
    """Look at the stamp, send and set it while no other alert of this site does: two at once send one mail."""
    fd = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield Stamp(state)
    finally:
        os.close(fd)
