"""Whatever is typed, and whatever has become of the three streams: a sentence and an exit code, and no traceback."""

import json
import os
import subprocess

import pytest

from linod.ctl.parsing import COMMANDS
from tests.support.ctl import CtlHost, run, task

ODD = ("", "-", "--", "..", "a b", "\n", "\x1b[2J", "ä", "\udcff", "%s", "9" * 5000, "x" * 5000)
ODD_VALUES = {
    "history": ("--limit", "--since"),
    "status": ("--warning", "--critical", "--late"),
    "add": ("--user", "--group", "--python", "--settings"),
    "import-supervisor": ("--user", "--conf-dir"),
    "supervisor-config": ("--conf-dir",),
    "pause": ("--reason",),
}
NUMBERS = ("0", "-1", "nan", "inf", "1e308", str(2**63), str(2**64), "1" * 400)


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = CtlHost(tmp_path)
    host.patch(monkeypatch)
    host.add("myprj")
    host.remember("myprj", [task("ping")], [run("ping")])
    return host


def typed(host, capsys, *words):
    code, out, err = host.call(capsys, *words)
    assert code in (0, 1, 2, 3, 75, 78), err
    assert out or err or code == 0
    if "--json" in words and out:
        json.loads(out)
    assert "Traceback" not in err and all(character.isprintable() or character == "\n" for character in err)


# What these two start would take the place of the tests.
@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"exec", "logs"}))
def test_odd_words_are_answered(host, capsys, command):
    for odd in (*ODD, *NUMBERS):
        typed(host, capsys, command, odd)
        typed(host, capsys, command, "myprj", odd)
        typed(host, capsys, command, "--json", "myprj", odd, odd)
        for option in ODD_VALUES.get(command, ()):
            typed(host, capsys, command, "myprj", option, odd)
            typed(host, capsys, command, "x", host.directory("x"), option, odd, "--dry-run")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("show", "myprj", str(2**63)), 2),
        (("history", "--limit", str(2**64)), 2),
        (("status", "--late", "inf"), 3),  # 2 would be CRITICAL
        (("status", "--warning", "0"), 3),
    ],
)
def test_a_number_that_cannot_be_meant_is_a_mistake_of_who_typed_it(host, capsys, words, code):
    assert host.call(capsys, *words)[0] == code


def test_a_status_that_was_typed_wrongly_is_unknown(host, capsys):
    assert host.call(capsys, "status", "--frobnicate")[0] == 3
    assert host.call(capsys, "status", "nobody")[0] == 3


@pytest.mark.parametrize("command", sorted(ODD_VALUES))
def test_a_value_that_looks_like_the_end_of_all_options_is_answered(host, capsys, command):
    for option in ODD_VALUES[command]:
        typed(host, capsys, command, "myprj", f"{option}=--")


def test_odd_words_for_those_that_become_another_program(host):
    for words in (("exec",), ("exec", "nobody"), ("logs", "myprj", "\n"), ("logs", "a", "b", "c"), ("exec", "--odd")):
        done = host.spawn(*words)
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr


def redirected(host, how, *words):
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {how}', "sh", *host.command(*words)], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("how", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_no_reason_to_fail(host, how):
    for words, code in ((["sites"], 0), (["list", "nobody"], 2), (["check"], 78), (["--help"], 0)):
        done = redirected(host, how, *words)
        assert done.returncode == code and "Traceback" not in done.stderr
    assert host.spawn("sites").stdout, "nothing was written into its history"


def test_a_full_disk_is_told_once(host):
    done = redirected(host, "> /dev/full", "sites")
    assert (done.returncode, done.stderr) == (1, "linodctl: This host: No space left on device.\n")


def test_errors_after_output_that_nobody_reads_are_no_noise(host):
    done = redirected(host, "| true", "history", "myprj")
    assert done.stderr == ""


def test_a_file_that_can_hold_no_such_text_is_not_begun(host, capsys):
    for option in ("--python", "--settings"):
        for text in ("\udcff", "a\x7f", "a\nb"):
            code, _, err = host.call(capsys, "add", "x", host.directory("x"), option, text)
            assert code == 2 and f"{option} " in err
    assert os.listdir(host.etc) == ["sites"]


def test_one_site_that_cannot_be_added_keeps_none_of_the_others():
    with CtlHost.open_to_all() as host:
        for name in ("alpha", "beta"):
            python = host.directory(name) / "env/bin/python"
            python.parent.mkdir(parents=True)
            python.write_text('#!/bin/sh\necho \'{"uses_linod": true, "tasks": [], "complaints": []}\'\n')
            python.chmod(0o755)
        (host.etc / "sites/alpha").write_text("in the way")
        done = host.spawn("add", "--scan", host.path / "srv", "--apply")
        assert done.returncode == 1 and "alpha is there already, and is no link" in done.stderr
        assert "1 site added." in done.stdout and "linod@beta\n" in done.stdout


def test_what_is_written_can_be_read_whatever_the_umask(host):
    directory = host.directory("shop")
    command = host.command("add", "shop", directory, "--user", "nobody", "--settings", "a.b")
    subprocess.run(["sh", "-c", 'umask 077; exec "$@"', "sh", *command], check=True, timeout=60, stdout=subprocess.PIPE)
    for path in (host.etc / "shop.toml", *host.systemd.glob("linod@shop*/*")):
        assert path.stat().st_mode & 0o777 == 0o644 and path.parent.stat().st_mode & 0o555 == 0o555
