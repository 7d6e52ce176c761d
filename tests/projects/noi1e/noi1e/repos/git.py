"""Reading git repositories that other people own."""

import os
import subprocess
from datetime import UTC, datetime
from typing import NamedTuple

# Seconds; a repository on a network disk that is gone would block for ever.
TIMEOUT = 120


class UnreadableRepository(Exception):
    """git can't read this directory."""


class LoggedCommit(NamedTuple):
    sha: str
    committed: datetime
    author: str
    summary: str


def tip(path):
    """Return the id of the commit that HEAD names, or "" when there is none yet."""
    return git(path, "rev-parse", "--quiet", "--verify", "HEAD", no_answer=1).strip()


def log(path, tip, known):
    """Return the commits that lead to `tip`, oldest first, without those that lead to `known`."""
    output = git(
        path,
        "log",
        "--reverse",
        "-z",
        "--encoding=UTF-8",
        "--format=%H%x1f%ct%x1f%an%x1f%s",
        # `known` may have been rewritten and collected; then everything is read.
        "--ignore-missing",
        tip,
        *([f"^{known}"] if known else []),
        "--",
    )
    return [parse(record) for record in output.split("\0") if record]


def parse(record):
    sha, seconds, author, summary = record.split("\x1f", 3)
    return LoggedCommit(sha, datetime.fromtimestamp(int(seconds), UTC), author, summary)


def git(path, *arguments, input="", no_answer=0):
    """Run git in this very directory and return what it prints.

    `no_answer` is the exit status by which the command says that there is nothing to print.
    """
    # A variable of git's own, as set in a hook, would lead to another repository,
    # and so would git's search in the directories above.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_CEILING_DIRECTORIES"] = os.path.dirname(os.path.realpath(path))
    # The directory may belong to another user; log.showSignature would run a program.
    options = ["-c", "safe.directory=*", "-c", "log.showSignature=false"]
    try:
        done = subprocess.run(
            ["git", *options, *arguments],
            cwd=path,
            env=environment,
            input=input,
            capture_output=True,
            timeout=TIMEOUT,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnreadableRepository(str(error)) from error
    if done.returncode not in (0, no_answer):
        raise UnreadableRepository(done.stderr.strip())
    return done.stdout
