"""`linodctl logs`: the journal of a site or of one of its tasks."""

from __future__ import annotations

import argparse
import os
import sys

from ..errors import LinodError
from ..sites import HostSite
from ..words import printable
from .naming import find_task_id, site_and_more
from .parsing import Command, Options
from .survey import history_of


class Logs(Command):
    details = "This is journalctl with the right matches. SITE may be left out on a host with one site."
    usage = "[options] [SITE] [TASK]"
    examples = (
        "linodctl logs myprj -f",
        "linodctl logs myprj send_newsletter -n 100",
        "linodctl logs myprj -p warning --since yesterday",
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", metavar="SITE [TASK]", nargs="*", help="the name of a site, and of a task of it")
        parser.add_argument("-f", "--follow", action="store_true", help="go on with what is written from now on")
        parser.add_argument("-n", "--lines", metavar="N", help="so many of the latest lines")
        parser.add_argument("-p", "--priority", metavar="P", help="only these and worse, like warning or err")
        parser.add_argument("--since", metavar="WHEN", help="as journalctl reads it")

    def run(self, options: Options) -> int:
        site, rest = site_and_more(options.words, 1, "the name of a task")
        task = None
        if rest:
            with history_of(site) as archive:
                task = find_task_id(archive, site, rest[0])
        command = journalctl(site, task, options)
        sys.stdout.flush()
        try:
            os.execvp(command[0], command)
        except (OSError, ValueError) as error:  # or a name with a byte 0
            raise LinodError(f"journalctl cannot be started: {error}.") from None


def journalctl(site: HostSite, task: str | None, options: Options) -> list[str]:
    """The command that shows it: all of both units, or what concerns one task."""
    command = ["journalctl", f"--unit={site.unit}", f"--unit=linod-run@{site.name}.service"]
    command += [f"--{name}={value}" for name in ("lines", "priority", "since") if (value := getattr(options, name))]
    command += ["--follow"] if options.follow else []
    command += ["--output=json"] if options.json else []
    return command + ([f"LINOD_TASK_ID={printable(task)}"] if task else [])
