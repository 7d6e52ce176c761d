"""Schedules in the language of cron, read by croniter. The zone and its changes are ours, as for every local time."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

from ..errors import DeclarationError
from .local import LocalSchedule

SOME_DAY = datetime(2001, 1, 1)  # where the look at an expression's due times begins; any day would do
# croniter reads H and R as random values: the due times would be others in each process.
RANDOM_FIELD = re.compile(r"(^|[\s,])[hr]([\s,(/]|$)", re.IGNORECASE)
# One value, written as a range: croniter reads it as all values, or none, depending on its version.
RANGE_OF_ONE = re.compile(r"(?<![\w-])(\w+)-\1(?:/\d+)?(?![\w/-])")
EXAMPLE = 'Write the five fields minute, hour, day, month and weekday, as in cron="5 4 * * mon", or "@daily".'


@dataclass(frozen=True)
class Cron(LocalSchedule, kind="cron"):
    """The local times that a five-field expression, or one like `@daily`, matches."""

    expression: str

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "expression", check_expression(self.expression))

    @property
    def text(self) -> str:
        return f'Cron "{self.expression}"'

    @cached_property
    def period(self) -> float:
        dues = [SOME_DAY]
        for _ in range(10):
            dues.append(self._later(dues[-1]))
        return min(later - due for due, later in pairwise(dues[1:])).total_seconds()

    def _later(self, local: datetime) -> datetime:
        try:
            return _following(self.expression, local)
        except ValueError as error:  # croniter's words for the end of the calendar differ between its versions
            raise OverflowError(str(error)) from error

    def _latest(self, local: datetime) -> datetime:
        # Found by looking forward from before: looking backward, croniter 1.3.5 overlooks 29 February.
        period = reach = timedelta(seconds=self.period)
        while self._later(local - reach) > local:
            reach *= 2
        start = local - reach
        while reach > period:
            reach /= 2
            if self._later(start + reach) <= local:
                start += reach
        due = self._later(start)
        while (following := self._later(due)) <= local:
            due = following
        return due


def check_expression(expression: str) -> str:
    """The expression in one spelling. Raises DeclarationError if it is none, or never comes true."""
    if not isinstance(expression, str):
        raise DeclarationError(f"cron={expression!r} is not a text.", EXAMPLE)
    fields = expression.split()
    words = RANGE_OF_ONE.sub(r"\1", " ".join(fields))
    if len(fields) != 5 and not words.startswith("@"):
        raise DeclarationError(f"cron={expression!r} has {len(fields)} fields, not five.", EXAMPLE)
    if RANDOM_FIELD.search(words):
        raise DeclarationError(
            f"cron={expression!r} has random fields, which would change with every start.",
            "Write numbers, and jitter=60 to spread its due times over a minute.",
        )
    croniter = _croniter()
    try:
        _following(words, SOME_DAY)
    except croniter.CroniterBadDateError:
        raise DeclarationError(f"cron={expression!r} matches no date at all.", EXAMPLE) from None
    except (ValueError, LookupError) as error:
        reason = str(error).rstrip(".")
        raise DeclarationError(f"cron={expression!r} is not an expression of cron: {reason}.", EXAMPLE) from None
    return words


def _following(expression: str, local: datetime) -> datetime:
    reader = _reader(expression)
    # Due times are whole seconds, and croniter calculates with floats.
    reader.set_current(local.replace(microsecond=0))
    following: datetime = reader.get_next(datetime)
    return following


@lru_cache(maxsize=1024)
def _reader(expression: str) -> Any:
    """croniter's form of an expression, kept because reading one costs as much as finding a due time."""
    return _croniter().croniter(expression, SOME_DAY)


def _croniter() -> Any:
    try:
        import croniter  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise DeclarationError(
            "cron= needs the Python package croniter, which is not installed.",
            f"Run {how_to_install()}",
        ) from None
    return croniter


def how_to_install() -> str:
    """The command for the interpreter that lacks it: apt installs nothing into a virtual environment."""
    if sys.prefix != sys.base_prefix:
        return f"{shlex.quote(sys.executable)} -m pip install croniter"
    return "apt install python3-croniter"
