"""`manage.py linod`: run this site's background tasks, or look at them."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core import checks
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import __version__
from ...archive import Archive
from ...checks import check_linod
from ...command import listing, single, start
from ...errors import EXIT_CONFIGURATION, ConfigurationError, LinodError, SiteNotReady
from ...site import lino
from ...site.load import Site
from ...site.trouble import why_not
from ...state import find_state


class Command(BaseCommand):
    """Parse, build, call, print."""

    help = "Run the background tasks of this site."
    requires_system_checks: list[str] = []  # noqa: RUF012  # a site that a check frowns at still has its tasks
    _called_from_command_line: bool

    def get_version(self) -> str:
        return __version__

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("-l", "--list", action="store_true", help="Just list the tasks, don't run them.")
        what.add_argument("--once", action="store_true", help="Run what is due now, then exit.")
        what.add_argument("--run", metavar="NAME", help="Run one task now, here; the exit code tells how it ended.")
        what.add_argument("--check", action="store_true", help="Load and validate everything, run nothing.")
        parser.add_argument("--reload", action="store_true", help="Start again whenever the site's code changes.")
        parser.add_argument("--json", action="store_true", help="With --list: for programs.")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        try:
            code = self.act(options)
        except LinodError as error:
            raise CommandError(str(error), returncode=error.exit_code) from None
        if code:
            sys.exit(code)

    def act(self, options: dict[str, Any]) -> int:
        typed_in = os.getcwd()
        place = start.this_place(from_command_line=self._called_from_command_line)
        if self._called_from_command_line:
            os.chdir(place.directory)  # as the service does: what is relative in its settings is meant from there
        site = self.load()
        if options["json"] and options["list"]:
            return self.print_json(site)
        if not site.uses_linod:
            return self.say(listing.DOES_NOT_USE)
        if not site.declarations:
            return self.say(listing.HAS_NONE)
        if options["list"]:
            return self.say(*listing.text(site, last_starts(), datetime.now(UTC)))
        if options["check"]:
            return self.check_site(site)
        if options["run"]:
            return single.run_task(site, options["run"], Path(place.directory))
        self.mind_root()
        lino.require_alone(Path(place.directory))
        if options["reload"]:
            from ...command.reload import Watcher

            return Watcher(typed_in).run()
        if self._called_from_command_line:
            start.become_daemon(site, place, once=options["once"])
        return start.run_in_child(site, place, once=options["once"])

    def mind_root(self) -> None:
        """A service never runs a site's code as root; a person is warned."""
        if os.geteuid() != 0:
            return
        if is_service():
            raise ConfigurationError(
                "The tasks of a site are not run as root.",
                "Say who shall run them: User= in a unit of systemd, user= in a program of supervisor.",
            )
        if sys.stderr.isatty():
            print("You are root, and so will be the tasks of this site.", file=sys.stderr)

    def load(self) -> Site:
        """The site with its tasks; where its code is broken, the developer sees where."""
        try:
            return start.look_here()
        except LinodError:
            raise
        except Exception as error:
            trouble = why_not(error)
            self.stderr.write(trouble.traceback)
            kind = ConfigurationError if trouble.permanent else SiteNotReady
            raise kind(f"The site's tasks cannot be loaded: {trouble.reason}") from None

    def say(self, *lines: str) -> int:
        for line in lines:
            self.stdout.write(line)
        return 0

    def check_site(self, site: Site) -> int:
        problems = check_linod()
        for problem in problems:
            self.stderr.write(str(problem))
        if any(problem.level >= checks.ERROR for problem in problems):
            return EXIT_CONFIGURATION
        return self.say(f"{len(site.declarations)} tasks; nothing to complain about.")

    def print_json(self, site: Site) -> int:
        starts = last_starts() if site.uses_linod else {}
        return self.say(json.dumps(listing.as_json(site, starts, datetime.now(UTC)), indent=2))


def last_starts() -> dict[str, datetime]:
    with Archive(find_state(Path(os.getcwd()))) as archive:
        return archive.last_starts()


def is_service() -> bool:
    """Whether a service manager has started this process itself, rather than a person below one."""
    by_systemd = os.getppid() == 1 and "INVOCATION_ID" in os.environ
    return by_systemd or "NOTIFY_SOCKET" in os.environ or "SUPERVISOR_ENABLED" in os.environ
