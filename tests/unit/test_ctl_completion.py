"""The completion for bash, in a real bash, and the manual page."""

import os
import re
import subprocess

import pytest

from linod.ctl.parsing import COMMANDS
from tests.support.ctl import ROOT, CtlHost, run, task

ASK = """
source "$1"
shift
COMP_WORDS=(linodctl "$@")
COMP_CWORD=$(($# > 0 ? $# : 1))
_linodctl
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def host(tmp_path):
    host = CtlHost(tmp_path)
    host.add("myprj", "other")
    host.remember("myprj", [task("ping"), task("tidy")], [run("ping")])
    return host


def complete(host, *words):
    """What bash offers for the last of these words."""
    programs = host.path / "bin"
    if not programs.exists():
        programs.mkdir()
        quoted = " ".join(f"'{word}'" for word in host.command())
        (programs / "linodctl").write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
        (programs / "linodctl").chmod(0o755)
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK, "bash", str(ROOT / "packaging/completion/linodctl"), *words],
        env={"PATH": f"{programs}:{os.environ['PATH']}", "LINOD_SITES": str(host.etc / "sites")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_each_command_is_offered(host):
    assert sorted(complete(host, "")) == sorted([*COMMANDS, "help"])
    assert complete(host, "hist") == ["history"]


def test_sites_are_offered_and_then_their_tasks(host):
    assert complete(host, "list", "") == ["myprj", "other"]
    assert complete(host, "--json", "why", "m") == ["myprj"]
    assert complete(host, "why", "myprj", "") == ["ping", "tidy"]
    assert complete(host, "history", "--failed", "myprj", "t") == ["tidy"]
    assert complete(host, "reload", "myprj", "") == []
    assert complete(host, "metrics", "--format", "prometheus", "myprj", "o") == ["other"]


def test_formats_are_offered(host):
    assert complete(host, "metrics", "--format", "") == ["openmetrics", "prometheus"]


def test_only_options_that_the_command_knows_are_offered(host):
    for command in COMMANDS:
        known = subprocess.run(host.command(command, "--help"), capture_output=True, text=True, timeout=30).stdout
        options = complete(host, command, "--")
        assert ("--json" in options) == (command not in ("exec", "metrics"))
        assert all(option in known for option in options)


def test_the_manual_page_explains_each_command():
    page = (ROOT / "packaging/man/linodctl.1").read_text().replace(r"\-", "-")
    for command in COMMANDS:
        assert re.search(rf"^(\.B {command}$|\\fB{command}\\fR )", page, re.MULTILINE), command
