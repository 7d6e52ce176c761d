"""Move a site from supervisor to its unit, or back: step by step, and where one fails, all steps back again.

Before something is started that runs a site's tasks, everything else that does has ended: at no moment two run them.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import ConfigurationError, LinodError
from ..sites import HostSite
from ..words import count
from . import adding, aside, leftovers, owned, units
from .checking import examine
from .footing import opened
from .moving import Move, Moved
from .screen import warn
from .supervisorctl import Supervisorctl
from .survey import who_runs

Say = Callable[[str], None]
Undo = Callable[[], None]
STARTING = 900.0  # seconds: a unit may extend its own limits
STOPPING = 900.0
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Steps:
    """What was done so far, with what undoes each step."""

    def __init__(self) -> None:
        self._undo: list[Undo] = []

    def done(self, undo: Undo) -> None:
        self._undo.append(undo)

    def do(self, step: Callable[[], object], undo: Undo) -> None:
        """Do a step of which nothing stays if it fails. It is not interrupted before it can be undone."""
        with interrupts_later():
            step()
            self._undo.append(undo)

    def back(self) -> list[str]:
        """Undo all of it, the last step first; returns what could not be undone."""
        failed = []
        while self._undo:
            try:
                self._undo.pop()()
            except (LinodError, OSError) as error:
                failed.append(str(error))
        return failed


@contextmanager
def all_or_nothing(name: str) -> Iterator[Steps]:
    """Steps of which none stays done when one fails; raises LinodError with what failed."""
    steps = Steps()
    try:
        yield steps
    except BaseException as error:
        with no_interrupts():
            failed = steps.back()
        how = f"It could not all be undone: {' '.join(failed)}" if failed else "Everything is as it was before."
        if not isinstance(error, LinodError | OSError):
            warn(f"{name} was not moved. {how}")
            raise
        raise LinodError(f"{name} was not moved. {error}", how) from None


def move(one: Move, supervisor: Supervisorctl, say: Say, *, chown: bool) -> None:
    """Let the unit run a site instead of supervisor. Raises LinodError, and has then changed nothing."""
    program, site, directory = one.job.program, one.site, one.job.directory
    if one.problems or one.account is None:
        raise LinodError(f"{program.name} cannot be moved. {one.problems[0]}")
    with all_or_nothing(program.name) as steps:
        if not one.is_site:
            add(one, steps)
            say(f"{site.name} is a site, run by {one.account.name}")
        if chown and one.owned:
            say(f"gave {count(owned.give(directory, one.account), 'file')} to {one.account.name}")
        require_would_start(site, hint="" if chown or not one.owned else " Perhaps --chown mends it.")
        stop_program(one, supervisor, steps)
        say(f"{program.name} is stopped")
        with opened(directory) as place:  # whatever the path leads to by now, nobody else's processes are ended
            ended = leftovers.end_all(Path(f"/proc/self/fd/{place}"), states_of(site))
        if ended:
            say(f"ended {', '.join(f'process {pid}' for pid in ended)}")
        if chown and one.owned:
            owned.give(directory, one.account)  # what the job has made as root meanwhile
        take_out(program.path, program.name, supervisor, steps)
        say(f"{program.path} is without {program.name}; it was kept as {aside.aside_of(program.path)}")
        if one.wanted:
            start_unit(site, steps)
            say(f"{site.unit} is enabled and runs it")
        else:
            say(f"{site.unit} is not started, as {program.name} was stopped")


def move_back(one: Moved, supervisor: Supervisorctl, say: Say) -> None:
    """Let supervisor run a site again. Raises LinodError, and has then changed nothing."""
    with all_or_nothing(one.name) as steps:
        running = False
        if one.site is not None:
            running = stop_units(one.site, steps)
            say(f"{one.site.unit} is stopped and disabled")
            if not one.job.start.site:
                remove(one.site, steps)
                say(f"{one.site.name} is no site any more; its history stays in {one.site.state}")
        put_in(one, supervisor, steps)
        say(f"{one.path} has {one.name} again")
        if running and supervisor.installed:
            supervisor.start(one.name)
            say(supervisor.in_words(one.name))


# Steps of a move


def add(one: Move, steps: Steps) -> None:
    site, directory, files = one.site, one.job.directory, dict(adding.files_for(one.site, one.given))
    adding.require_free(site, directory)
    steps.do(lambda: adding.make(site, directory, files), lambda: adding.unmake(site, files))


def require_would_start(site: HostSite, hint: str) -> None:
    found = examine(site)
    if found.problems:
        raise ConfigurationError(f"As {site.unit} it would not start: {' '.join(found.problems)}{hint}")
    if not found.uses_linod:
        raise ConfigurationError(" ".join(found.loaded_in_words()))


def states_of(site: HostSite) -> list[Path]:
    """Where somebody else may hold the lock of a site; its own unit may."""
    return [] if is_active(site.unit) else [site.state]


def is_active(unit: str) -> bool:
    found = units.show([unit]).get(unit)
    return bool(found and found["ActiveState"] not in ("inactive", "failed"))


def stop_program(one: Move, supervisor: Supervisorctl, steps: Steps) -> None:
    if one.wanted:
        steps.done(lambda: supervisor.start(one.name))
    supervisor.stop(one.name)


def take_out(path: Path, name: str, supervisor: Supervisorctl, steps: Steps) -> None:
    def undo() -> None:
        aside.put_back(path, name)
        supervisor.update(name)

    steps.do(lambda: aside.put_aside(path, name), undo)
    supervisor.forget(name)


def start_unit(site: HostSite, steps: Steps) -> None:
    enabled, active = bool(is_enabled(site.unit)), is_active(site.unit)
    if not enabled:
        steps.done(lambda: units.systemctl("disable", site.unit))
        units.systemctl("enable", site.unit)
    if not active:
        steps.done(lambda: stop_for_good(site.unit))
        units.systemctl("start", site.unit, patience=STARTING)
    if not is_active(site.unit):
        raise LinodError(f"{site.unit} has ended again.", f"See why: journalctl -u linod@{site.name}")


def is_enabled(unit: str) -> bool:
    found = units.show([unit]).get(unit)
    return bool(found and found.enabled)


def stop_for_good(unit: str) -> None:
    units.systemctl("stop", unit, patience=STOPPING)
    units.systemctl("reset-failed", unit, check=False)


# Steps of a move back


def stop_units(site: HostSite, steps: Steps) -> bool:
    """Stop and disable the service and the timer of a site. Returns whether one of them ran."""
    ran = False
    for unit in (units.timer_of(site), site.unit):
        active = is_active(unit)
        ran |= active
        if active:
            steps.done(lambda unit=unit: units.systemctl("start", unit, patience=STARTING))  # type: ignore[misc]
        if is_enabled(unit):
            steps.done(lambda unit=unit: units.systemctl("enable", unit))  # type: ignore[misc]
        units.systemctl("disable", unit)
        stop_for_good(unit)
    if (pid := who_runs(site.state)[0]) is not None:
        raise LinodError(f"Process {pid} still runs the tasks of {site.name}.", "Stop it first.")
    return ran


def remove(site: HostSite, steps: Steps) -> None:
    """Let it be no site any more; its history stays, and so does what an administrator has written."""
    directory = site.directory
    ours = [*adding.drop_ins(site), site.overrides, site.environment]
    files = {path: path.read_text() for path in ours if adding.is_ours(path)}
    gone: list[Path] = []

    def undo() -> None:
        if gone:  # the link is what goes first
            adding.make(site, directory, {path: text for path, text in files.items() if path in gone})

    steps.done(undo)
    with adding.rights(), interrupts_later():
        gone.extend(adding.remove(site, purge=False))
    units.systemctl("daemon-reload")


def put_in(one: Moved, supervisor: Supervisorctl, steps: Steps) -> None:
    def undo() -> None:
        supervisor.stop(one.name)
        aside.put_aside(one.path, one.name)
        supervisor.forget(one.name)

    steps.do(lambda: aside.put_back(one.path, one.name), undo)
    supervisor.update(one.name)
    if supervisor.installed and not supervisor.states(one.name):
        raise LinodError(f"supervisor does not know {one.name}, though its file is back.", "Try: supervisorctl reread")


# Around all of them


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Nobody else moves anything meanwhile; raises LinodError where somebody does."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise LinodError(
            f"Another linodctl changes {directory} at this moment.", "Try again when it is done."
        ) from None
    finally:
        os.close(fd)


@contextmanager
def interrupted_once() -> Iterator[None]:
    """Ctrl-C, SIGTERM and the end of the terminal undo what was begun; the undoing itself is not interrupted."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        set_handlers(dict.fromkeys(INTERRUPTS, signal.SIG_IGN))
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
    try:
        yield
    finally:
        set_handlers(before)


@contextmanager
def interrupts_later() -> Iterator[None]:
    """An interrupt that comes meanwhile takes effect afterwards."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: came.append(number)) for number in INTERRUPTS}
    try:
        yield
    finally:
        set_handlers(before)
        for number in came[:1]:
            signal.raise_signal(number)


@contextmanager
def no_interrupts() -> Iterator[None]:
    """An interrupt that comes meanwhile is ignored, also by the programs that are started."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPTS}
    try:
        yield
    finally:
        set_handlers(before)


def set_handlers(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def moved_state(one: Moved) -> str:
    """What became of a site that was moved, in words."""
    if one.site is None:
        return "its directory is no site any more."
    active, enabled = is_active(one.site.unit), is_enabled(one.site.unit)
    timer = units.timer_of(one.site)
    if not active and is_active(timer):
        return f"{timer} is active."
    if active and enabled:
        return f"{one.site.unit} is active."
    if active:
        return f"{one.site.unit} is active, but not enabled: systemctl enable linod@{one.site.name}"
    return f"{one.site.unit} does not run: systemctl enable --now linod@{one.site.name}"
