"""Load a site the way its own manage.py does, and find out what linod must know of it.

The first step of a fork server, and of every face that needs the site.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..conf import Settings
from ..errors import ConfigurationError
from ..launch import Place
from ..overrides import Overrides, apply, of_directory
from ..schedules import take_registered_jobs
from ..state import site_name
from ..task import Declaration, declarations, declare_job

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
    tell_lino()
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
    declared, complaints = apply(overrides, find_declarations())
    return Site(
        name=name,
        zone=zone,
        uses_linod=uses_linod(settings, overrides.use_linod),
        settings=overrides.merged(getattr(settings, "LINOD", {})),
        declarations={d.task.id: d.placed(zone=zone, site=name) for d in declared},
        threads=tuple(t.name for t in threading.enumerate() if t is not threading.main_thread()),
        complaints=tuple(complaints),
    )


def find_declarations() -> list[Declaration]:
    """All tasks: declared in modules that Django loads, in the apps' tasks.py, and on `schedule`'s own scheduler."""
    from django.utils.module_loading import autodiscover_modules

    autodiscover_modules("tasks")
    for job in take_registered_jobs():
        declare_job(job)
    return list(declarations)


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
        value = lino_says(getattr(settings, "SITE", None))
    if not isinstance(value, bool):
        raise ConfigurationError(f"USE_LINOD = {value!r} is neither True nor False.", "Write USE_LINOD = True.")
    return value


def word_in_environment() -> bool | None:
    """What LINOD_USE says, if it says something."""
    word = os.environ.get("LINOD_USE", "").strip().lower()
    if word and word not in WORDS:
        raise ConfigurationError(f"LINOD_USE={word!r} is neither yes nor no.", "Write LINOD_USE=yes or LINOD_USE=no.")
    return WORDS[word] if word else None


def tell_lino() -> None:
    """Overrule the `use_linod` of an old Lino site before its models load: it registers its tasks only then."""
    from django.conf import settings

    word, lino_site = word_in_environment(), getattr(settings, "SITE", None)
    if word is not None and lino_site is not None:
        with suppress(Exception):  # newer ones have no such word
            lino_site.use_linod = word


def lino_says(lino_site: Any) -> bool:
    """`use_linod` of a Lino site; newer ones raise an error of their own when they are asked."""
    try:
        return bool(getattr(lino_site, "use_linod", False))
    except Exception:
        return False


def time_zone(settings: Any) -> str:
    """The name of the site's zone; TIME_ZONE = None means the host's."""
    if settings.TIME_ZONE:
        return str(settings.TIME_ZONE)
    _before, found, name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
    return name if found else "UTC"
