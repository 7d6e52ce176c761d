"""`linodctl alert-test`: would people be told of a task that fails? It is tried by the site, as its user."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import EXIT_FAILED
from ..sites import HostSite
from .checking import ask_site, way_into
from .naming import only_site
from .parsing import Command, Options
from .screen import GREEN, RED, YELLOW, Styled


class AlertTest(Command):
    details = (
        "A mail goes to those who are told of a failing task, and a message to alert_url where there is one. The"
        " addresses that tasks name as their pings are left alone, for who waits there would believe it. SITE may be"
        " left out on a host with one site. Exit code 0: all was sent; 1: something was not."
    )
    examples = ("linodctl alert-test myprj",)

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("site", metavar="SITE", nargs="?", help="the name of a site")

    def run(self, options: Options) -> int:
        site = only_site(options.site)
        told = let_it_try(site)
        if options.json:
            options.screen.json(told)
        else:
            show(options, site, told)
        return EXIT_FAILED if any(one["problem"] for one in told["tried"]) else 0


def let_it_try(site: HostSite) -> dict[str, Any]:
    """What the site has tried, and how that went. Raises LinodError where it cannot be loaded."""
    return ask_site("alert-test", *way_into(site), is_answer)


def is_answer(told: Any) -> bool:
    match told:
        case {"told": bool(), "tried": [*tried]}:
            return all(isinstance(one, dict) and all_text(one.get("way"), one.get("problem")) for one in tried)
    return False


def all_text(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)


def show(options: Options, site: HostSite, told: dict[str, Any]) -> None:
    for one in told["tried"]:
        if one["problem"]:
            options.screen.line(Styled("not sent: ", RED), f"{one['way']}: {one['problem']}.")
        else:
            options.screen.line(Styled("sent: ", GREEN), f"{one['way']}.")
    if not told["told"]:
        text = f"But nobody is told of tasks: alert_tasks is false for {site.name}."
        options.screen.line(Styled(text, YELLOW))
