"""What the daemon tells systemd: only the truth, and only from its own loop. The only importer of sdnotify."""

from __future__ import annotations

import os

from ..words import printable
from .clock import monotonic

LONGEST_STATUS = 400  # characters; `systemctl status` shows one line
MOST_UNSENT = 20  # messages that wait until systemd reads again


class Notifier:
    """Speaks to the service manager where there is one; silent elsewhere."""

    def __init__(self) -> None:
        self._notifier = None
        self._status = ""
        self._complaint = ""
        self._in_trouble = False
        self._unsent: list[str] = []
        self.interval = watchdog_interval()
        self._next_ping = 0.0
        if os.environ.get("NOTIFY_SOCKET"):
            try:
                from sdnotify import SystemdNotifier

                self._notifier = SystemdNotifier(debug=True)
                self._notifier.socket.setblocking(False)  # PID 1 may be stopped, and the loop waits for nobody
            except Exception as error:
                self._complain(str(error))
            self._forget_environment()

    @property
    def wanted(self) -> bool:
        """Whether somebody listens."""
        return self._notifier is not None

    def ready(self) -> None:
        """All that the unit is needed for works. Also said at the end of a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload has begun. systemd 253 and newer wait for ever where the time is missing."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic() * 1e6)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """What is going on, a start or a stop, may take so much longer from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def status(self, text: str) -> None:
        """One short line for `systemctl status`; sent only when it is another than before."""
        text = one_line(text)
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def failed(self, text: str, errno: int) -> None:
        self._send(f"STATUS={one_line(text)}\nERRNO={errno}")

    def turn_finished(self) -> None:
        """Feed the watchdog. Called at the end of each turn, so that a loop that is stuck falls silent."""
        if self._unsent:
            self._send()
        if self.interval and monotonic() >= self._next_ping:
            self._next_ping = monotonic() + self.interval
            self._send("WATCHDOG=1")

    def next_ping(self) -> float | None:
        """Seconds until the watchdog wants to be fed."""
        return max(0.0, self._next_ping - monotonic()) if self.interval else None

    def complaint(self) -> str:
        """Why a message that systemd asked for could not be sent; told once."""
        complaint, self._complaint = self._complaint, ""
        return complaint

    def _send(self, *messages: str) -> None:
        if self._notifier is None:
            return
        self._unsent = [*self._unsent, *messages][-MOST_UNSENT:]
        try:
            while self._unsent:
                self._notifier.notify(as_utf_8(self._unsent[0]))
                del self._unsent[0]
            self._in_trouble = False
        except BlockingIOError:
            pass  # systemd is busy; the next turn tries again
        except OSError as error:
            del self._unsent[0]
            self._complain(error.strerror or str(error))

    def _complain(self, reason: str) -> None:
        if not self._in_trouble:
            self._in_trouble = True
            self._complaint = f"systemd wants to be notified, but that fails: {reason}."

    def _forget_environment(self) -> None:
        """What systemd says to the daemon is for no process that it starts."""
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            os.environ.pop(name, None)


def one_line(text: str) -> str:
    """What follows a line break would be another message; and what a terminal obeys, systemctl would let it obey."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= LONGEST_STATUS else f"{text[: LONGEST_STATUS - 1]}…"


def as_utf_8(message: str) -> str:
    """A message that sdnotify, which writes Latin-1, will send as UTF-8: systemd reads nothing else."""
    return message.encode().decode("latin-1")


def watchdog_interval() -> float:
    """Seconds between two pings: a third of what systemd allows. 0 where it has no watchdog on this process."""
    try:
        pid = int(os.environ.get("WATCHDOG_PID", os.getpid()))
        limit = int(os.environ.get("WATCHDOG_USEC", 0)) / 1e6
    except ValueError:
        return 0.0
    return limit / 3 if pid == os.getpid() else 0.0
