"""Load the site once, for `linodctl check`: tell on standard output, as JSON, what there is or why it doesn't load."""

from __future__ import annotations

import json
import os
from typing import Any, NoReturn

from ..launch import Place
from .load import load
from .trouble import why_not


def look(place: Place) -> NoReturn:
    """Load and tell, then leave; what the site itself prints goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        told = describe(place)
    except BaseException as error:
        told = {"problem": why_not(error).reason}
    with os.fdopen(answer, "w") as file:
        json.dump(told, file)
    os._exit(0)


def describe(place: Place) -> dict[str, Any]:
    site = load(place)
    return {
        "uses_linod": site.uses_linod,
        "tasks": [declaration.task.id for declaration in site.declarations.values()],
        "complaints": site.complaints,
    }
