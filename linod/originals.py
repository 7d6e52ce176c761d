"""Processes that run the tasks of a site by `manage.py linod` of its own, which takes no lock."""

from __future__ import annotations

import os
from pathlib import Path

from .sites import is_same_file

MANAGE, COMMAND = "manage.py", "linod"
ONLY_LOOKS = ("-l", "--list", "-h", "--help")  # with these it runs no tasks


def runs_tasks_of(pid: int, directory: Path) -> bool:
    """Whether a process was started as `manage.py linod` of the site in a directory, wherever it works."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
        place = next((i for i, word in enumerate(words) if os.path.basename(word) == MANAGE), None)
        arguments = [] if place is None else words[place + 1 :]
        if place is None or COMMAND not in arguments or any(word in ONLY_LOOKS for word in arguments):
            return False
        at_home = os.path.join(f"/proc/{pid}/cwd", os.path.dirname(words[place]))
        return is_same_file(Path(at_home), directory)
    except OSError:
        return False  # it has ended, or is not for us to see
