"""Why a site cannot be loaded, in words, and whether a later try may succeed."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

from ..errors import ConfigurationError, DeclarationError, LinodError
from ..wire import NotLoaded
from .secrets import masked

LINOD = str(Path(__file__).parents[1])
# Characters, each of up to twelve bytes in a message.
LONGEST_REASON = 2000
LONGEST_TRACEBACK = 10_000


def why_not(error: BaseException) -> NotLoaded:
    """The message for an error that kept the site from loading."""
    return NotLoaded(
        reason=masked(reason_of(error))[:LONGEST_REASON],
        permanent=not mends_itself(error),
        traceback=masked(traceback_of(error))[-LONGEST_TRACEBACK:],
    )


def reason_of(error: BaseException) -> str:
    """One sentence: what, and where in the site's code."""
    if isinstance(error, DeclarationError):
        return f"{error}{place_of(error)}"
    if isinstance(error, LinodError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name == "django":
        return (
            f"{sys.executable} has no Django."
            " Make the site's virtual environment, in env, .venv or venv of its directory, or install python3-django."
        )
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    return f"{type(error).__name__}: {error}".removesuffix(": ") + place_of(error)


def place_of(error: BaseException) -> str:
    """The last line of the site's own code, or of a library's, that the error has passed."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not (is_on_the_way(frame.filename) or frame.filename.startswith("<"))  # code that was made at run time
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def traceback_of(error: BaseException) -> str:
    """The traceback, from the first frame of the site's own code on."""
    return "".join(traceback.format_exception(type(error), error, site_frames(error.__traceback__)))


def site_frames(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames that lead to the site's code: ours, Django's, and those of the import system."""
    while trace is not None and is_on_the_way(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def is_on_the_way(filename: str) -> bool:
    django = sys.modules.get("django")  # which may be what is missing
    places = [LINOD, "<frozen ", *([os.path.dirname(django.__file__)] if django and django.__file__ else [])]
    return filename.startswith(tuple(places)) or "/importlib/" in filename


def mends_itself(error: BaseException) -> bool:
    """Whether loading may succeed later without anybody changing the site, as when a database is down."""
    if isinstance(error, SyntaxError | ImportError | ConfigurationError | DeclarationError):
        return False
    from django.core.exceptions import ImproperlyConfigured

    return not isinstance(error, ImproperlyConfigured)
