"""What the daemon tells systemd: only the truth, and only from its own loop. The only importer of sdnotify."""

from __future__ import annotations

import os

from .clock import monotonic


class Notifier:
    """Speaks to the service manager where there is one; silent elsewhere."""

    def __init__(self) -> None:
        self._notifier = None
        self._status = ""
        self.complaint = ""  # why a message that systemd asked for could not be sent
        self.interval = watchdog_interval()
        self._next_ping = 0.0
        if os.environ.get("NOTIFY_SOCKET"):
            try:
                from sdnotify import SystemdNotifier

                self._notifier = SystemdNotifier(debug=True)
            except Exception as error:
                self.complaint = f"systemd wants to be notified, but that fails: {error}."
            self._forget_environment()

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One short line for `systemctl status`; sent only when it is another than before."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={one_line(text)}")

    def failed(self, text: str, errno: int) -> None:
        self._send(f"STATUS={one_line(text)}\nERRNO={errno}")

    def turn_finished(self) -> None:
        """Feed the watchdog. Called at the end of each turn, so that a loop that is stuck falls silent."""
        if self.interval and monotonic() >= self._next_ping:
            self._next_ping = monotonic() + self.interval
            self._send("WATCHDOG=1")

    def next_ping(self) -> float | None:
        """Seconds until the watchdog wants to be fed."""
        return max(0.0, self._next_ping - monotonic()) if self.interval else None

    def _send(self, message: str) -> None:
        if self._notifier is None:
            return
        try:
            self._notifier.notify(message)
        except OSError as error:
            self.complaint = f"systemd wants to be notified, but that fails: {error.strerror}."

    def _forget_environment(self) -> None:
        """What systemd says to the daemon is for no process that it starts."""
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            os.environ.pop(name, None)


def one_line(text: str) -> str:
    """What follows a line break would be another message; and what is no Unicode could not be sent."""
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode()


def watchdog_interval() -> float:
    """Seconds between two pings: a third of what systemd allows. 0 where it has no watchdog on this process."""
    try:
        pid = int(os.environ.get("WATCHDOG_PID", os.getpid()))
        limit = int(os.environ.get("WATCHDOG_USEC", 0)) / 1e6
    except ValueError:
        return 0.0
    return limit / 3 if pid == os.getpid() else 0.0
