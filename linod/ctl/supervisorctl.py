"""Talk to a running supervisord, through its own command."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..errors import LinodError

PATIENCE = 900.0  # seconds: a program may have a long stopwaitsecs
ANSWERS_WITHIN = 30.0  # seconds, where it has nothing to wait for
CONFIGURATION = "supervisord.conf"
# The states of a program that somebody wants to run, whether it manages to or not.
WANTED = ("RUNNING", "STARTING", "BACKOFF", "FATAL", "EXITED")
STATES = (*WANTED, "STOPPED", "STOPPING", "UNKNOWN")


@dataclass(frozen=True, kw_only=True)
class Supervisorctl:
    """The supervisord of a host; commands raise LinodError with its words."""

    configuration: Path
    installed: bool = True

    @classmethod
    def of(cls, directory: Path) -> Supervisorctl:
        """That which reads the files of a directory."""
        return cls(configuration=directory.parent / CONFIGURATION, installed=bool(shutil.which("supervisorctl")))

    def require(self) -> None:
        """Raises LinodError where it doesn't answer, or cannot read its own files: then nothing could be undone."""
        if not self.installed:
            return
        done = self.call("reread")
        if done.returncode or "ERROR" in done.stdout:
            raise LinodError(
                f"supervisor cannot be asked to move a program: {said(done)}.",
                "See that it runs, and that it can read all of its files: supervisorctl reread",
            )

    def overview(self) -> dict[str, list[str]]:
        """The states of the processes of each program; of none where supervisord doesn't answer."""
        found: dict[str, list[str]] = {}
        if self.installed:
            for words in map(str.split, self.call("status").stdout.splitlines()):
                if len(words) > 1 and words[1] in STATES:
                    found.setdefault(words[0].split(":")[0], []).append(words[1])
        return found

    def states(self, name: str) -> list[str]:
        """The same of one program; of none where supervisord doesn't know it."""
        return self.overview().get(name, [])

    def stop(self, name: str) -> None:
        """Stop a program; returns when its own process has ended."""
        if self.states(name):
            self.call("stop", f"{name}:*")
        if left := [state for state in self.states(name) if state in ("RUNNING", "STARTING", "STOPPING", "BACKOFF")]:
            raise LinodError(f"supervisor has not stopped {name}: it is {left[0]}.", f"Try: supervisorctl stop {name}")

    def start(self, name: str) -> None:
        """Start a program, unless it runs."""
        if not any(state in ("RUNNING", "STARTING") for state in self.states(name)):
            done = self.call("start", f"{name}:*")
            if "ERROR" in done.stdout and not is_wanted(self.states(name)):
                raise LinodError(
                    f"supervisor cannot start {name}: {said(done)}.", "See its log in /var/log/supervisor."
                )

    def in_words(self, name: str) -> str:
        """How a program is after its start."""
        if other := [state for state in self.states(name) if state != "RUNNING"]:
            return f"{name} is {other[0]} in supervisor; see how that goes on: supervisorctl status {name}:*"
        return f"{name} runs in supervisor"

    def update(self, name: str) -> None:
        """Take over what its files now say of this program, and of no other."""
        if not self.installed:
            return
        done = self.call("update", name)
        if done.returncode and "no such group" not in done.stdout:
            raise LinodError(f"supervisor has not read its files anew: {said(done)}.", "Try: supervisorctl reread")

    def forget(self, name: str) -> None:
        """Take over that its files don't have this program any more."""
        self.update(name)
        if self.states(name):
            raise LinodError(
                f"supervisor still knows {name}, though its file is put aside.",
                f"See which file it has it from: grep -r {name} {self.configuration.parent}",
            )

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Ask it; its working directory may not choose its configuration."""
        where = ["-c", str(self.configuration)] if os.path.isfile(self.configuration) else []
        try:
            return subprocess.run(
                ["supervisorctl", *where, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=PATIENCE if arguments[0] in ("start", "stop", "update") else ANSWERS_WITHIN,
                cwd="/",
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LinodError(f"supervisorctl does not answer: {error}.") from None


def is_wanted(states: list[str]) -> bool:
    """Whether a program runs, or would if it could."""
    return any(state in WANTED for state in states)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of an answer."""
    return (done.stdout.strip().splitlines() or ["it says nothing"])[-1].rstrip(".")
