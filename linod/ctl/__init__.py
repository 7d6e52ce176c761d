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
    from .parsing import parse
    from .screen import say_error

    try:
        command, options = parse(list(sys.argv[1:] if argv is None else argv))
        code = command.run(options)
        sys.stdout.flush()
        return code
    except LinodError as error:
        say_error(error)
        return error.exit_code
    except SystemExit as leaving:  # argparse, after --help and --version
        return int(leaving.code or 0)
    except BrokenPipeError:
        leave_the_pipe()
        return EXIT_BROKEN_PIPE
    except OSError as error:  # something that nobody has expected, like a closed directory on the way
        say_error(LinodError(f"{error.filename or 'This host'}: {error.strerror or error}."))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def leave_the_pipe() -> None:
    """Nobody reads any more. What is still to be written goes nowhere, else Python would complain at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
