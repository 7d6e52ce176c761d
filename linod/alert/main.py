"""Tell people by mail, once, that a site has failed, and once that it is back."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

from .. import sites
from ..errors import EXIT_USAGE, LinodError
from ..sites import HostSite
from .compose import failure_mail, recovery_mail, test_mail
from .find import find_mail
from .gather import Failure, find_failure, of_site
from .memory import Mail, alone
from .send import require, send

USAGE = "Usage: python3 -m linod.alert failed|recovered|test SITE"


def main(arguments: list[str]) -> int:
    """Returns 0 where a mail was sent or none was owed."""
    if len(arguments) != 2 or arguments[0] not in ACTIONS:
        print(USAGE, file=sys.stderr)
        return EXIT_USAGE
    action, name = arguments
    return exit_code_of(lambda: ACTIONS[action](site_by(name)))


def exit_code_of(work: Callable[[], str]) -> int:
    """Do it, and say in one line what was done or why it could not be."""
    try:
        say(work())
    except LinodError as error:
        say(str(error), "<3>")
        return error.exit_code
    except OSError as error:
        say(f"{error.filename or 'A file'}: {error.strerror}.", "<3>")
        return 1
    return 0


def site_by(name: str) -> HostSite:
    """It need not have been added any more."""
    sites.check_name(name)
    return HostSite(name=name)


def failed(site: HostSite) -> str:
    failure = find_failure(site)
    if failure is None:
        return f"{site.name} has not failed for good: systemd has started it again."
    return tell_failure(site, state_of(site), failure)


def recovered(site: HostSite) -> str:
    return tell_recovery(site, state_of(site))


def test(site: HostSite) -> str:
    return tell(site, state_of(site), lambda mail: test_mail(of_site(site), mail))


ACTIONS: dict[str, Callable[[HostSite], str]] = {"failed": failed, "recovered": recovered, "test": test}


def tell_failure(site: HostSite, state: Path, failure: Failure) -> str:
    """Send a mail, unless people know already. Returns what was done, in words; raises LinodError where it failed."""
    with alone(state) as stamp:
        if since := stamp.since():
            return f"That {site.name} has failed was told on {since}. There is no other mail until it is back."
        told = tell(site, state, lambda mail: failure_mail(failure, mail))
        stamp.set(failure.when)
        return told


def tell_recovery(site: HostSite, state: Path) -> str:
    """Send a mail, if people were told of a failure. Returns what was done; raises LinodError where it failed."""
    with alone(state) as stamp:
        since = stamp.since()
        if not since:
            return f"Nobody was told that {site.name} had failed, so nobody is told that it is back."
        told = tell(site, state, lambda mail: recovery_mail(of_site(site), since, mail))
        stamp.remove()
        return told


def tell(site: HostSite, state: Path, compose: Callable[[Mail], EmailMessage]) -> str:
    """Send one mail; raises LinodError where nobody could be told."""
    mail = find_mail(site, state)
    require(mail, site.name)
    refused = send(compose(mail), mail)
    told = ", ".join(address for address in mail.to if address not in refused)
    note = f" The mail server refused {', '.join(refused)}." if refused else ""
    return f"Mail about {site.name} was sent to {told}.{note}"


def state_of(site: HostSite) -> Path:
    return Path(os.environ.get("STATE_DIRECTORY") or site.state)


def say(text: str, priority: str = "") -> None:
    """One line, with its priority where the journal reads it."""
    print(f"{priority if 'JOURNAL_STREAM' in os.environ else ''}{' '.join(text.split())}", flush=True)
