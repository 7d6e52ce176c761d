"""Load a site the way its own manage.py does, and find out what linod must know of it.

The first step of a fork server, and of every face that needs the site.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..conf import Settings
from ..errors import ConfigurationError
from ..launch import Place
from ..overrides import Overrides, apply, of_directory
from ..schedules import take_registered_jobs
from ..state import site_name
from ..task import Declaration, declarations, declare_job
from . import lino

WORDS = {"1": True, "yes": True, "true": True, "on": True, "0": False, "no": False, "false": False, "off": False}


@dataclass(frozen=True, kw_only=True)
class Site:
    """A loaded site."""

    name: str
    zone: str
    uses_linod: bool
    settings: Settings
    declarations: dict[str, Declaration]
    threads: tuple[str, ...] = ()  # running besides the main one: forking them is a risk
    complaints: tuple[str, ...] = ()  # what the administrator overrides in vain
    overrides: Overrides = field(default_factory=Overrides)
    companions: tuple[str, ...] = ()  # processes that it wants beside its workers

    def find(self, task: str) -> Declaration | None:
        """A task by its id, also one that has come since the site was loaded."""
        if task in self.declarations:
            return self.declarations[task]
        if (row := lino.find(task, self.zone)) is None:
            return None
        [declaration], _complaints = apply(self.overrides, [row])
        return declaration


def load(place: Place) -> Site:
    """Run the site's manage.py up to the point where it would run a command, set up Django, and look at the result."""
    os.chdir(place.directory)
    if place.settings:
        os.environ["DJANGO_SETTINGS_MODULE"] = place.settings
    if place.manage:
        run_without_command(place.manage)
    elif place.directory not in sys.path:
        sys.path.insert(0, place.directory)
    overrides = of_directory(Path(place.directory))
    set_up(overrides)
    return look_at(place.directory, overrides)


def set_up(overrides: Overrides) -> None:
    """Set up Django, with what the administrator wants to be known before."""
    import django

    if overrides.use_linod is not None and not os.environ.get("LINOD_USE", "").strip():
        os.environ["LINOD_USE"] = "yes" if overrides.use_linod else "no"
    if (word := word_in_environment()) is not None:
        lino.tell(word)
    django.setup()


def run_without_command(manage: str) -> None:
    """Let manage.py set its path and settings, but keep it from running a command."""
    from django.core import management

    if not Path(manage).is_file():
        raise ConfigurationError(f"There is no {manage}.", "Say where the site's manage.py is.")
    execute, utility, argv = management.execute_from_command_line, management.ManagementUtility.execute, sys.argv
    nothing: Callable[..., Any] = lambda *_arguments: None  # noqa: E731
    management.execute_from_command_line = nothing
    management.ManagementUtility.execute = nothing  # type: ignore[method-assign]
    sys.argv = [manage, "linod"]
    sys.path.insert(0, str(Path(manage).parent))
    try:
        runpy.run_path(manage, run_name="__main__")
    finally:
        management.execute_from_command_line = execute
        management.ManagementUtility.execute = utility  # type: ignore[method-assign]
        sys.argv = argv


def look_at(directory: str, overrides: Overrides | None = None) -> Site:
    """What linod must know of a site whose Django is set up; what is overridden of it is read unless it is given."""
    from django.conf import settings

    overrides = overrides or of_directory(Path(directory))
    name, zone = site_name(Path(directory)), time_zone(settings)
    uses = uses_linod(settings, overrides.use_linod)
    declared, complaints = declare(overrides, name, zone)
    return Site(
        name=name,
        zone=zone,
        uses_linod=uses,
        settings=overrides.merged(getattr(settings, "LINOD", {})),
        declarations=declared,
        threads=tuple(t.name for t in threading.enumerate() if t is not threading.main_thread()),
        complaints=tuple(complaints),
        overrides=overrides,
        companions=lino.companions() if uses else (),
    )


def declare(overrides: Overrides, site: str, zone: str) -> tuple[dict[str, Declaration], list[str]]:
    """The tasks of a site as they are now, by id, and what is overridden in vain."""
    declared, complaints = apply(overrides, find_declarations())
    return {d.task.id: d.placed(zone=zone, site=site) for d in declared}, complaints


def find_declarations() -> list[Declaration]:
    """All tasks: declared in modules that Django loads and in the apps' tasks.py, jobs of `schedule`, rows of Lino."""
    from django.conf import settings
    from django.utils.module_loading import autodiscover_modules

    autodiscover_modules("tasks")
    for job in take_registered_jobs():
        declare_job(job)
    return [*declarations, *lino.declarations(time_zone(settings))]


def uses_linod(settings: Any, overridden: bool | None = None) -> bool:
    """Whether the tasks of the site shall be run.

    That is decided by the first who says something: LINOD_USE in the environment, `use_linod` in /etc/linod/SITE.toml
    (here `overridden`), the site's settings.
    """
    if (word := word_in_environment()) is not None:
        return word
    if overridden is not None:
        return overridden
    value = getattr(settings, "USE_LINOD", None)
    if value is None:
        value = lino.uses_linod()
    if not isinstance(value, bool):
        raise ConfigurationError(f"USE_LINOD = {value!r} is neither True nor False.", "Write USE_LINOD = True.")
    return value


def word_in_environment() -> bool | None:
    """What LINOD_USE says, if it says something."""
    word = os.environ.get("LINOD_USE", "").strip().lower()
    if word and word not in WORDS:
        raise ConfigurationError(f"LINOD_USE={word!r} is neither yes nor no.", "Write LINOD_USE=yes or LINOD_USE=no.")
    return WORDS[word] if word else None


def time_zone(settings: Any) -> str:
    """The name of the site's zone; TIME_ZONE = None means the host's."""
    if settings.TIME_ZONE:
        return str(settings.TIME_ZONE)
    _before, found, name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
    return name if found else "UTC"
