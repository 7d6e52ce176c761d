"""What systemd knows of the sites' units; where it doesn't run, what their files say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import LinodError
from ..sites import HostSite

BOOTED = Path("/run/systemd/system")  # where sd_booted(3) looks
UNIT_FILES = (
    Path("/etc/systemd/system"),
    Path("/run/systemd/system"),
    Path("/usr/local/lib/systemd/system"),
    Path("/usr/lib/systemd/system"),
)
DEFAULT_USER = "www-data"
PATIENCE = 30.0  # seconds for systemd to answer
PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "StatusText"),
    *("ExecMainStatus", "MainPID", "MemoryCurrent", "NextElapseUSecRealtime"),
)
ACTIVE = ("active", "reloading")


@dataclass(frozen=True)
class Unit:
    """The state of a unit, as `systemctl show` tells it."""

    properties: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.properties.get(name, "")

    @property
    def active(self) -> bool:
        return self["ActiveState"] in ACTIVE

    @property
    def installed(self) -> bool:
        return self["LoadState"] == "loaded"

    @property
    def enabled(self) -> bool:
        return self["UnitFileState"].startswith("enabled")

    @property
    def memory(self) -> int | None:
        """KiB of all its processes."""
        text = self["MemoryCurrent"]
        # Where nobody counts it, systemd shows the largest number there is, or words.
        return int(text) // 1024 if text.isdecimal() and int(text) < 2**63 else None


def timer_of(site: HostSite) -> str:
    """The timer of a site that wants no resident process."""
    return f"linod-run@{site.name}.timer"


def booted() -> bool:
    """Whether systemd runs this host."""
    return BOOTED.is_dir()


def show(names: Sequence[str], properties: Sequence[str] = PROPERTIES) -> dict[str, Unit]:
    """Units by their names, all with one call; none where systemd doesn't run or doesn't answer."""
    if not names or not booted():
        return {}
    try:
        found = subprocess.run(
            ["systemctl", "show", "--no-pager", f"--property={','.join(properties)}", "--", *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return units_in(found.stdout, names)


def units_in(text: str, names: Sequence[str]) -> dict[str, Unit]:
    """What `systemctl show` has printed: a block for each unit, in the order in which they were asked for."""
    blocks = text.strip("\n").split("\n\n")
    if len(blocks) != len(names):
        return {}  # systemd said something else
    # Only line feeds end a line: a daemon chooses the text of its status.
    units = [Unit(dict(line.split("=", 1) for line in block.split("\n") if "=" in line)) for block in blocks]
    return dict(zip(names, units, strict=True))


def systemctl(*arguments: str, patience: float = PATIENCE, check: bool = True) -> None:
    """Tell systemd something, if it runs; raises LinodError with its words, unless check is False."""
    if not booted():
        return
    try:
        done = subprocess.run(
            ["systemctl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LinodError(f"systemctl {' '.join(arguments)} does not answer: {error}.") from None
    if done.returncode and check:
        raise LinodError(f"systemctl {' '.join(arguments)} failed: {done.stderr.strip()}")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """As whom the unit of a site runs, and with which environment."""

    user: str = DEFAULT_USER
    group: str = ""
    environment: tuple[str, ...] = ()  # NAME=value, without what its environment file adds
    installed: bool = True


def setup_of(site: HostSite) -> Setup:
    """How the service of a site is set up, with all drop-ins."""
    if shown := show([site.unit], ("LoadState", "User", "Group", "Environment")).get(site.unit):
        return (
            Setup(
                user=shown["User"] or "root",
                group=shown["Group"],
                environment=tuple(split_environment(shown["Environment"])),
                installed=shown.installed,
            )
            if shown.installed
            else Setup(installed=False)
        )
    return setup_from_files(site)


def setup_from_files(site: HostSite) -> Setup:
    """The same from the files, read as systemd would: the unit, then its drop-ins by their names."""
    found: dict[str, list[str]] = {}
    unit = first_file(f"linod@{site.name}.service", "linod@.service")
    drop_ins = {
        path.name: path
        for directory in reversed(UNIT_FILES)
        for kind in ("linod@.service.d", f"linod@{site.name}.service.d")
        for path in (directory / kind).glob("*.conf")
    }
    for path in filter(None, [unit, *(drop_ins[name] for name in sorted(drop_ins))]):
        for name, value in settings_in(path):
            found.setdefault(name, []).append(value)
    return Setup(
        user=last(found.get("User")) or DEFAULT_USER,
        group=last(found.get("Group")),
        environment=tuple(word for text in found.get("Environment", []) for word in split_environment(text)),
        installed=unit is not None,
    )


def first_file(*names: str) -> Path | None:
    return next((d / name for name in names for d in UNIT_FILES if (d / name).is_file()), None)


def settings_in(path: Path) -> Iterable[tuple[str, str]]:
    """The lines of the section [Service]."""
    section = ""
    try:
        lines = path.read_text(errors="replace").replace("\\\n", " ").splitlines()
    except OSError:
        return
    for line in map(str.strip, lines):
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and line[0] not in "#;":
            name, value = line.split("=", 1)
            yield name.strip(), value.strip()


def last(values: Sequence[str] | None) -> str:
    return values[-1] if values else ""


def split_environment(text: str) -> list[str]:
    """The words of Environment=, which may be quoted."""
    import shlex

    try:
        return [word for word in shlex.split(text) if "=" in word]
    except ValueError:
        return []
