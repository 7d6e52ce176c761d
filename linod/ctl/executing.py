"""`linodctl exec`: a site's manage.py, as its user, with its interpreter and its environment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import sites
from ..launch import Place, for_sites
from . import apart
from .checking import way_into
from .parsing import Command, Options


def program(place: Place, arguments: Sequence[str]) -> list[str]:
    """What the site's interpreter is given: its manage.py, or our own command where the site may not have it."""
    if arguments and arguments[0] == "linod":
        return ["-P", str(for_sites() / "site"), "manage", *arguments[1:]]
    return [place.manage or "manage.py", *arguments]


class Exec(Command):
    details = (
        "It is called as the daemon would be: by the unit's user, in the site's directory, with the environment of"
        " /etc/linod/SITE.env, and in a terminal of its own, which is shown on yours and ends with it. Its exit code is"
        " passed on. Options of linodctl stand before the SITE."
    )
    takes_json = False  # what is printed is what manage.py prints
    examples = (
        "linodctl exec myprj linod --list",
        "linodctl exec myprj migrate",
        "linodctl exec myprj shell",
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", metavar="SITE", help="the name of a site")
        parser.add_argument("rest", metavar="...", nargs=argparse.REMAINDER, help="what manage.py is given")

    def run(self, options: Options) -> int:
        place, account, environment = way_into(sites.find(options.name))
        command = [place.python, *program(place, options.rest)]
        if place.settings:
            environment["DJANGO_SETTINGS_MODULE"] = place.settings
        sys.stdout.flush()
        return apart.run(command, account, environment, place.directory)
