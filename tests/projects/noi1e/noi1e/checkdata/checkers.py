"""The registry of data checkers. An app adds its own next to its models."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

CHECKERS = []


@dataclass(frozen=True)
class Checker:
    name: str
    model: type
    check: Callable[[Any], Iterable[str]]


def checker(model):
    """Register the decorated function, which yields the problems of a row of `model` in words."""

    def register(check):
        CHECKERS.append(Checker(f"{model._meta.app_label}.{check.__name__}", model, check))
        return check

    return register
