"""What every schedule answers: what is due next, and what was due last."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any, ClassVar, Self, get_type_hints
from zlib import crc32

from ..annotations import plain_types

KINDS: dict[str, type[Schedule]] = {}


@dataclass(frozen=True)
class Schedule(ABC):
    """An endless row of due times, each strictly later than the one before.

    Equal schedules have the same due times. A declared schedule doesn't know its site yet: what it leaves open (the
    zone, the phase) is filled in by `placed`, and before that it has no due times.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls, kind: str = "") -> None:
        if kind:
            cls.kind = kind
            KINDS[kind] = cls

    def next(self, after: datetime) -> datetime | None:
        """The earliest due time strictly later than `after` (aware), in UTC; None when there is none any more."""
        try:
            return self._next(_in_utc(after))
        except OverflowError:  # beyond the year 9999
            return None

    def previous(self, at: datetime) -> datetime | None:
        """The latest due time not later than `at` (aware), in UTC; None when there is none yet."""
        try:
            return self._previous(_in_utc(at))
        except OverflowError:  # before the year 1
            return None

    def count(self, after: datetime, until: datetime) -> int:
        """How many due times are later than `after` and not later than `until`."""
        number = 0
        due = self.next(after)
        while due is not None and due <= until:
            number += 1
            due = self.next(due)
        return number

    @property
    def follows_the_wall(self) -> bool:
        """Whether its due times are times that a clock shows, rather than distances."""
        return False

    @property
    @abstractmethod
    def period(self) -> float:
        """The usual shortest distance between two due times, in seconds."""

    @abstractmethod
    def placed(self, zone: str, seed: str) -> Self:
        """The same schedule on a site: open zones become `zone`, and chance is drawn from `seed`, always the same."""

    def as_dict(self) -> dict[str, Any]:
        """The schedule as plain values for JSON; `from_dict` is the way back."""
        return {"kind": self.kind} | {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def _from_plain(cls, values: dict[str, Any]) -> Self:
        return cls(**values)

    def _require_types(self) -> None:
        """Raises TypeError where a field is not what it is declared to be."""
        for name, types in _types_of(type(self)).items():
            if not isinstance(getattr(self, name), types):
                raise TypeError(f"{name} is {getattr(self, name)!r:.100}")

    @abstractmethod
    def _next(self, after: datetime) -> datetime | None:
        """`next` for an instant in UTC; an OverflowError stands for None."""

    @abstractmethod
    def _previous(self, at: datetime) -> datetime | None:
        """`previous` for an instant in UTC; an OverflowError stands for None."""

    def _unplaced(self) -> ValueError:
        return ValueError(f"{self} has no due times before it was given its place with placed(zone, seed).")


def from_dict(values: dict[str, Any]) -> Schedule:
    """The schedule that `as_dict` described. Raises ValueError for what no schedule of this version looks like."""
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise ValueError("This is no schedule of this version of linod.")
    plain = dict(values)
    kind = plain.pop("kind")
    if kind not in KINDS:
        raise ValueError(f"There is no schedule of kind {kind!r:.100} in this version of linod.")
    try:
        schedule = KINDS[kind]._from_plain(plain)
        schedule._require_types()
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"This is no {kind} of this version of linod: {error!r:.200}") from error
    return schedule


@cache
def _types_of(kind: type[Schedule]) -> dict[str, tuple[type[Any], ...]]:
    hints = get_type_hints(kind)
    return {field.name: plain_types(hints[field.name]) for field in fields(kind)}


def draw(*lot: object) -> float:
    """A number in [0, 1) that looks random and is always the same for the same lot, on every host and version."""
    # hash() differs in each process, and hashlib would bring 4 MB of OpenSSL into the daemon. The multiplication
    # (Knuth's, by the golden ratio) scatters neighbours, whose checksums resemble each other.
    return crc32("|".join(map(str, lot)).encode()) * 0x9E3779B1 % 2**32 / 2**32


def draw_index(block: int, every: int, spread: int, seed: str | None) -> int:
    """Which unit (day, hour, …) of a block of `every` units counts: the first, or one of the first 1 + `spread`.

    Two neighbours are then `every - spread` to `every + spread` units apart.
    """
    return block * every + (int(draw(seed, block) * (spread + 1)) if spread else 0)


def _in_utc(instant: datetime) -> datetime:
    if instant.tzinfo is UTC:
        return instant
    if instant.tzinfo is None:
        raise ValueError(f"{instant!r} is naive; due times are instants, so say in which zone: datetime.now(UTC).")
    return instant.astimezone(UTC)
