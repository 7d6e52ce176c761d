"""What was typed: which command, with which options. Only the module of that command is imported."""

from __future__ import annotations

import argparse
import importlib
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NoReturn

from ..errors import EXIT_USAGE, LinodError
from .screen import Screen


class UsageError(LinodError):
    """The command was typed in a way that cannot be meant."""

    exit_code = EXIT_USAGE


class Options(argparse.Namespace):
    """What a command is given: its own arguments, and these."""

    json: bool
    screen: Screen
    hint: bool  # no command was typed: say how to learn of the others


class Command(ABC):
    """One command of linodctl. Parse, build, call, print."""

    details: ClassVar[str] = ""  # what its help tells after the summary
    usage: ClassVar[str | None] = None  # where argparse would not tell it well
    takes_json: ClassVar[bool] = True
    exit_usage: ClassVar[int] = EXIT_USAGE  # when it was typed wrongly
    examples: ClassVar[tuple[str, ...]]

    def arguments(self, parser: argparse.ArgumentParser) -> None:  # noqa: B027  # most, but not all, take some
        """Declare what it takes."""

    @abstractmethod
    def run(self, options: Options) -> int:
        """Do it. Returns the exit code; raises LinodError."""


# Each command: its module and class, and what it does, in the order in which the help shows them.
COMMANDS = {
    "sites": ("overview", "Sites", "show all sites of this host, and how they are"),
    "add": ("adding", "Add", "make a directory a site of this host"),
    "remove": ("adding", "Remove", "let a site be no site of this host any more"),
    "check": ("checking", "Check", "would a site start? tell every problem"),
    "list": ("tasks", "List", "show the tasks of a site"),
    "history": ("history", "History", "show the latest runs"),
    "show": ("history", "Show", "show one run whole: output, traceback, resources"),
    "why": ("why", "Why", "tell what decides when a task runs next"),
    "run": ("asking", "Run", "run a task now, through the daemon"),
    "cancel": ("asking", "CancelCommand", "end a run"),
    "pause": ("asking", "PauseCommand", "plan no more runs of a task, or of a whole site"),
    "resume": ("asking", "ResumeCommand", "end a pause of a task, or of a whole site"),
    "reload": ("asking", "ReloadCommand", "let a daemon load its site anew"),
    "status": ("monitoring", "Status", "one line and an exit code for a monitoring system"),
    "metrics": ("metrics", "MetricsCommand", "tell how all sites are in figures, for Prometheus"),
    "alert-test": ("trying", "AlertTest", "try whether people would be told of a task that fails"),
    "logs": ("logs", "Logs", "show the journal of a site or a task"),
    "exec": ("executing", "Exec", "call a site's manage.py as the site's user"),
    "import-supervisor": ("importing", "ImportSupervisor", "move sites that supervisor runs to their units, or back"),
    "supervisor-config": ("staying", "SupervisorConfig", "print what supervisor needs to run a site"),
}
SYSTEMCTLS = ("start", "stop", "restart", "enable", "disable", "mask", "unmask", "kill", "is-active", "is-enabled")
DEFAULT = "sites"
GLOBAL_OPTIONS = {
    "--json": "print JSON, for programs; instants are ISO 8601 in UTC",
    "--no-color": "no colours; so does the environment variable NO_COLOR",
}


def parse(argv: list[str]) -> tuple[Command, Options]:
    """The command and its options. Raises UsageError; leaves with 0 after --help or --version."""
    position = next((i for i, word in enumerate(argv) if not word.startswith("-")), None)
    if position is None or argv[position] == "help":
        name, rest = parse_without_command(["--help" if word == "help" else word for word in argv])
    else:
        name, rest = argv[position], argv[:position] + argv[position + 1 :]
    command = load(name, rest)
    options = parse_arguments(parser_of(name, command), rest)
    options.screen = Screen.standard(no_color=options.no_color)
    options.hint = position is None
    return command, options


def parse_arguments(parser: Parser, words: Sequence[str]) -> Options:
    options = parser.parse_args(words, namespace=Options())
    for name, value in vars(options).items():
        option = f"--{name.replace('_', '-')}"
        if value == [] and f"{option}=--" in words:  # what argparse of Python 3.11 makes of that
            parser.error(f"argument {option}: expected one argument")
    return options


def parse_without_command(argv: list[str]) -> tuple[str, list[str]]:
    """`linodctl --help`, `linodctl help COMMAND`, or linodctl alone, which shows the sites."""
    if named := next((word for word in argv if word in COMMANDS), None):
        return named, ["--help"]
    parser = Parser(prog="linodctl", add_help=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", action="version", version=version())
    add_global_options(parser)
    options, rest = parser.parse_known_args(argv)
    if options.help:
        print(overview(), end="")
        raise SystemExit(0)
    if rest:
        raise UsageError(f"There is no option {rest[0]}.", "See linodctl --help.")
    return DEFAULT, argv


def load(name: str, rest: Sequence[str]) -> Command:
    """The command of that name; raises UsageError with the one that was perhaps meant."""
    if name not in COMMANDS:
        raise UsageError(f"There is no command {name!r}.", what_was_meant(name, rest))
    module, kind, _summary = COMMANDS[name]
    command: Command = getattr(importlib.import_module(f".{module}", __package__), kind)()
    return command


def what_was_meant(name: str, rest: Sequence[str]) -> str:
    import difflib

    if name in SYSTEMCTLS:
        site = next((word for word in rest if not word.startswith("-")), "SITE")
        return f"That is systemd's: systemctl {name} linod@{site}"
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"Did you mean {close[0]}?" if close else "See linodctl --help."


class Parser(argparse.ArgumentParser):
    """Complains as all of linod does."""

    exit_usage = EXIT_USAGE

    def error(self, message: str) -> NoReturn:
        error = UsageError(f"{message[:1].upper()}{message[1:]}.", f"See {self.prog} --help.")
        error.exit_code = self.exit_usage
        raise error


def parser_of(name: str, command: Command) -> Parser:
    summary = COMMANDS[name][2]
    parser = Parser(
        prog=f"linodctl {name}",
        usage=command.usage and f"%(prog)s {command.usage}",
        description=textwrap.fill(f"{summary[0].upper()}{summary[1:]}. {command.details}".strip(), 80),
        epilog="\n  ".join(["examples:", *command.examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.exit_usage = command.exit_usage
    command.arguments(parser)
    common = parser.add_argument_group("options everywhere")
    add_global_options(common, json=command.takes_json)
    common.add_argument("--version", action="version", version=version(), help="show the version")
    common.add_argument("-h", "--help", action="help", help="show this")
    return parser


def add_global_options(parser: argparse._ActionsContainer, *, json: bool = True) -> None:
    for name, meaning in GLOBAL_OPTIONS.items():
        if json or name != "--json":
            parser.add_argument(name, action="store_true", help=meaning)


def overview() -> str:
    """What `linodctl --help` prints."""
    commands = "\n".join(f"  {name:17} {summary}" for name, (_module, _kind, summary) in COMMANDS.items())
    options = "\n".join(f"  {name:17} {meaning}" for name, meaning in GLOBAL_OPTIONS.items())
    return f"""\
usage: linodctl [COMMAND] [arguments]

The background tasks of all sites of this host. Without a command: the sites.

commands:
{commands}

options:
{options}
  --version         show the version
  --help            show this; linodctl COMMAND --help explains a command

Start, stop and enable are systemd's: systemctl enable --now linod@SITE

examples:
  linodctl add myprj /usr/local/lino/myprj
  linodctl list myprj
  linodctl history myprj --failed
  linodctl pause myprj send_newsletter --reason "mail server is moving"
"""


def version() -> str:
    from .. import __version__

    return f"linodctl {__version__}"
