"""What supervisor's configuration says of the programs that run `manage.py linod`: read and understood, never changed.

The files are read as supervisor reads them. Nothing here acts; a file may hold anything, and what is wrong with it is
told with its line.
"""

from __future__ import annotations

import configparser
import io
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import LinodError
from .scripts import Start, understand

ASIDE = ".linod-aside"  # what the name of a file ends with that supervisor shall read no more
LARGEST = 1 << 20  # bytes of a file that is looked at
LARGEST_SCRIPT = 1 << 16
PREFIX = "program:"
HEADER = re.compile(r"\[(?P<name>.+)\]")
KEY = re.compile(r"(?P<key>[^=:\s][^=:]*?)\s*[=:]")
EXPANSION = re.compile(r"%(?:%|\((?P<name>\w+)\)(?P<format>0?\d?[sd])|(?P<wrong>.?))", re.DOTALL)
SHELLS = ("sh", "bash", "dash")
ROOT = ("root", "0")


@dataclass(frozen=True)
class Trouble:
    """Something in a file that cannot be used, for people."""

    path: Path
    line: int | None
    text: str

    def __str__(self) -> str:
        return f"{self.path}{f', line {self.line}' if self.line else ''}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class Program:
    """A [program:…] of supervisor, with what matters here; all expansions are done."""

    name: str
    path: Path
    line: int
    command: str
    directory: str = "/"
    user: str = ""
    username: str = ""  # what supervisor ignores
    username_line: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def as_root(self) -> bool:
        """Whether its processes belong to root, as all do that name no user."""
        return self.user in ("", *ROOT)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A program that runs the tasks of a site."""

    program: Program
    start: Start

    @property
    def directory(self) -> Path:
        return Path(self.start.directory)


@dataclass(kw_only=True)
class Configuration:
    """What was found in a directory."""

    jobs: list[Job] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)  # program -> the group that some file puts it into


def read_directory(directory: Path, suffix: str = ".conf") -> Configuration:
    """All files of a directory whose name ends so, in the order of supervisor."""
    found = Configuration()
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(suffix) and not name.startswith("."))
    except OSError as error:
        raise LinodError(
            f"{directory} cannot be read: {error.strerror}.", "Say where supervisor's files are: --conf-dir DIRECTORY"
        ) from None
    for name in names:
        path = directory / name
        try:
            take_file(found, path, read_file(path))
        except Unusable as error:
            found.troubles.append(Trouble(path, None, str(error)))
    return found


def take_file(found: Configuration, path: Path, text: str) -> None:
    """Add what a file holds."""
    try:
        parser = parse(text)
    except configparser.MissingSectionHeaderError as error:
        found.troubles.append(Trouble(path, error.lineno, "there is no [section] before this line."))
        return
    except configparser.ParsingError as error:
        line = error.errors[0][0] if error.errors else getattr(error, "lineno", None)
        found.troubles.append(Trouble(path, line, "supervisor cannot read this line, and so refuses all of its files."))
        return
    except configparser.Error as error:
        found.troubles.append(Trouble(path, None, f"supervisor cannot read it: {error}."))
        return
    for section in parser.sections():
        kind, _colon, name = section.partition(":")
        if kind == "group":
            for program in parser[section].get("programs", "").split(","):
                found.groups[program.strip()] = name.strip()
        elif section.startswith(PREFIX):
            take_program(found, path, text, parser, section)


def take_program(found: Configuration, path: Path, text: str, parser: Parser, section: str) -> None:
    line = line_of(text, section)
    try:
        program = program_from(path, line, section, dict(parser.items(section)), text)
        if program is None:
            return
        start = start_of(program, script_of)
    except Unusable as error:
        if "linod" in section or "linod" in parser[section].get("command", ""):
            found.troubles.append(Trouble(path, line, f"[{section}] {error}"))
        return
    if start:
        found.jobs.append(Job(program=program, start=start))
    elif "linod" in program.name or "linod" in program.command:
        found.troubles.append(
            Trouble(
                path, line, f"[{section}] does not run manage.py linod in a way that is known here: {program.command}"
            )
        )


class Unusable(ValueError):
    """Something cannot be used; says why."""


# As supervisor reads


class Parser(configparser.RawConfigParser):
    """With supervisor's rules: later values win, and both kinds of comment may follow a value."""

    def __init__(self) -> None:
        super().__init__(strict=False, inline_comment_prefixes=(";", "#"))


def parse(text: str) -> Parser:
    """Raises configparser.Error."""
    parser = Parser()
    parser.read_string(text)
    return parser


def read_file(path: Path, largest: int = LARGEST) -> str:
    """The text of a file; whatever it is, nothing keeps us waiting. Raises Unusable."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)  # which a device does not notice: some act when they are opened
        try:
            info = os.fstat(place)
            if not stat.S_ISREG(info.st_mode):
                raise Unusable("is no file.")
            if info.st_size > largest:
                raise Unusable(f"is larger than {largest >> 10} KiB.")
            with open(f"/proc/self/fd/{place}", "rb") as file:
                text = file.read(largest).decode()
        finally:
            os.close(place)
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise Unusable(f"is no text: byte {error.start} is not of UTF-8.") from None
    if "\0" in text:
        raise Unusable("is no text: it has a byte 0.")
    return text


def program_from(path: Path, line: int, section: str, values: Mapping[str, str | None], text: str) -> Program | None:
    """A program from its values; None where it has no command. Raises Unusable."""
    name = section.removeprefix(PREFIX).strip()
    if any(character.isspace() or character in ":/" for character in name) or not name:
        raise Unusable("has no name that supervisor takes.")
    known = {"program_name": name, "group_name": name, "here": str(path.parent), "host_node_name": os.uname().nodename}
    known |= {"process_num": "0", "numprocs": "1"}

    def value(key: str, default: str = "") -> str:
        return expand((values.get(key) or default).strip(), known)

    if not values.get("command"):
        return None
    directory = value("directory", "/")
    if not directory.startswith("/"):
        raise Unusable(f"has a directory that depends on where supervisord was started: {directory}")
    return Program(
        name=name,
        path=path,
        line=line,
        command=value("command"),
        directory=directory,
        user=value("user"),
        username=value("username"),
        username_line=line_of(text, section, "username") if "username" in values else 0,
        environment=pairs(value("environment")),
    )


def expand(text: str, known: Mapping[str, str]) -> str:
    """%(program_name)s and the like. Raises Unusable."""

    def replaced(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        if found["name"] is None:
            raise Unusable(f"has a % that supervisor cannot expand: {text}")
        if found["name"] not in known:
            raise Unusable(f"uses %({found['name']})s, which is not known here: {text}")
        value, kind = known[found["name"]], found["format"]
        width, pad = kind[:-1].lstrip("0"), "0" if kind.startswith("0") and kind.endswith("d") else " "
        return value.rjust(int(width or 0), pad)

    return EXPANSION.sub(replaced, text)


def pairs(text: str) -> dict[str, str]:
    """The value of `environment`: NAME="value",OTHER="value". Raises Unusable."""
    lexer = shlex.shlex(text)
    lexer.wordchars += "/.+-():"
    found = {}
    try:
        tokens = list(lexer)
    except ValueError:
        raise Unusable("has an environment with a quote that is not closed.") from None
    for position in range(0, len(tokens), 4):
        triple = tokens[position : position + 3]
        if len(triple) != 3 or triple[1] != "=":
            raise Unusable("has an environment that supervisor cannot read.")
        found[triple[0]] = triple[2].strip("'\"")
    return found


# What a program runs


def start_of(program: Program, read_script: Callable[[str], str]) -> Start | None:
    """How a program starts `manage.py linod`; None where it doesn't. Raises Unusable."""
    try:
        words = shlex.split(program.command)
    except ValueError:
        raise Unusable(f"has a command with a quote that is not closed: {program.command}") from None
    if words and os.path.basename(words[0]) in SHELLS:
        options = [word for word in words[1:] if word.startswith("-")]
        words = [word for word in words[1:] if not word.startswith("-")]
        if any("c" in option and not option.startswith("--") for option in options):
            return understand(words[0], program.directory) if words else None
    if not words:
        return None
    if words[0].endswith(".sh"):
        script = os.path.join(program.directory, words[0])
        return understand(read_script(script), program.directory, script)
    return understand(shlex.join(words), program.directory)


def script_of(path: str) -> str:
    """The text of a script. Raises Unusable."""
    try:
        return read_file(Path(path), LARGEST_SCRIPT)
    except Unusable as error:
        raise Unusable(f"runs {path}, which {error}") from None


# The text of a file


def lines_of(text: str) -> list[str]:
    """The lines with their ends, as configparser counts them."""
    return list(io.StringIO(text))


def sections_in(text: str) -> Iterator[tuple[int, str]]:
    """The number of each line that begins a section, from 0, and the section's name."""
    for number, line in enumerate(lines_of(text)):
        if found := HEADER.match(line):
            yield number, found["name"]


def line_of(text: str, section: str, key: str = "") -> int:
    """The number of the line where a section begins, or one of its keys; 0 where that cannot be told."""
    inside, found = False, 0
    for number, line in enumerate(lines_of(text), start=1):
        if header := HEADER.match(line):
            inside = header["name"] == section
            if inside and not key:
                return number
        elif inside and key and (match := KEY.match(line)) and match["key"].lower() == key:
            found = number
    return found


def programs_in(text: str) -> list[str]:
    """The names of all programs of a file; raises configparser.Error."""
    return [section.removeprefix(PREFIX).strip() for section in parse(text).sections() if section.startswith(PREFIX)]


def divide(text: str, names: Sequence[str]) -> tuple[str, str]:
    """A file without these programs, and the lines of these. Raises Unusable where that isn't possible for sure."""
    gone = {f"{PREFIX}{name}" for name in names}
    rest: list[str] = []
    taken: list[str] = []
    target = rest
    headers = dict(sections_in(text))
    for number, line in enumerate(lines_of(text)):
        if number in headers:
            target = taken if headers[number] in gone else rest
        target.append(line)
    kept, removed = "".join(rest), "".join(taken)
    require_divided(text, kept, removed, gone)
    return kept, removed


def require_divided(text: str, kept: str, removed: str, gone: set[str]) -> None:
    """Raises Unusable unless the two parts say what the whole has said."""
    try:
        whole, left, right = (as_dict(parse(part)) for part in (text, kept, removed))
    except configparser.Error as error:
        raise Unusable(f"cannot be divided: {error}.") from None
    defaults = whole.pop("DEFAULT"), left.pop("DEFAULT"), right.pop("DEFAULT")
    still = {f"{PREFIX}{name}" for name in programs_in(kept)}  # also where it is written with a space
    if defaults[0] or set(right) != gone or {**left, **right} != whole or gone & still:
        raise Unusable("cannot be divided by a program; take the program out by hand.")


def as_dict(parser: Parser) -> dict[str, dict[str, str | None]]:
    return {name: dict(parser.items(name)) for name in parser}


def is_empty(text: str) -> bool:
    """Whether a file says nothing to supervisor."""
    return not parse(text).sections()


# supervisord.conf


def included(text: str, directory: Path) -> list[str]:
    """The patterns of the files that a supervisord.conf includes; raises configparser.Error."""
    files = parse(text).get("include", "files", fallback="")
    return [os.path.join(directory, word.replace("%(here)s", str(directory))) for word in files.split()]
