"""linodctl: all sites of a host, from a shell.

It reads each site's history and asks systemd, and reaches a running daemon through its control socket. It loads neither
Django nor a site: what needs the site's code runs as the site's user, in the site's interpreter.

`main` finds the command; each command is a small class in a module of this package, which is imported when it is typed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..errors import EXIT_FAILED, LinodError

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141  # as a program that SIGPIPE ends


def main(argv: Sequence[str] | None = None) -> int:
    """Run linodctl. Returns the exit code."""
    from .screen import say_error

    open_streams()
    try:
        try:
            return run(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        write_no_more()
        return EXIT_BROKEN_PIPE
    except OSError as error:  # something that nobody has expected, like a full disk or a closed directory on the way
        write_no_more()
        say_error(LinodError(f"{error.filename or 'This host'}: {error.strerror or error}."))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def run(argv: list[str]) -> int:
    from .parsing import parse
    from .screen import say_error

    try:
        command, options = parse(argv)
        return command.run(options)
    except LinodError as error:
        say_error(error)
        return error.exit_code
    except SystemExit as leaving:  # argparse, after --help and --version
        return int(leaving.code or 0)


def open_streams() -> None:
    """Let closed standard streams lead nowhere. Else the next file that is opened would be taken for one of them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def write_no_more() -> None:
    """Nobody reads any more. What is still to be written goes nowhere, else Python would complain at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
