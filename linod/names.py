"""What people call a task: its id, or the name of its function where only one task has it."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import EXIT_USAGE, LinodError


class UnknownTask(LinodError):
    """No task of that name is declared."""

    exit_code = EXIT_USAGE


def find_task(name: str, labels: Mapping[str, str], *, hint: str = "") -> str:
    """The id of a task; `labels` are the names of the functions, by id.

    Raises UnknownTask, with the closest name there is as its hint, else with the hint that is given.
    """
    if name in labels:
        return name
    found = [id for id, label in labels.items() if label == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownTask(f"There are {len(found)} tasks called {name!r}.", f"Say which: {', '.join(found)}.")
    import difflib  # only where it is needed: the daemon stays small

    close = difflib.get_close_matches(name, sorted({*labels, *labels.values()}), n=1)
    raise UnknownTask(f"This site has no task {name!r}.", f"Did you mean {close[0]}?" if close else hint)
