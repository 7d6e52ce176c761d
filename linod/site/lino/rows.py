"""The tasks of a Lino site that are rows: of linod.SystemTask, and of every other model that is Runnable."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

from ...errors import DeclarationError
from ...schedules import Never
from ...task import Declaration, Policies, Task, source_of
from .recurrence import Recurrence
from .running import run_row

LONGEST_NAME = 100

logger = logging.getLogger(__name__)


def models() -> list[Any]:
    """The models whose rows are tasks."""
    from django.apps import apps
    from lino.modlib.linod.mixins import Runnable

    return [model for model in apps.get_models() if issubclass(model, Runnable)]


def all_rows() -> Iterator[Any]:
    """All rows, in the order in which Lino shows them."""
    for model in models():
        yield from model.objects.order_by("seqno", "pk")


def declarations(zone: str) -> list[Declaration]:
    return [declaration_of(row, zone) for row in all_rows()]


def find(task: str, zone: str) -> Declaration | None:
    """The row with that id, as it is now."""
    for model in models():
        label, _dot, key = task.rpartition(".")
        if model._meta.label == label and (row := model.objects.filter(pk=key).first()):
            return declaration_of(row, zone)
    return None


def id_of(row: Any) -> str:
    return f"{row._meta.label}.{row.pk}"


def declaration_of(row: Any, zone: str) -> Declaration:
    """A row as a task of linod. One that makes no sense is never due, and told of."""
    recurrence = Recurrence.of(row)
    words = recurrence.words()
    try:
        if not has_procedure(row):
            raise DeclarationError(f"There is no procedure {procedure_name(row)!r} any more.")
        schedule = recurrence.schedule(zone)
    except DeclarationError as error:
        logger.warning("%s is never due (%s): %s", name_of(row), words, error)
        schedule = Never()
    return Declaration(
        task=Task(
            id=id_of(row),
            label=name_of(row),
            text=f"{words} do {procedure_name(row)}()",
            schedule=schedule,
            policies=Policies(enabled=not row.disabled, lock=lock_of(row.procedure)),
            source=source_of(row.procedure.func) if has_procedure(row) else "",
        ),
        function=partial(run_row, type(row), row.pk),
        named=True,
    )


def name_of(row: Any) -> str:
    """What people call it."""
    name = " ".join(row.name.split())[:LONGEST_NAME]
    return name if name and name.isprintable() else procedure_name(row)


def has_procedure(row: Any) -> bool:
    """Whether the site still has the procedure that a row names."""
    return hasattr(row.procedure, "func")


def procedure_name(row: Any) -> str:
    return str(getattr(row.procedure, "name", None) or getattr(row.procedure, "value", ""))


def lock_of(procedure: Any) -> str | None:
    """Procedures of which one shall run after the other share a lock; they begin in the order of their rows."""
    from lino.modlib.linod.choicelists import Procedures

    after = {each.name: getattr(each, "run_after", None) for each in Procedures.get_list_items()}
    first = getattr(procedure, "name", None)
    for _step in after:  # not more of them, where some are to run after each other
        if after.get(first) not in after:
            break
        first = after[first]
    return first if first in after and first in after.values() else None
