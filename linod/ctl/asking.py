"""What is asked of a running daemon: run, cancel, pause, resume, reload."""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..bar import Bar
from ..caller import PATIENCE, NotRunning, ask, follow
from ..errors import EXIT_FAILED, EXIT_TRY_LATER, HistoryError, LinodError
from ..runs import Outcome
from ..sites import HostSite
from ..state import CONTROL, user_name
from ..wire import (
    Accepted,
    Begin,
    Cancel,
    Done,
    Ended,
    Message,
    Pause,
    Progress,
    Refused,
    Reload,
    Resume,
    RunNow,
    Wrote,
)
from ..words import duration
from .accounts import find_account, in_child
from .naming import find_run_id, find_task, only_site, site_and_more
from .parsing import Command, Options, UsageError
from .screen import visible, warn
from .survey import history_of

EXIT_CODES = {Outcome.SUCCEEDED: 0, Outcome.TIMED_OUT: 124, Outcome.CANCELLED: 130}  # as of manage.py linod --run
EXIT_INTERRUPTED = 130


class Refusal(LinodError):
    """The daemon said no."""


class Run(Command):
    details = (
        "It is run by the daemon, as whenever it is due. What it writes is shown, and the exit code tells how it"
        " ended: 0 succeeded, 1 failed or crashed, 124 timed out, 130 cancelled. Ctrl-C leaves it running."
    )
    usage = "[options] [SITE] TASK"
    examples = ("linodctl run myprj send_newsletter", "linodctl run myprj blog.tasks.tidy --json")

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", metavar="SITE TASK", nargs="+", help="the name of a site, and of a task of it")

    def run(self, options: Options) -> int:
        site, rest = site_and_more(options.words, 1, "the name of a task")
        if not rest:
            raise UsageError("Say which task.", f"See linodctl list {site.name}")
        watch = Watch(site, task_id(site, rest[0]), options)
        try:
            return watch.run()
        except KeyboardInterrupt:
            watch.bar.clear()
            if watch.id:
                warn(f"Run {watch.id} goes on. To end it: linodctl cancel {site.name} {watch.id}")
            return EXIT_INTERRUPTED


class Watch:
    """Has a task run, and shows what it does."""

    def __init__(self, site: HostSite, task: str, options: Options) -> None:
        self.site, self.task, self.options = site, task, options
        self.id = 0
        self.began = 0.0
        self.output = sys.stderr if options.json else sys.stdout
        self.bar = Bar()

    def run(self) -> int:
        """Returns the exit code."""
        try:
            with control_of(self.site) as control:
                for message in follow(control, RunNow(task=self.task, by=who_asks())):
                    match message:
                        case Accepted():
                            self.accepted(message)
                        case Begin():
                            self.began = time.monotonic()
                        case Wrote(text=text):
                            self.wrote(text)
                        case Progress():
                            self.bar.draw(message.done, message.total, message.text)
                        case Ended():
                            return self.ended(message)
                        case Refused(reason=reason):
                            raise refusal(reason, EXIT_TRY_LATER)
        except NotRunning:
            raise not_running(self.site) from None
        finally:
            self.bar.clear()
        raise LinodError("The daemon has said something that this linodctl does not understand.")

    def accepted(self, message: Accepted) -> None:
        self.id = message.run
        if message.waits_for:
            warn(f"Run {self.id} waits: {message.waits_for}.")

    def wrote(self, text: str) -> None:
        self.bar.clear()
        self.output.write(visible(text.replace("\r\n", "\n"), lines=True))
        self.output.flush()

    def ended(self, message: Ended) -> int:
        self.bar.clear()
        outcome = Outcome(message.outcome)
        if message.traceback and not self.options.json:
            print(visible(message.traceback.rstrip("\n"), lines=True), file=sys.stderr)
        after = f" after {duration(time.monotonic() - self.began)}" if self.began else ""
        reason = f": {message.reason}" if message.reason else ""
        if self.options.json:
            self.options.screen.json({"task": self.task, **vars(message)})
        else:
            warn(f"run {message.run} {outcome.replace('_', ' ')}{after}{reason}")
        return EXIT_CODES.get(outcome, EXIT_FAILED)


class PauseCommand(Command):
    details = (
        "What runs goes on. Without TASK, the whole site is paused. A pause outlasts a restart, and works as well while"
        " no daemon runs. What is due meanwhile is not caught up."
    )
    usage = "[options] [SITE] [TASK]"
    examples = (
        'linodctl pause myprj send_newsletter --reason "mail server is moving"',
        "linodctl pause myprj",
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", metavar="SITE [TASK]", nargs="*", help="the name of a site, and of a task of it")
        parser.add_argument("--reason", default="", help="why, as it will be shown")

    def run(self, options: Options) -> int:
        site, rest = site_and_more(options.words, 1, "the name of a task")
        task, by = (rest or [""])[0], who_asks()
        try:
            return tell(options, site, Pause(task=task, reason=options.reason, by=by))
        except NotRunning:
            from ..daemon import offline

            text = as_owner(site, lambda: offline.pause(site.state, task, reason=options.reason, by=by))
            return confirm(options, text)


class ResumeCommand(Command):
    details = "Without TASK, a pause of the whole site ends; tasks that were paused one by one stay paused."
    usage = "[options] [SITE] [TASK]"
    examples = ("linodctl resume myprj send_newsletter", "linodctl resume myprj")

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", metavar="SITE [TASK]", nargs="*", help="the name of a site, and of a task of it")

    def run(self, options: Options) -> int:
        site, rest = site_and_more(options.words, 1, "the name of a task")
        task = (rest or [""])[0]
        try:
            return tell(options, site, Resume(task=task, by=who_asks()))
        except NotRunning:
            from ..daemon import offline

            return confirm(options, as_owner(site, lambda: offline.resume(site.state, task)))


class CancelCommand(Command):
    details = "It gets TERM, and KILL if it has not ended within its grace."
    usage = "[options] [SITE] RUN"
    examples = ("linodctl cancel myprj 1274",)

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", metavar="SITE RUN", nargs="+", help="the name of a site, the number of a run")

    def run(self, options: Options) -> int:
        site, rest = site_and_more(options.words, 1, "the number of a run")
        if not rest:
            raise UsageError("Say which run.", f"See linodctl history {site.name}")
        try:
            return tell(options, site, Cancel(run=find_run_id(rest[0]), by=who_asks()))
        except NotRunning:
            raise not_running(site) from None


class ReloadCommand(Command):
    details = (
        "Runs that are going on are not disturbed. Returns when the new code is in use; where it cannot be loaded, the"
        " old code goes on, and the reason is told. systemctl reload does the same."
    )
    examples = ("linodctl reload myprj",)

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("site", metavar="SITE", nargs="?", help="the name of a site")

    def run(self, options: Options) -> int:
        site = only_site(options.site)
        try:
            return tell(options, site, Reload(), patience=None)
        except NotRunning:
            raise not_running(site) from None


def tell(options: Options, site: HostSite, message: Message, patience: float | None = PATIENCE) -> int:
    """Ask for something that is done at once, and show the answer."""
    with control_of(site) as control:
        answer = ask(control, message, patience)
    match answer:
        case Done(text=text):
            return confirm(options, text)
        case Refused(reason=reason):
            raise refusal(reason, EXIT_FAILED)
    raise LinodError("The daemon has said something that this linodctl does not understand.")


def confirm(options: Options, text: str) -> int:
    if options.json:
        options.screen.json({"done": True, "text": text})
    elif text:
        options.screen.line(text)
    return 0


@contextmanager
def control_of(site: HostSite) -> Iterator[Path]:
    """Where its daemon listens: in its state or its runtime directory. Raises NotRunning where root finds no socket.

    Links are not followed: the site's user may let one lead to the daemon of another site.
    """
    for directory in (site.state, site.runtime):
        try:
            fd = os.open(directory / CONTROL, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                yield Path(f"/proc/self/fd/{fd}")
                return
        finally:
            os.close(fd)
    if os.geteuid() == 0:
        raise not_running(site)
    yield site.runtime / CONTROL  # perhaps it is there and not for us to see


def task_id(site: HostSite, name: str) -> str:
    """The id of a task, where history can tell it; else the daemon will."""
    try:
        with history_of(site) as archive:
            return find_task(archive, site, name).id
    except HistoryError:
        return name


def who_asks() -> str:
    """Who will be shown as the one who wanted it: the person behind sudo, where there is one."""
    return (os.geteuid() == 0 and os.environ.get("SUDO_USER")) or user_name()


def as_owner(site: HostSite, work: Callable[[], str]) -> str:
    """Write into the state of a site as the user to whom it belongs."""
    if os.geteuid() != 0 or not site.state.is_dir():
        return work()
    text: str = in_child(find_account(str(site.state.stat().st_uid)), work)
    return text


def refusal(reason: str, exit_code: int) -> Refusal:
    """The daemon's reason as a sentence."""
    error = Refusal(reason + ("" if reason.endswith((".", "?", "!")) else "."))
    error.exit_code = exit_code
    return error


def not_running(site: HostSite) -> NotRunning:
    return NotRunning(f"No daemon runs the tasks of {site.name}.", f"Start it: systemctl start linod@{site.name}")
