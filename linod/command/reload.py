"""`--reload`: for developers, start the daemon anew whenever the site's code changes.

This process loads the site to know its files, and watches them with Django's autoreloader; the daemon is a child.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import Any

from django.utils import autoreload

POLL = 0.2  # seconds


class Watcher:
    """Runs the daemon, and again after each change."""

    def __init__(self, directory: str) -> None:
        """`directory`: where the command was typed, to which its arguments are relative."""
        self.directory = directory
        self.changed = threading.Event()
        self.process: subprocess.Popen[bytes] | None = None
        self.asked_to_stop = False

    def run(self) -> int:
        """Returns the exit code of the daemon when it was told to stop."""
        autoreload.file_changed.connect(self.note_change, weak=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.forward)
        reloader = autoreload.get_reloader()
        threading.Thread(target=reloader.run, args=(threading.main_thread(),), name="reloader", daemon=True).start()
        while True:
            code = self.run_once()
            if self.asked_to_stop or (code == 0 and not self.changed.is_set()):
                return code
            if not self.changed.is_set():
                print(f"linod left with exit code {code}; waiting for the code to change.", flush=True)
            while not self.changed.wait(POLL):
                if self.asked_to_stop:
                    return code
            self.changed.clear()
            print("The code has changed.", flush=True)

    def run_once(self) -> int:
        """Run the daemon until it ends, or the code changes."""
        arguments = [argument for argument in sys.orig_argv[1:] if argument != "--reload"]
        self.process = subprocess.Popen([sys.executable, *arguments], cwd=self.directory)
        while self.process.poll() is None:
            if self.changed.wait(POLL):
                self.process.terminate()
                self.process.wait()
        return self.process.returncode

    def note_change(self, **_signal: Any) -> bool:
        """True: the reloader need not do anything itself."""
        self.changed.set()
        return True

    def forward(self, number: int, _frame: Any) -> None:
        """A terminal sends Ctrl-C to the daemon as well; whoever signals only this process means both."""
        self.asked_to_stop = True
        if number != signal.SIGINT and self.process is not None:
            self.process.send_signal(number)
