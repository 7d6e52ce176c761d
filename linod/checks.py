"""What `manage.py check` says about linod: mistakes that only a site's settings can show."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register

from .conf import Settings
from .errors import LinodError
from .overrides import apply, problems, read
from .site.load import find_declarations, time_zone, uses_linod
from .sites import HostSite, linked_name


@register("linod")
def check_linod(**_arguments: Any) -> list[CheckMessage]:
    return [*check_settings(), *check_tasks(), *check_overrides()]


def check_settings() -> Iterator[CheckMessage]:
    try:
        Settings.from_mapping(getattr(settings, "LINOD", {}))
    except LinodError as error:
        yield Error(error.message, hint=error.hint or None, id="linod.E001")
    try:
        uses_linod(settings)
    except LinodError as error:
        yield Error(error.message, hint=error.hint or None, id="linod.E002")
    try:
        ZoneInfo(time_zone(settings))
    except (OSError, ValueError):
        yield Error(f"TIME_ZONE = {settings.TIME_ZONE!r} is no zone that this host knows.", id="linod.E003")


def check_tasks() -> Iterator[CheckMessage]:
    tasks = [declaration.task for declaration in find_declarations()]
    ids = {task.id for task in tasks}
    for task in tasks:
        if task.policies.renamed_from in ids:
            yield checks.Warning(
                f"{task.id} says renamed_from={task.policies.renamed_from!r}, but a task of that name is declared.",
                hint="Remove renamed_from, or the other task.",
                id="linod.W001",
            )


def check_overrides() -> Iterator[CheckMessage]:
    """What the administrator of this host has written for this site, where it is one of its sites."""
    name = linked_name(directory())
    if name is None:
        return
    path = HostSite(name=name).overrides
    wrong = problems(path)
    for problem in wrong:
        yield Error(problem.message, hint=problem.hint or None, id="linod.E004")
    if not wrong:
        try:
            _tasks, complaints = apply(read(path), find_declarations())
        except LinodError as error:
            yield Error(error.message, hint=error.hint or None, id="linod.E004")
        else:
            yield from (checks.Warning(complaint, id="linod.W002") for complaint in complaints)


def directory() -> Path:
    """Of the site: where the manage.py is that was called, else where one is."""
    from .command.start import find_manage  # not at the top: web workers load this module as well

    manage = find_manage(Path(sys.argv[0]).absolute())
    return manage.parent if manage else Path.cwd()
