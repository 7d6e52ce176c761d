"""Set the daemon up: find and lock the site, open history, then run the loop."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path

from .. import sites
from ..alert.memory import recovery_command
from ..conf import Settings
from ..errors import EXIT_CONFIGURATION, ConfigurationError, LinodError, SiteLocked
from ..launch import Launch, clean_environment
from ..linux import adopt_orphans, name_process
from .cached import what_is_due
from .history import SqliteHistory
from .journal import JournalSink, reads_our_output
from .lock import keep_lock, lock_site, require_no_other_lock
from .loop import Daemon
from .notify import Notifier
from .reporter import Reporter, standard_sink
from .service import launch_site

LAST_WRITES = 30.0  # seconds that history gets to write what is left
EXIT_FAULT = 70  # EX_SOFTWARE of sysexits.h
ONCE = "--once"
USAGE = "This is the daemon: python3 -m linod.daemon [--once] SITE. It is started by systemctl start linod@SITE."


def main(arguments: list[str]) -> int:
    """Run the daemon: of a site by its name, or as a command of the site has laid down. Returns its exit code."""
    names = [argument for argument in arguments if argument != ONCE]
    if len(names) != 1:
        print(USAGE, file=sys.stderr)
        return EXIT_CONFIGURATION
    # A launch comes from the command in the site, which has forked and executes us.
    launch = Launch.from_argument(names[0]) if names[0].startswith("{") else None
    once = ONCE in arguments
    reporter = make_reporter(launch.name if launch else names[0])
    notifier = Notifier()
    try:
        if launch is None:
            launch = launch_site(names[0], once=once)
            if once and not what_is_due(Path(launch.state)):
                return 0
        code = run(launch, reporter, notifier)
        if once and code == 0:
            tell_recovery(launch)
        return code
    except LinodError as error:
        # That the daemon has the site is what a timer finds each minute, where somebody has started both.
        reporter.not_started(str(error), logging.DEBUG if once and isinstance(error, SiteLocked) else logging.ERROR)
        notifier.failed(str(error), 22 if isinstance(error, ConfigurationError) else 1)
        return EXIT_CONFIGURATION if isinstance(error, sites.UnknownSite) else error.exit_code
    except Exception as error:
        reporter.bug(f"{type(error).__name__}: {error}", traceback.format_exc())
        notifier.failed("a fault of linod itself; see the journal", 1)
        return EXIT_FAULT
    finally:
        reporter.close()


def make_reporter(name: str) -> Reporter:
    return Reporter(JournalSink(name) if reads_our_output() else standard_sink())


def tell_recovery(launch: Launch) -> None:
    """After a pass that went well: have people told that the site works again, if they know that it had failed."""
    if command := recovery_command(Path(launch.state), launch.name):
        os.waitpid(os.posix_spawn(command[0], command, clean_environment()), 0)


def run(launch: Launch, reporter: Reporter, notifier: Notifier) -> int:
    """Run the loop with all that it needs around it."""
    name_process("linod", f"linod@{launch.name}: daemon")
    adopt_orphans()
    state = Path(launch.state)
    require_no_other_lock(Path(launch.place.directory), state)
    lock = lock_site(state)
    history = SqliteHistory(state, Settings(), lambda: keep_lock(state, lock))
    try:
        code = Daemon(launch, history, reporter, notifier, lock).run()
    finally:
        if not history.close(LAST_WRITES):
            reporter.history_trouble(history.trouble or "the disk does not answer")
    if code in (0, 130, 143) and sys.exc_info()[0] is None:
        reporter.stopped()
    os.close(lock)
    return code
