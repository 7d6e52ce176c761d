"""The completion for bash, in a real bash, that for zsh, in a real zsh on a terminal, and the manual page."""

import os
import pty
import re
import select
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest

from linod.ctl.parsing import COMMANDS
from tests.support.ctl import ROOT, CtlHost, run, task

COMPLETION = ROOT / "packaging/completion"
ASK = """
source "$1"
shift
COMP_WORDS=(linodctl "$@")
COMP_CWORD=$(($# > 0 ? $# : 1))
_linodctl
printf '%s\\n' "${COMPREPLY[@]}"
"""

# At the end Ctrl-X tells what stands on the line by then.
ZSHRC = """
PROMPT='> '
fpath=($ZDOTDIR $fpath)
autoload -Uz compinit && compinit -u -D
tell() { zle -I; print -r -- "[$BUFFER]" }
zle -N tell
bindkey '^X' tell
"""
TAB, TELL, CLEAR = "\t", "\x18", "\x15"
PATIENCE = 20.0  # seconds


@pytest.fixture
def host(tmp_path):
    host = CtlHost(tmp_path)
    host.add("myprj", "other")
    host.remember("myprj", [task("ping"), task("tidy")], [run("ping")])
    return host


def environment(host):
    """That of a shell on the host, where linodctl is on the path."""
    programs = host.path / "bin"
    if not programs.exists():
        programs.mkdir()
        quoted = " ".join(f"'{word}'" for word in host.command())
        (programs / "linodctl").write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
        (programs / "linodctl").chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}", "LINOD_SITES": str(host.etc / "sites")}


def complete(host, *words):
    """What bash offers for the last of these words."""
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK, "bash", str(COMPLETION / "linodctl"), *words],
        env=environment(host),
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


@contextmanager
def zsh(host):
    """A zsh on a terminal; yields a function that types words and a tab, and returns what is offered and the line."""
    (host.path / ".zshrc").write_text(ZSHRC)
    installed = (COMPLETION / "_linodctl").read_text()
    ours = installed.replace("/usr/share/bash-completion/completions", str(COMPLETION))
    assert ours != installed
    (host.path / "_linodctl").write_text(ours)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("zsh", ["zsh", "-d"], {**environment(host), "ZDOTDIR": str(host.path), "TERM": "dumb"})

    def read_until(end):
        text, deadline = "", time.monotonic() + PATIENCE
        while not re.search(end, text):
            ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"zsh has not come so far: {text}"
            text += os.read(terminal, 65536).decode()
        return text

    def type_in(words):
        os.write(terminal, f"{CLEAR}{words}{TAB}{TELL}".encode())
        shown, line, _ = re.split(r"\[(.*)\]\r\n> ", read_until(r"\[.*\]\r\n> "))
        offered = shown.partition("\n")[2].rpartition("\n> ")[0]
        return sorted(offered.split()), line

    try:
        read_until("> ")
        yield type_in
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def test_zsh_offers_what_bash_offers(host):
    with zsh(host) as type_in:
        assert type_in("linodctl ") == (sorted([*COMMANDS, "help"]), "linodctl ")
        assert type_in("linodctl list ") == (["myprj", "other"], "linodctl list ")
        assert type_in("linodctl why myprj ") == (["ping", "tidy"], "linodctl why myprj ")
        assert type_in("linodctl metrics --format ")[0] == ["openmetrics", "prometheus"]
        assert type_in("linodctl history --")[0] == sorted(complete(host, "history", "--"))


def test_zsh_completes_the_only_choice(host):
    with zsh(host) as type_in:
        assert type_in("linodctl hist") == ([], "linodctl history ")
        assert type_in("linodctl list m") == ([], "linodctl list myprj ")
        assert type_in("linodctl history --failed myprj t") == ([], "linodctl history --failed myprj tidy ")
        assert type_in("linodctl history --fai") == ([], "linodctl history --failed ")
        assert type_in("linodctl reload myprj ") == ([], "linodctl reload myprj ")


def test_the_manual_page_explains_each_command():
    page = (ROOT / "packaging/man/linodctl.1").read_text().replace(r"\-", "-")
    for command in COMMANDS:
        assert re.search(rf"^(\.B {command}$|\\fB{command}\\fR )", page, re.MULTILINE), command
