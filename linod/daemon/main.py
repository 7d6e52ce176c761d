"""Set the daemon up: lock the site, open history, then run the loop."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from ..conf import Settings
from ..errors import LinodError
from ..launch import Launch
from ..linux import adopt_orphans, name_process
from .history import SqliteHistory
from .journal import JournalSink, reads_our_output
from .lock import lock_site
from .loop import Daemon
from .notify import Notifier
from .reporter import Reporter, standard_sink

LAST_WRITES = 30.0  # seconds that history gets to write what is left


def main(argument: str) -> int:
    """Run the daemon. Returns its exit code."""
    launch = Launch.from_argument(argument)
    reporter = Reporter(JournalSink(launch.name) if reads_our_output() else standard_sink())
    notifier = Notifier()
    try:
        return run(launch, reporter, notifier)
    except LinodError as error:
        reporter.say(str(error), 40)
        notifier.failed(str(error), 1)
        return error.exit_code
    except Exception as error:
        reporter.bug(f"{type(error).__name__}: {error}", traceback.format_exc())
        notifier.failed("a fault of linod itself; see the journal", 1)
        return 70


def run(launch: Launch, reporter: Reporter, notifier: Notifier) -> int:
    name_process("linod")
    adopt_orphans()
    state = Path(launch.state)
    lock = lock_site(state)
    history = SqliteHistory(state, Settings())
    try:
        code = Daemon(launch, history, reporter, notifier, lock).run()
    finally:
        if not history.close(LAST_WRITES):
            reporter.history_trouble(history.trouble or "the disk does not answer")
    if code in (0, 130, 143) and sys.exc_info()[0] is None:
        reporter.stopped()
    os.close(lock)
    return code
