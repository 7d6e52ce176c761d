"""The units as they are written. What they do is tested in booted systems."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "packaging" / "systemd"
TEMPLATES = sorted(UNITS.glob("linod*@.*"))
ALL = [*TEMPLATES, *UNITS.glob("linod-metrics.*"), UNITS / "linod.target", *sorted((UNITS / "examples").glob("*.conf"))]
# What a pass does otherwise than the daemon, for the reasons that linod-run@.service tells.
DIFFERENT = {"Description", "After", "ExecStart", "TimeoutStartSec", "Type"}
PROTECTION = re.compile("Protect|Private|Restrict[A-Z]|SystemCall|Capability|Keyring|Lock|ReadWrite")


def directives(path: Path) -> dict[str, list[str]]:
    """The values of each directive of a unit, in the order of the file."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_a_pass_is_protected_and_placed_as_the_daemon_is() -> None:
    daemon, single = directives(UNITS / "linod@.service"), directives(UNITS / "linod-run@.service")
    for name in (daemon.keys() & single.keys()) - DIFFERENT:
        assert single[name] == daemon[name], name
    assert {name for name in daemon if PROTECTION.match(name)} <= single.keys()
    assert set(single["After"]) == set(daemon["After"])


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_the_name_of_a_site_is_never_unescaped(path: Path) -> None:
    """%I turns the dashes of a name into slashes."""
    assert "%I" not in "".join(value for values in directives(path).values() for value in values)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_a_unit_begins_with_what_it_is_for_and_fits_the_page(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# ")
    assert max(map(len, text.splitlines())) <= 120
    assert path.suffix != ".conf" or "Copy it to" in text


def test_each_directive_that_is_left_out_is_explained() -> None:
    text = (UNITS / "linod@.service").read_text()
    explained = text[text.index("# Left out:") :]
    for directive in (
        *("NoNewPrivileges", "ProtectSystem=strict", "RestrictSUIDSGID", "MemoryDenyWriteExecute"),
        *("ProcSubset=pid", "PrivateUsers", "DynamicUser", "RemoveIPC"),
    ):
        assert f"#   {directive} " in explained
        assert f"\n{directive}" not in text


def test_the_target_wants_no_site() -> None:
    """Else a restart of it would start those that an administrator has stopped."""
    assert not {"Wants", "Requires", "Upholds"} & directives(UNITS / "linod.target").keys()
    for path in TEMPLATES:
        assert "linod.target" not in directives(path).get("WantedBy", [])


def test_a_pass_never_stops_the_daemon() -> None:
    assert "Conflicts" not in directives(UNITS / "linod-run@.service")
    assert directives(UNITS / "linod-run@.timer")["Conflicts"] == ["linod@%i.service"]
