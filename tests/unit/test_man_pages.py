"""A maintainer can work from the manual pages alone: nothing that can be typed is missing there."""

import re
from pathlib import Path

import pytest

from linod.ctl import parsing
from linod.overrides import checks

PAGES = Path(__file__).resolve().parents[2] / "packaging" / "man"


def page(name):
    """The text of a page without the marks of roff."""
    text = (PAGES / name).read_text()
    return re.sub(r"\\f[BIR]", "", text).replace(r"\-", "-").replace(r"\(dq", '"')


@pytest.mark.parametrize("command", parsing.COMMANDS)
def test_linodctl_tells_every_command_with_every_option(command):
    text = page("linodctl.1")
    start = re.search(rf"^(?:\.B )?{command}\b", text, flags=re.MULTILINE)
    assert start, f"no {command}"
    parser = parsing.parser_of(command, parsing.load(command, []))
    for action in parser._actions:
        for option in action.option_strings:
            assert re.search(rf"(?<![\w-]){option}\b", text), option


def test_linodctl_tells_the_commands_and_options_of_no_other_version():
    known = {"-h", "--help", "--version", "--now"}
    for name in parsing.COMMANDS:
        for action in parsing.parser_of(name, parsing.load(name, []))._actions:
            known |= set(action.option_strings)
    assert set(re.findall(r"(?<![\w-])--[a-z-]+", page("linodctl.1"))) <= known


@pytest.mark.parametrize("key", [*checks.TOP, *checks.ALERT, *checks.TASK])
def test_linod_toml_tells_every_key(key):
    assert re.search(rf"^\.BR? (.*\W)?{key}\b", page("linod.toml.5"), flags=re.MULTILINE)
