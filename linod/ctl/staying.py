"""`linodctl supervisor-config`: what those need who stay with supervisor.

It starts the packaged daemon, not `manage.py linod`: that is small, waits for a site that cannot be loaded yet, and
uses the same history and the same lock as the unit. So the two never run the tasks at the same time.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import overrides, sites
from ..conf import Settings
from ..errors import ConfigurationError, LinodError
from ..sites import SYSTEM_PYTHON, HostSite
from . import units
from .accounts import Account, account_of, read_environment
from .adding import make_directory, require_stopped, rights
from .checking import other_runners
from .footing import opened
from .importing import CONF_DIR, require_root
from .parsing import Command, Options
from .supervisor import Unusable, read_file
from .survey import history_of, known_tasks

GRACE = 30.0  # seconds that a task gets which doesn't say otherwise
MARGIN = 10.0  # for the daemon to write down what became of the runs


class SupervisorConfig(Command):
    details = (
        "Prints a linod.sh and a job for supervisor that belong together. The site is one of this host, added with"
        " linodctl add. With --write, both are written, and the directory for its history is made."
    )
    examples = (
        "linodctl supervisor-config myprj",
        "linodctl supervisor-config myprj --write && supervisorctl update linod-myprj",
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", metavar="SITE", help="the name of a site")
        parser.add_argument("--write", action="store_true", help="write them where they belong")
        parser.add_argument("--conf-dir", default=CONF_DIR, metavar="DIR", help=f"supervisor's files ({CONF_DIR})")

    def run(self, options: Options) -> int:
        kit = kit_for(sites.find(options.name), Path(os.path.abspath(options.conf_dir)))
        if options.write:
            kit.write()
        if options.json:
            options.screen.json({"files": {str(path): text for path, text in kit.files.items()}})
        elif options.write:
            for path in kit.files:
                options.screen.line(f"Wrote {path}")
            options.screen.line(f"Start it: supervisorctl update {kit.program}")
        else:
            for path, text in kit.files.items():
                options.screen.line(f"# {path}")
                options.screen.block(text.rstrip("\n"), indent="")
                options.screen.line()
        return 0


@dataclass(frozen=True, kw_only=True)
class Kit:
    """The two files, and where they go."""

    site: HostSite
    account: Account
    conf_dir: Path
    variables: Mapping[str, str]
    patience: int  # seconds for a stop

    @property
    def program(self) -> str:
        return f"linod-{self.site.name}"

    @property
    def script(self) -> Path:
        return self.site.directory / "linod.sh"

    @property
    def files(self) -> dict[Path, str]:
        return {self.script: script_text(self), self.conf_dir / f"{self.program}.conf": job_text(self)}

    def write(self) -> None:
        """Raises LinodError where the unit runs the site, or where something else is in the place of a file."""
        require_root()
        require_stopped(self.site)
        for other in other_runners(self.site):
            raise LinodError(other)
        for path, text in self.files.items():
            with opened(path.parent) as place, rights():
                write(path, text, place)
        with rights():
            make_state(self.site.state, self.account)


def kit_for(site: HostSite, conf_dir: Path) -> Kit:
    setup = units.setup_of(site)
    account = account_of(setup)
    who = {"HOME": account.home, "LOGNAME": account.name, "USER": account.name}
    unit = dict(word.split("=", 1) for word in setup.environment)
    return Kit(
        site=site,
        account=account,
        conf_dir=conf_dir,
        variables={**who, **unit, **dict(read_environment(site.environment))},
        patience=round(patience_of(site)),
    )


def patience_of(site: HostSite) -> float:
    """How long a stop may take: running tasks may end, the last of them gets its grace."""
    drain = overrides.read(site.overrides).linod.get("drain_timeout", Settings().drain_timeout)
    graces = [GRACE]
    try:
        with history_of(site) as archive:
            graces += [known.task.policies.grace for known in known_tasks(archive)]
    except LinodError:
        pass  # it has not run yet, or this user may not know
    return float(drain) + max(graces) + MARGIN


def script_text(kit: Kit) -> str:
    return f"""\
#!/bin/sh
# Runs the background tasks of {kit.site.name}; {kit.conf_dir}/{kit.program}.conf starts it.
set -e
umask 002
# exec: the signal of a stop must reach the daemon. With a shell in between, the daemon would go on without supervisor.
exec {SYSTEM_PYTHON} -I -X faulthandler -m linod.daemon {kit.site.name}
"""


def job_text(kit: Kit) -> str:
    return f"""\
; The background tasks of {kit.site.name}.
[program:{kit.program}]
command = /bin/sh {path_in(kit.script)}
directory = {path_in(kit.site.directory)}
; The key is user; supervisor ignores username, and would run the tasks as root. The daemon refuses that.
user = {kit.account.name}
environment = {",".join(assignments(kit.variables))}
umask = 002
autostart = true
; 0: the site has nothing to do. 78: somebody must mend something first. A restart would help in neither case.
autorestart = unexpected
exitcodes = 0,78
startsecs = 1
startretries = 10
; Running tasks may end. supervisor kills the daemon when this time is over, and their end is not seen then.
stopsignal = TERM
stopwaitsecs = {kit.patience}
stopasgroup = false
redirect_stderr = true
stdout_logfile = /var/log/supervisor/{kit.program}.log
"""


def path_in(path: Path) -> str:
    """A path as a value of supervisor's; raises ConfigurationError where it cannot be one."""
    text = str(path)
    if any(character.isspace() or character in ";#\"'\\" for character in text):
        raise ConfigurationError(f"{text} has characters that a file of supervisor cannot have.")
    return text.replace("%", "%%")


def assignments(variables: Mapping[str, str]) -> Iterator[str]:
    """NAME="value" for each, as supervisor reads it."""
    for name, value in variables.items():
        quote = "'" if '"' in value else '"'
        # Its reader takes quotes off both ends of a value, also those that belong to it.
        if quote in value or value != value.strip("'\"") or " ;" in value or " #" in value or not value.isprintable():
            raise ConfigurationError(f"The value of {name} has characters that a file of supervisor cannot have.")
        yield f"{name}={quote}{value.replace('%', '%%')}{quote}"


def write(path: Path, text: str, place: int) -> None:
    """Write a file into its directory, which is open; one that says the same may stay."""
    here = Path(f"/proc/self/fd/{place}/{path.name}")
    if os.path.lexists(here):
        with suppress(Unusable):
            if read_file(here) == text:
                return
        raise LinodError(f"{path} is there already.", "Remove it, or write into it by hand.")
    with here.open("x") as file:
        os.fchmod(file.fileno(), 0o600 if path.suffix == ".conf" else 0o755)  # variables may be passwords
        file.write(text)


def make_state(path: Path, account: Account) -> None:
    """The directory for history, as systemd would make it."""
    make_directory(path.parent, [])
    if not path.is_dir():
        path.mkdir(mode=0o750)
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
