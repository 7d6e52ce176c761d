"""No passwords in what linod writes of an exception: into the journal, into history, into the status of the unit.

An exception says what it likes, and some say the address of a database with its password. What the settings or the
environment of the site call a password, and what looks like one, is masked. What a task prints or logs is its own.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Any

MASK = "***"
SHORTEST = 8  # characters; a shorter value might be a word that stands everywhere
DEEPEST = 4  # settings within settings
NAME = r"(?:pass(?:word|wd)?|pwd|secret|token|(?:api|secret|private|access)_?key)s?"
# The name of a setting or a variable; $PWD is the working directory.
SECRET = re.compile(rf"(?!(?:old)?pwd$).*(?:{NAME}|dsn)(?:_fallbacks)?", re.IGNORECASE)
ADDRESS = re.compile(r"(://[^\s/:@'\"]*:)[^\s/]+@")  # scheme://user:password@host
QUOTED = re.compile(rf"({NAME}['\"]?\s*[=:]\s*[bru]?)('[^'\n]*'?|\"[^\"\n]*\"?)", re.IGNORECASE)
PLAIN = re.compile(rf"({NAME}=)[^\s'\"&;,)]+", re.IGNORECASE)


def masked(text: str) -> str:
    """A text about an exception, without the secrets of the site."""
    for secret in sorted(known_secrets(), key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = ADDRESS.sub(rf"\1{MASK}@", text)
    text = QUOTED.sub(rf"\1'{MASK}'", text)
    return PLAIN.sub(rf"\1{MASK}", text)


def known_secrets() -> set[str]:
    """What the settings and the environment call one, as far as it is long enough."""
    found = set(secrets_in(dict(os.environ), DEEPEST))
    if (module := sys.modules.get("django.conf")) and module.settings.configured:
        found |= set(secrets_in(vars(module.settings._wrapped), DEEPEST))
    return {secret for secret in found if len(secret) >= SHORTEST}


def secrets_in(value: Any, depth: int, secret: bool = False) -> Iterator[str]:
    """The texts in a value that belong to a name of a secret. (Not isinstance, which would wake what is lazy.)"""
    kind = type(value)
    if issubclass(kind, str):
        if secret:
            yield value
    elif depth and issubclass(kind, dict):
        for name, one in list(value.items()):
            yield from secrets_in(one, depth - 1, secret or bool(SECRET.fullmatch(str(name))))
    elif depth and issubclass(kind, list | tuple):
        for one in value:
            yield from secrets_in(one, depth - 1, secret)
