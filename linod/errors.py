"""What linod says when something is wrong: one sentence for what, one for what to do.

Every error that reaches a person is one of these. The faces print `str(error)` and exit with `error.exit_code`;
a traceback is only ever shown for a bug of ours or for an exception of the site's own code.
"""

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_TRY_LATER = 75  # EX_TEMPFAIL of sysexits.h: somebody else holds the site, the same command works later
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: a restart cannot mend it, so the unit doesn't try


class LinodError(Exception):
    """An error with a hint: what is wrong, then what to do about it."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class DeclarationError(LinodError, ValueError):
    """A task is declared in a way that cannot work; raised on the line of the declaration."""

    exit_code = EXIT_CONFIGURATION


class ConfigurationError(LinodError):
    """The site or its settings are not what linod needs; retrying will not help."""

    exit_code = EXIT_CONFIGURATION


class SiteNotReady(LinodError):
    """The site could not be loaded for a reason that may pass, like a database that is down."""


class SiteLocked(LinodError):
    """Another daemon runs the tasks of this site."""

    exit_code = EXIT_TRY_LATER


class HistoryError(LinodError):
    """The history of a site cannot be read or written."""


class WireError(LinodError):
    """The two ends of a socket between linod's processes do not understand each other."""
