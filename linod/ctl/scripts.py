"""What a shell would do to start `manage.py linod`: the few commands that such scripts consist of, read and not run.

Pure functions. What is not understood is handed back, so that a person can look at it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .. import sites
from ..sites import NAME

MANAGE = "manage.py"
COMMAND = "linod"
DAEMON = ["-m", "linod.daemon"]
SEPARATORS = ";&|()"
LONGEST = 4096  # characters of a word; no path is longer
# The ways in which a script says "the directory that I am in".
OWN_DIRECTORY = re.compile(
    r"\$\(\s*dirname\s+(?:--\s+)?\"?(?:\$0|\$\{0\}|\$\{BASH_SOURCE(?:\[0\])?\}|\$\(\s*readlink\s+-f\s+\"?\$0\"?\s*\))\"?\s*\)"
    r"|`\s*dirname\s+\"?\$0\"?\s*`"
)
VARIABLE = re.compile(r"\$(?:\{(?P<braced>[A-Za-z_]\w*)\}|(?P<plain>[A-Za-z_]\w*))")
ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_]\w*)=(?P<value>.*)", re.DOTALL)
HARMLESS = ("set", "umask", "ulimit", "echo", "true", ":", "trap", "renice", "ionice", "sleep")


@dataclass(frozen=True, kw_only=True)
class Start:
    """How the tasks of a site are started: by its `manage.py linod`, or by the daemon with the name of the site."""

    directory: str  # of the manage.py; absolute
    site: str = ""  # the name, where it is started by that
    environment: str | None = None  # the virtual environment that is activated
    python: str | None = None  # the interpreter, where a path says which
    exported: Mapping[str, str] = field(default_factory=dict)
    strange: tuple[str, ...] = ()  # commands before it that were not understood


def understand(text: str, directory: str, script: str | None = None) -> Start | None:
    """What the commands of a shell start, from that working directory; None where it isn't `manage.py linod`."""
    state = Shell(directory=directory, script=script)
    for words in commands_in(own_directory_replaced(text, script)):
        if start := state.take(words):
            return start
    return None


def own_directory_replaced(text: str, script: str | None) -> str:
    return OWN_DIRECTORY.sub(lambda _: shlex.quote(os.path.dirname(script)), text) if script else text


def commands_in(text: str) -> Iterator[list[str]]:
    """The simple commands of a text; a line that no shell could read is a command of one word."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=SEPARATORS)
        lexer.whitespace_split = True
        words: list[str] = []
        try:
            for token in lexer:
                if token and set(token) <= set(SEPARATORS):
                    yield words
                    words = []
                else:
                    words.append(token)
        except ValueError:
            words = [line.strip()]
        yield words


@dataclass(kw_only=True)
class Shell:
    """What a shell knows so far."""

    directory: str
    script: str | None
    environment: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    exported: set[str] = field(default_factory=set)
    strange: list[str] = field(default_factory=list)

    def take(self, words: Sequence[str]) -> Start | None:
        """Do one command. Returns what it starts, where that is `manage.py linod`."""
        words = [self.expanded(word) for word in words]
        while words and (found := ASSIGNMENT.fullmatch(words[0])):
            self.variables[found["name"]] = found["value"]
            words = words[1:]
            if words:
                self.exported.add(found["name"])  # NAME=value command
        while words[:1] == ["exec"] and len(words) > 1:
            words = words[1:]
        if not words:
            return None
        name, *rest = words
        if name == "cd":
            self.directory = self.path(rest[-1] if rest else "/")
        elif name in (".", "source") and rest and rest[0].endswith("/bin/activate"):
            self.environment = os.path.dirname(os.path.dirname(self.path(rest[0])))
        elif name == "export":
            self.export(rest)
        elif start := self.start(words) or self.start_by_name(words):
            return start
        elif name not in HARMLESS:
            self.strange.append(" ".join(words))
        return None

    def expanded(self, word: str) -> str:
        """A word with its variables; one that is or becomes too long stays as it is, for each could double the next."""
        if len(word) > LONGEST:
            return word
        text = VARIABLE.sub(lambda found: self.variables.get(found["braced"] or found["plain"], found[0]), word)
        return text if len(text) <= LONGEST else word

    def path(self, word: str) -> str:
        return os.path.normpath(os.path.join(self.directory, word))

    def export(self, words: Sequence[str]) -> None:
        for word in words:
            name, equals, value = word.partition("=")
            if equals:
                self.variables[name] = value
            self.exported.add(name)

    def start(self, words: Sequence[str]) -> Start | None:
        """`[python] [path/]manage.py linod`, or None."""
        place = next((i for i, word in enumerate(words) if os.path.basename(word) == MANAGE), None)
        if place is None or COMMAND not in words[place + 1 :] or place > 4:
            return None
        program = words[0] if place else None
        if program and not os.path.basename(program).startswith("python"):
            return None
        exported = {name: self.variables[name] for name in sorted(self.exported) if name in self.variables}
        return Start(
            directory=os.path.dirname(self.path(words[place])),
            environment=self.environment,
            python=self.path(program) if program and "/" in program else None,
            exported=exported,
            strange=tuple(self.strange),
        )

    def start_by_name(self, words: Sequence[str]) -> Start | None:
        """What `linodctl supervisor-config` prints: `python3 … -m linod.daemon SITE`."""
        if words[-3:-1] != DAEMON or not NAME.fullmatch(words[-1]):
            return None
        return Start(directory=str(sites.SITES / words[-1]), site=words[-1], strange=tuple(self.strange))
