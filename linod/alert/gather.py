"""What is known of a failure: asked of systemd and of the journal, as far as they answer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..sites import HostSite

PATIENCE = 10.0  # seconds for each question
LINES = 30
# Seconds that a unit gets to fail for good or to run again. Its StartLimitIntervalSec= is ten minutes.
SETTLES_WITHIN = 660.0
LONGEST_PAUSE = 5.0  # seconds between two looks
PROPERTIES = ("ActiveState", "Result", "ExecMainCode", "ExecMainStatus", "StatusText", "NRestarts", "StartLimitBurst")
# What waitid(2) says, in the words of systemd's variables.
CODES = {"1": "exited", "2": "killed", "3": "dumped"}
UNSETTLED = ("activating", "deactivating", "reloading")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a unit has failed. What could not be found out is empty."""

    site: str
    unit: str
    host: str
    when: str
    result: str = ""  # exit-code, signal, core-dump, watchdog, timeout, oom-kill, start-limit-hit, …
    code: str = ""  # exited, killed or dumped
    status: str = ""  # the exit code, or the name of the signal
    said: str = ""  # the last that the daemon told systemd
    gave_up: bool = False  # after as many restarts as the unit allows
    lines: tuple[str, ...] = ()  # the last ones of its journal


def find_failure(site: HostSite, environment: Mapping[str, str] = os.environ) -> Failure | None:
    """What has failed for good of a site; None where nothing has, because systemd has started it again.

    Newer versions of systemd (257, not 252) tell of each crash, also when a restart follows. So this waits until it is
    settled, for as long as a crash loop may take; further crashes start no second process meanwhile.
    """
    units = candidates(site, environment)
    deadline, pause = time.monotonic() + SETTLES_WITHIN, 0.25
    while True:
        shown = {unit: show(unit) for unit in units}
        states = [shown[unit].get("ActiveState", "") for unit in units]
        if not any(states):  # without a message bus only root may ask
            return describe(site, units[0], {}, environment)
        if "failed" in states:
            unit = units[states.index("failed")]
            return describe(site, unit, shown[unit], environment)
        if not set(states) & set(UNSETTLED) or time.monotonic() > deadline:
            return None
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


def candidates(site: HostSite, environment: Mapping[str, str]) -> list[str]:
    """The units that may have failed. systemd names the one, unless several could have triggered the alert."""
    named = environment.get("MONITOR_UNIT")
    return [named] if named else [site.unit, f"linod-run@{site.name}.service"]


def describe(site: HostSite, unit: str, shown: Mapping[str, str], environment: Mapping[str, str]) -> Failure:
    code = CODES.get(shown.get("ExecMainCode", "")) or environment.get("MONITOR_EXIT_CODE", "")
    status = shown.get("ExecMainStatus") or environment.get("MONITOR_EXIT_STATUS", "")
    return Failure(
        site=site.name,
        unit=unit,
        host=socket.gethostname(),
        when=now_here(),
        result=shown.get("Result") or environment.get("MONITOR_SERVICE_RESULT", ""),
        code=code,
        status=status if code == "exited" else signal_name(status),
        said=shown.get("StatusText", ""),
        gave_up=has_given_up(shown),
        lines=last_lines(unit),
    )


def of_site(site: HostSite) -> Failure:
    """A failure of which nothing is asked: where and when this is."""
    return Failure(site=site.name, unit=site.unit, host=socket.gethostname(), when=now_here())


def now_here() -> str:
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}"


def signal_name(status: str) -> str:
    try:
        return signal.Signals(int(status)).name
    except ValueError:
        return status


def show(unit: str) -> dict[str, str]:
    """Properties of a unit; none where systemd doesn't answer."""
    text = output_of("systemctl", "show", *(f"--property={name}" for name in PROPERTIES), "--", unit)
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def has_given_up(shown: Mapping[str, str]) -> bool:
    """Whether systemd has restarted a unit as often as it may."""
    restarts, most = shown.get("NRestarts", ""), shown.get("StartLimitBurst", "")
    return restarts.isdigit() and most.isdigit() and int(restarts) >= int(most) > 0


def last_lines(unit: str) -> tuple[str, ...]:
    """The end of a unit's journal, with what systemd says of it."""
    try:
        from systemd.journal import Reader
    except ImportError:
        about = ("--quiet", "--no-pager", f"--lines={LINES}", "--output=short-iso", f"--unit={unit}")
        return tuple(output_of("journalctl", *about).splitlines())
    with Reader() as reader:
        reader.add_match(_SYSTEMD_UNIT=unit)
        reader.add_disjunction()
        reader.add_match("_PID=1", UNIT=unit)
        reader.seek_tail()
        entries = [entry for _ in range(LINES) if (entry := reader.get_previous())]
    lines = [line for entry in reversed(entries) for line in line_of(entry).splitlines()]
    return tuple(lines[-2 * LINES :])


def line_of(entry: Mapping[str, Any]) -> str:
    """An entry of the journal as journalctl shows it."""
    who = entry.get("SYSLOG_IDENTIFIER") or entry.get("_COMM", "")
    return f"{entry['__REALTIME_TIMESTAMP']:%Y-%m-%d %H:%M:%S} {who}: {entry.get('MESSAGE', '')}"


def output_of(*command: str) -> str:
    """What a command prints; nothing where it fails, for a short mail is better than none."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            env={**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")
