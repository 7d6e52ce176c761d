"""`linodctl import-supervisor`: the sites that supervisor runs become units, and may go back."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import EXIT_FAILED, LinodError
from ..state import user_name
from ..words import count
from . import moving, steps, units
from .moving import Move, Moved, Plan
from .parsing import Command, Options, UsageError
from .screen import say_error
from .supervisorctl import Supervisorctl

CONF_DIR = "/etc/supervisor/conf.d"
One = TypeVar("One", Move, Moved)


class ImportSupervisor(Command):
    details = (
        "Programs of supervisor that run `manage.py linod` become sites of linod, one by one. Without --apply, the"
        " plan is shown and nothing is changed. Each file of supervisor's is kept beside its place, for --undo. Where a"
        " step fails, everything is as it was before. SITE is the name that the plan proposes, or the program's."
    )
    examples = (
        "linodctl import-supervisor",
        "linodctl import-supervisor myprj --apply --chown",
        "linodctl import-supervisor --apply",
        "linodctl import-supervisor myprj --undo",
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("names", metavar="SITE", nargs="*", help="only these (all)")
        parser.add_argument("--apply", action="store_true", help="do it")
        parser.add_argument("--undo", action="store_true", help="let supervisor run them again")
        parser.add_argument("--chown", action="store_true", help="give the site's user what root owns in its directory")
        parser.add_argument("--user", help="who shall run them (whom the job names, else the directory's owner)")
        parser.add_argument("--conf-dir", default=CONF_DIR, metavar="DIR", help=f"supervisor's files ({CONF_DIR})")

    def run(self, options: Options) -> int:
        require_root()
        if options.undo and (options.apply or options.chown or options.user):
            raise UsageError(
                "--undo goes with no other option but --conf-dir.", "See linodctl import-supervisor --help."
            )
        directory = Path(os.path.abspath(options.conf_dir))
        supervisor = Supervisorctl.of(directory)
        plan = moving.make_plan(directory, supervisor, options.user)
        require_known(plan, options.names)
        if options.undo:
            return act(options, directory, supervisor, chosen(plan.moved, options.names), back)
        plan = Plan(
            moves=chosen(plan.moves, options.names), moved=chosen(plan.moved, options.names), troubles=plan.troubles
        )
        if options.apply and (plan.moves or options.json):
            return act(options, directory, supervisor, plan.moves, there)
        return show(options, plan)


def require_root() -> None:
    if os.geteuid() != 0:
        raise LinodError(f"Only root may stop and start services, and you are {user_name()}.", "Try again with sudo.")


def require_systemd() -> None:
    if not units.booted():
        raise LinodError("systemd does not run this host, so no unit could be started.")


def require_known(plan: Plan, names: Sequence[str]) -> None:
    everything: list[Move | Moved] = [*plan.moves, *plan.moved]
    known = {name for one in everything for name in names_of(one)}
    if unknown := next((name for name in names if name not in known), None):
        raise UsageError(f"supervisor runs no site {unknown!r}.", "See what it runs: linodctl import-supervisor")


def names_of(one: Move | Moved) -> set[str]:
    return {one.name, *([one.site.name] if one.site else [])}


def chosen(some: Sequence[One], names: Sequence[str]) -> list[One]:
    return [one for one in some if not names or names_of(one) & set(names)]


def show(options: Options, plan: Plan) -> int:
    """The plan, and how to do it."""
    states = {one.name: steps.moved_state(one) for one in plan.moved}
    if options.json:
        options.screen.json(
            {
                "moves": [one.as_dict() for one in plan.moves],
                "moved": [moved_as_dict(one, states) for one in plan.moved],
                "not_understood": [
                    {"file": str(one.path), "line": one.line, "text": one.text} for one in plan.troubles
                ],
            }
        )
        return 0
    moving.show_plan(options.screen, plan, states)
    if not plan.moves:
        options.screen.line(f"No program in {options.conf_dir} runs manage.py linod.")
    elif any(not one.problems for one in plan.moves):
        options.screen.line("Nothing was changed. Do it, for all or for one: linodctl import-supervisor [SITE] --apply")
    return 0


def moved_as_dict(one: Moved, states: dict[str, str]) -> dict[str, str | None]:
    return {
        "program": one.name,
        "file": str(one.path),
        "site": one.site.name if one.site else None,
        "state": states[one.name],
    }


# Doing it


Doing = Callable[[One, Supervisorctl, steps.Say, Options], None]


def act(options: Options, directory: Path, supervisor: Supervisorctl, some: Sequence[One], do: Doing[One]) -> int:
    """Do it with one after the other; a failure of one keeps none of the others."""
    failed, told = 0, []
    with steps.alone(directory), steps.interrupted_once():
        if some:
            require_systemd()
            supervisor.require()
        for one in some:
            said: list[str] = []
            error = attempt(one, supervisor, speaker(options, one, said), options, do)
            failed += error is not None
            told.append({"program": one.name, "done": said, "error": str(error) if error else None})
    if options.json:
        options.screen.json(told)
    elif not some:
        options.screen.line("There is nothing to move.")
    elif len(some) > 1:
        not_moved = f", {failed} not" if failed else ""
        moved = "moved back" if options.undo else "moved"
        options.screen.line(f"{count(len(some) - failed, 'program')} {moved}{not_moved}.")
    return EXIT_FAILED if failed else 0


def attempt(one: One, supervisor: Supervisorctl, say: steps.Say, options: Options, do: Doing[One]) -> LinodError | None:
    try:
        do(one, supervisor, say, options)
    except LinodError as error:
        say_error(error)
        return error
    return None


def speaker(options: Options, one: Move | Moved, said: list[str]) -> steps.Say:
    """Tells each step as it is done."""

    def say(text: str) -> None:
        said.append(text)
        if not options.json:
            options.screen.line(f"{one.name}: {text}")

    return say


def there(one: Move, supervisor: Supervisorctl, say: steps.Say, options: Options) -> None:
    steps.move(one, supervisor, say, chown=options.chown)


def back(one: Moved, supervisor: Supervisorctl, say: steps.Say, _options: Options) -> None:
    steps.move_back(one, supervisor, say)
