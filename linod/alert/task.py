"""What there is to tell about a task: a value that the daemon makes, history keeps, and a process of the site sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, get_type_hints

from ..annotations import plain_types

LONGEST_REASON = 200  # characters
LONGEST_DETAIL = 2000


class Event(StrEnum):
    """What has changed."""

    FAILED = "failed"  # it goes wrong: it has failed, crashed or timed out
    LOST = "lost"  # nobody saw the end of a run
    LATE = "late"  # a run is due and doesn't begin
    STUCK = "stuck"  # a run doesn't end
    PAUSED = "paused"  # linod has paused it, for it has gone wrong too often
    RECOVERED = "recovered"  # what was told before is over
    TEST = "test"  # nothing: somebody wants to see that messages arrive


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskAlert:
    """One thing that has changed about one task. Instants are ISO 8601 in UTC."""

    number: int  # of this site; it tells one that comes twice
    event: str
    task: str  # its id
    name: str  # its function's name
    at: str  # when it happened
    since: str = ""  # when it began to go wrong, or was due
    times: int = 0  # how many runs have gone wrong since
    was: str = ""  # what is over, after a recovery: failing, late or stuck
    run: int | None = None  # the number of the run
    outcome: str = ""  # of that run, as in history
    reason: str = ""  # one line
    detail: str = ""  # the end of the traceback, or of what the run wrote

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> TaskAlert:
        """One that history has kept; raises TypeError for what linod has not written."""
        alert = cls(**{name: given[name] for name in TYPES if name in given})
        for name, types in TYPES.items():
            if not isinstance(getattr(alert, name), types):
                raise TypeError(f"an alert has {getattr(alert, name)!r:.50}")
        return alert


TYPES = {name: plain_types(annotation) for name, annotation in get_type_hints(TaskAlert).items()}
