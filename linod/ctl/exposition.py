"""Metrics as text, in the formats that programs read: OpenMetrics 1.0, and that of Prometheus before it, version 0.0.4.

No text is both. OpenMetrics names the family of a counter without the `_total` of its samples and has a type `info`. A
reader of the older format, like node_exporter, takes such a counter for something of no known type, and refuses a file
in which that type occurs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import accumulate
from math import inf

from ..totals import Spread
from .screen import cut, visible

LONGEST_LABEL = 200  # columns of a label's value
LARGEST = 2**64  # a reader refuses a whole text for one number that is too large for it, and daemons may lie
UNITS = ("seconds", "bytes")

Number = int | float
Labels = tuple[tuple[str, str], ...]


class Format(StrEnum):
    OPENMETRICS = "openmetrics"
    PROMETHEUS = "prometheus"


class Family:
    """A metric with its values, one for each set of labels."""

    def __init__(self, name: str, kind: str, help: str) -> None:
        self.name, self.kind, self.help = name, kind, help
        self.values: dict[Labels, Number | Spread] = {}

    @property
    def unit(self) -> str:
        return next((unit for unit in UNITS if self.name.endswith(f"_{unit}")), "")

    def add(self, value: Number | Spread | None, **labels: str) -> None:
        """Add a value, unless it is not known. Of two with labels that look the same the first one counts."""
        if value is not None and (isinstance(value, Spread) or abs(value) < LARGEST):
            shown = tuple((name, cut(visible(text), LONGEST_LABEL)) for name, text in labels.items())
            self.values.setdefault(shown, value)


def expose(families: Iterable[Family], format: Format) -> str:
    """All of it as text. Families without a value are left out."""
    lines = [line for family in families if family.values for line in lines_of(family, format)]
    if format is Format.OPENMETRICS:
        lines.append("# EOF")
    return "".join(f"{line}\n" for line in lines)


def lines_of(family: Family, format: Format) -> Iterator[str]:
    name, kind = family.name, family.kind
    if format is Format.PROMETHEUS:
        name += {"counter": "_total", "info": "_info"}.get(kind, "")
        kind = {"info": "gauge"}.get(kind, kind)
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {kind}"
    if format is Format.OPENMETRICS and family.unit:
        yield f"# UNIT {name} {family.unit}"
    suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
    for labels, value in family.values.items():
        if isinstance(value, Spread):
            yield from histogram(family.name, labels, value)
        else:
            yield sample(family.name + suffix, labels, value)


def histogram(name: str, labels: Labels, spread: Spread) -> Iterator[str]:
    """How many took so long at most, for each bound."""
    sums = list(accumulate(spread.runs))
    for bound, runs in zip((*spread.bounds, inf), sums, strict=True):
        yield sample(f"{name}_bucket", (*labels, ("le", number(bound))), runs)
    yield sample(f"{name}_count", labels, sums[-1])
    yield sample(f"{name}_sum", labels, spread.seconds)


def sample(name: str, labels: Labels, value: Number) -> str:
    shown = ",".join(f'{label}="{escaped(text)}"' for label, text in labels)
    return f"{name}{{{shown}}} {number(value)}" if shown else f"{name} {number(value)}"


def escaped(text: str) -> str:
    """As both formats have it within quotation marks. There are no line breaks: they are not `visible`."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def number(value: Number) -> str:
    return "+Inf" if value == inf else repr(+value)  # a truth value is a number as well
