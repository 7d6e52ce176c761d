"""Be somebody else: what needs a site's code, or writes into its state, is never done by root.

The user is the unit's, the environment that of the unit with the site's /etc/linod/SITE.env.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import EXIT_CONFIGURATION, ConfigurationError, LinodError
from ..sites import HostSite
from ..state import user_name
from .units import Setup

PATIENCE = 120.0  # seconds for what is done as somebody else; an interpreter may take some of them to say its version
NUMBER = re.compile("[0-9]{1,10}")  # of a user or a group
UMASK = 0o002  # the unit's: the site's group may write what its tasks write
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What may come along from the shell of a person: how to talk to the terminal.
OF_THE_TERMINAL = ("TERM", "COLORTERM", "NO_COLOR", "COLUMNS", "LINES", "LANG", "LANGUAGE", "TZ")


class NoSuchAccount(ConfigurationError):
    """The unit names a user or group that the host doesn't have."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user of the host, and the group as which to work."""

    name: str
    uid: int
    gid: int
    home: str = "/"
    shell: str = "/bin/sh"

    @property
    def is_me(self) -> bool:
        return os.geteuid() == self.uid

    def become(self) -> None:
        """Give this process to the account for good. Needs root where it is not the account's already."""
        if not self.is_me:
            os.initgroups(self.name, self.gid)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        os.umask(UMASK)

    def of_child(self) -> dict[str, Any]:
        """What `subprocess` has to know for a child to belong to the account."""
        if self.is_me:
            return {"umask": UMASK}
        groups = os.getgrouplist(self.name, self.gid)
        return {"umask": UMASK, "user": self.uid, "group": self.gid, "extra_groups": groups}


def find_account(user: str, group: str = "") -> Account:
    """An account by its names or numbers; raises NoSuchAccount."""
    try:
        entry = pwd.getpwuid(int(user)) if NUMBER.fullmatch(user) else pwd.getpwnam(user)
    except KeyError:
        raise NoSuchAccount(f"This host has no user {user!r}.", f"Add it: adduser --system --group {user}") from None
    return Account(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=find_group(group) if group else entry.pw_gid,
        home=entry.pw_dir,
        shell=entry.pw_shell,
    )


def find_group(group: str) -> int:
    try:
        return int(group) if NUMBER.fullmatch(group) else grp.getgrnam(group).gr_gid
    except KeyError:
        raise NoSuchAccount(f"This host has no group {group!r}.", f"Add it: addgroup --system {group}") from None


def account_of(setup: Setup) -> Account:
    """Whose the processes of a site are; raises ConfigurationError where that is root."""
    account = find_account(setup.user, setup.group)
    if account.uid == 0:
        raise ConfigurationError(
            "The tasks of a site are not run as root.",
            "Say who shall run them: User=www-data in a drop-in of the unit.",
        )
    return account


def require_rights(account: Account) -> None:
    """Raises LinodError where this user cannot act as that account."""
    if not account.is_me and os.geteuid() != 0:
        raise LinodError(
            f"The site belongs to {account.name}, and you are {user_name()}.", f"Try again as root or {account.name}."
        )


def environment_of(site: HostSite, setup: Setup, account: Account) -> dict[str, str]:
    """The environment of the unit's processes, as far as it can be known here."""
    mine = {name: value for name, value in os.environ.items() if name in OF_THE_TERMINAL or name.startswith("LC_")}
    who = {"HOME": account.home, "LOGNAME": account.name, "USER": account.name, "SHELL": account.shell, "PATH": PATH}
    unit = dict(word.split("=", 1) for word in setup.environment)
    return mine | who | unit | dict(read_environment(site.environment))


def read_environment(path: Path) -> Iterator[tuple[str, str]]:
    """The variables of an environment file, where there is one. Raises LinodError where it cannot be read."""
    try:
        text = path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return
    except OSError as error:
        raise LinodError(
            f"{path} cannot be read by {user_name()}: {error.strerror}.", "Try again as root; the site may need it."
        ) from None
    yield from parse_environment(text)


def parse_environment(text: str) -> Iterator[tuple[str, str]]:
    """What systemd reads in such a file: NAME=value lines, comments, quotes, and lines that a backslash continues."""
    for line in re.split("[\r\n]", text.replace("\\\n", "")):
        name, equals, value = line.strip().partition("=")
        if equals and name.strip().isidentifier() and not name.startswith(("#", ";")):
            yield name.strip(), unquoted(value.strip())


def unquoted(value: str) -> str:
    """A value without its quotes; outside of single ones a backslash takes the next character as it is."""
    plain, quote, characters = "", "", iter(value)
    for character in characters:
        if character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote = character
        elif character == "\\" and quote != "'":
            following = next(characters, "")
            # Between double quotes only these are special, as in a shell.
            plain += following if not quote or following in '"\\$`' else character + following
        else:
            plain += character
    return plain


def in_child(account: Account, work: Callable[[], Any]) -> Any:
    """Let a child that belongs to an account do some work. Returns what it returns, passed on as JSON.

    A LinodError of the child is raised here; so is one where it doesn't answer, for its user may have stopped it.
    """
    if account.is_me:
        return work()
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        work_and_leave(account, work, writing)
    os.close(writing)
    try:
        answer = hear_all(reading, PATIENCE)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)  # it has nothing more to do
        os.waitpid(pid, 0)
    if not answer:
        raise LinodError(f"The process that should do this as {account.name} has died.")
    kind, value = json.loads(answer)
    if kind == "error":
        message, hint, code = value
        raise passed_on(message, hint, code)
    return value


def hear_all(reading: int, patience: float) -> bytes:
    """All that is written into a pipe until its end; raises LinodError where that doesn't come in time."""
    heard, deadline = b"", time.monotonic() + patience
    while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not (data := os.read(reading, 1 << 16)):
            return heard
        heard += data
    raise LinodError(f"The process that should do this as another user has not answered within {patience:g} s.")


def passed_on(message: str, hint: str, code: int) -> LinodError:
    error = LinodError(message, hint)
    error.exit_code = code
    return error


def work_and_leave(account: Account, work: Callable[[], Any], writing: int) -> NoReturn:
    """In the child: never return into the code of the command."""
    try:
        account.become()
        answer: list[Any] = ["value", work()]
    except LinodError as error:
        answer = ["error", [error.message, error.hint, error.exit_code]]
    except OSError as error:
        answer = ["error", [f"{error.filename}: {error.strerror}.", "", EXIT_CONFIGURATION]]
    except KeyboardInterrupt:
        os._exit(1)  # who waits for the answer was interrupted as well
    except BaseException as error:
        traceback.print_exc()
        answer = ["error", [f"{type(error).__name__}: {error}.", "", EXIT_CONFIGURATION]]
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
    finally:
        os._exit(0)
