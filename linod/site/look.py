"""Load the site once for linodctl, and tell on standard output, as JSON, what there is or why it doesn't load."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, NoReturn

from ..launch import Place
from .load import Site, load
from .mail import nobody_is_told
from .trouble import why_not


def look(place: Place, describe: Callable[[Site], dict[str, Any]]) -> NoReturn:
    """Load and tell, then leave; what the site itself prints goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        told = describe(load(place))
    except BaseException as error:
        told = {"problem": why_not(error).reason}
    with os.fdopen(answer, "w") as file:
        json.dump(told, file)
    os._exit(0)


def whether_it_works(site: Site) -> dict[str, Any]:
    """For `linodctl check`."""
    hints = nobody_is_told(site) if site.uses_linod and site.declarations else []
    return {
        "uses_linod": site.uses_linod,
        "tasks": [declaration.task.id for declaration in site.declarations.values()],
        "complaints": [*site.complaints, *hints],
    }


def whom_it_tells(site: Site) -> dict[str, Any]:
    """For `linodctl alert-test`: try each way by which people are told of tasks."""
    from .telling import try_all

    return {"told": site.settings.alert_tasks, "tried": try_all(site)}
