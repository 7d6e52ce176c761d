"""A TOML file that an administrator wrote: its values, and the line of each key, so that an error can say where.

The parser of the standard library tells lines for mistakes of syntax only. Here the keys are found once more, in a text
that is known to be TOML.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, LinodError

LARGEST = 100_000  # bytes; nobody writes so much by hand
LONGEST_MESSAGE = 400
DEEPEST = 4  # no key that linod knows lies deeper, and of deeper ones the line of the table will do
PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
TOKEN = re.compile(
    r"""
      \#[^\n]*
    | (?P<string> \"{3} (?:[^\\]|\\.)*? \"{3,5} | '{3} .*? '{3,5} | "(?:[^"\\\n]|\\.)*" | '[^'\n]*' )
    | (?P<word> [^\s\#"'\[\]{}=,.]+ )
    | (?P<mark> [\[\]{}=,\n] )
    """,
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a file says; an absent one says nothing."""

    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def line(self, *keys: str) -> int:
        """The line of a key, or that of the table around it where the key is in none."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)

    def where(self, *keys: str) -> str:
        """As the beginning of a sentence: `/etc/linod/myprj.toml, line 7`."""
        return f"{self.path}, line {self.line(*keys)}"

    def place(self, *keys: str) -> str:
        """As a place to look at: `/etc/linod/myprj.toml:7`."""
        return f"{self.path}:{self.line(*keys)}"


def read(path: Path) -> Document:
    """Raises ConfigurationError for a file that cannot be read or is no TOML."""
    text = read_text(path)
    if text is None:
        return Document(path=path)
    import tomllib  # only where there is a file: the daemon stays small

    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise ConfigurationError(f"{path} has too many brackets in brackets.", "Write it simpler.") from None
    except ValueError as error:
        raise syntax_error(path, text, error) from None
    return Document(path=path, values=values, lines=lines_of_keys(text))


def read_text(path: Path) -> str | None:
    """What is in the file; None where there is none."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ConfigurationError(f"{path} is not a file.", "Remove it, or write a text file in its place.")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigurationError(f"{path} leads to nothing.", "Remove it, or let it lead to a file.") from None
        return None
    except OSError as error:
        hint = f"Let the user of the site read it: chmod a+r {path}" if isinstance(error, PermissionError) else ""
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.", hint) from None
    if len(data) > LARGEST:
        raise ConfigurationError(
            f"{path} is larger than {LARGEST:,} bytes.", "Remove it: it is not what linod looks for."
        )
    try:
        return data.decode("utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}, line {line}: this is not UTF-8.", "Save the file as UTF-8.") from None


def syntax_error(path: Path, text: str, error: ValueError) -> ConfigurationError:
    said = str(error)
    place = PLACE.search(said)
    what = said[: place.start()] if place else said
    last = text.rstrip("\n").count("\n") + 1  # only these end a line of TOML
    where = f", line {place[1] or last}" if place else ""
    return ConfigurationError(
        f"{path}{where}: this is not TOML: {what[:1].lower()}{what[1:200]}.", "See https://toml.io for how to write it."
    )


def lines_of_keys(text: str) -> dict[tuple[str, ...], int]:
    """The line on which each key, or a table of that name, is first written. `text` is valid TOML."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()  # to which the keys of a line belong: that of the last header
    opened: list[tuple[tuple[str, ...], str]] = []  # the brackets around this place: whose value they are, and which
    path: tuple[str, ...] = ()  # of the key that is read, or whose value is read
    line = 1
    in_header, in_key = False, True
    for token in TOKEN.finditer(text):
        match token["mark"]:
            case None if in_key and (token["word"] or token["string"]):
                if len(path) < DEEPEST:
                    path += (token["word"] or unquoted(token["string"]),)
                    lines.setdefault(path, line)
            case "\n" if not opened:
                path, in_key = table, True
            case "=":
                in_key = False
            case "[" if in_key and not opened:
                path, in_header = (), True
            case "]" if in_header:
                table, in_header = path, False
            case "[" | "{" as bracket:
                opened.append((path, bracket))
                in_key = bracket == "{"
            case "]" | "}" if opened:
                path, _ = opened.pop()
                in_key = False
            case "," if opened:
                path, bracket = opened[-1]
                in_key = bracket == "{"
        line += token[0].count("\n")
    return lines


def unquoted(key: str) -> str:
    import tomllib

    name: str = tomllib.loads(f"x = {key}")["x"]
    return name


class Placed(ConfigurationError):
    """An error that tells its file and line."""


@contextmanager
def said_at(where: str) -> Iterator[None]:
    """Begin what is said by an error with its file and line."""
    try:
        yield
    except Placed:
        raise
    except LinodError as error:
        raise Placed(f"{where}: {shortened(error.message)}", shortened(error.hint)) from None


def shortened(text: str, most: int = LONGEST_MESSAGE) -> str:
    """Text from a file that may hold anything, for one line."""
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(character if character.isprintable() else "?" for character in text)
