"""What linodctl shows: safe on any terminal, no wider than it, in colour only there."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from linod.bar import line_of
from linod.ctl.parsing import COMMANDS
from linod.ctl.screen import cut, fit, visible, width_of
from linod.ctl.spans import instant
from linod.words import brief_clock, count, duration, size
from tests.support.ctl import CtlHost, run, task

EVIL = "\x1b]0;owned\x07\x1b[31mred\r\n\x9b2J \u202egnp.exe"


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = CtlHost(tmp_path)
    host.patch(monkeypatch)
    return host


def in_terminal(command, columns=80, **environment):
    """What a command writes to a terminal of that width."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        | {"COLUMNS": str(columns), "TERM": "xterm", **environment},
    )
    os.close(theirs)
    seen = b""
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    seen += os.read(ours, 65536)
                except OSError:  # the last one who had it open has left
                    break
        process.wait(max(0.1, deadline - time.monotonic()))
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return seen.decode()


# Escaping


@pytest.mark.claim("S13")
def test_what_a_terminal_would_obey_is_written_out():
    assert visible("\x1b[31mred") == "\\x1b[31mred"
    assert visible("\x9b2J") == "\\x9b2J"
    assert visible("a\r\nb\tc") == "a\\r\\nb\\tc"
    assert visible("\u202egnp.exe") == "\\u202egnp.exe"
    assert visible("\ud800") == "\\ud800"
    assert visible("\x00\x7f") == "\\x00\\x7f"


def test_line_breaks_and_tabs_may_stay_where_there_are_lines():
    assert visible("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"


def test_what_people_write_stays_as_it_is():
    for text in ("plain", "Tõnu läks", "отправить", "発送", "e\u0301", "நி", "क्\u200dष"):
        assert visible(text) == text


@pytest.mark.claim("S13")
@pytest.mark.parametrize("command", ["list", "history", "history --failed", "sites", "show 1", "why evil", "status"])
def test_no_command_lets_a_site_write_to_the_terminal(host, capsys, command):
    host.add("myprj")
    evil = run("evil", "failed", reason=EVIL, traceback=EVIL, output=EVIL, id=1)
    host.remember("myprj", [task("evil")], [evil], [("", 0, EVIL, EVIL), (EVIL, 0, EVIL, EVIL)])
    for option in ([], ["--json"]):
        _, out, err = host.call(capsys, *command.split(), *option)
        assert not set(out + err) & set("\x1b\x07\x9b\r\u202e")


@pytest.mark.claim("S13")
def test_an_error_is_escaped_as_well(host, capsys):
    host.add("myprj")
    host.remember("myprj", [task("ping")])
    code, _, err = host.call(capsys, "why", "myprj", "\x1b[2J")
    assert code == 2 and "\x1b" not in err and "x1b[2J" in err


# Tables


def test_a_text_is_cut_by_the_columns_that_it_takes():
    assert cut("hello", 5) == "hello"
    assert cut("hello", 4) == "hel…"
    assert cut("発送する", 5) == "発送…" and width_of("発送…") == 5
    assert width_of("e\u0301") == 1


def test_the_widest_columns_give_way_first():
    assert fit([5, 50, 10], None) == [5, 50, 10]
    assert fit([5, 50, 10], 80) == [5, 50, 10]
    assert fit([5, 50, 10], 40) == [5, 21, 10]
    assert fit([20, 20, 20], 10) == [6, 6, 6]


def test_a_table_fits_the_terminal(host, capsys, monkeypatch):
    host.add("myprj")
    reason = "ValueError: " + "long " * 50
    host.remember("myprj", [task("ping")], [run("ping", "failed", reason=reason)])
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = host.call(capsys, "history")
    assert max(map(len, out.splitlines())) == 60 and "…" in out
    monkeypatch.delenv("COLUMNS")
    _, out, _ = host.call(capsys, "history")
    assert reason.strip() in out, "a program gets all of it"


def test_there_is_colour_on_a_terminal_only(host):
    host.add("myprj")
    host.remember("myprj", [task("ping")], [run("ping", "failed")])
    assert "\x1b[31m" in in_terminal(host.command("list"))
    assert "\x1b" not in in_terminal(host.command("list", "--no-color"))
    assert "\x1b" not in in_terminal(host.command("list"), NO_COLOR="1")
    assert "\x1b" not in host.spawn("list").stdout


def test_a_terminal_that_knows_ascii_only_is_no_reason_to_fail(host):
    host.add("myprj")
    host.remember("myprj", [task("ping")], [run("ping", "failed", reason="läuft nicht")])
    done = host.spawn("history", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="POSIX")
    assert done.returncode == 0 and "uft nicht" in done.stdout, done.stderr


# The command line


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_shows_an_example(host, capsys, name):
    for arguments in ([name, "--help"], ["help", name], ["--help", name]):
        code, out, _ = host.call(capsys, *arguments)
        assert code == 0
        assert f"usage: linodctl {name}" in out
        assert f"examples:\n  linodctl {name}" in out


def test_the_help_of_all_names_each_command(host, capsys):
    for arguments in (["--help"], ["-h"], ["help"]):
        code, out, _ = host.call(capsys, *arguments)
        assert code == 0 and all(f"\n  {name} " in out for name in COMMANDS)
        assert max(map(len, out.splitlines())) <= 80


def test_the_version_is_told_everywhere(host, capsys):
    for arguments in (["--version"], ["list", "--version"]):
        code, out, _ = host.call(capsys, *arguments)
        assert code == 0 and out.startswith("linodctl 1.")


def test_a_mistyped_command_gets_the_one_that_was_meant(host, capsys):
    assert host.call(capsys, "histroy") == (
        2,
        "",
        "linodctl: There is no command 'histroy'. Did you mean history?\n",
    )
    assert "See linodctl --help." in host.call(capsys, "xyzzy")[2]


def test_what_is_systemds_is_said_to_be(host, capsys):
    code, _, err = host.call(capsys, "start", "myprj")
    assert code == 2 and "systemctl start linod@myprj" in err
    assert "systemctl enable linod@SITE" in host.call(capsys, "enable")[2]


def test_a_wrong_option_is_a_sentence(host, capsys):
    for arguments in (["--frobnicate"], ["list", "--frobnicate"], ["history", "--limit", "x"], ["show"]):
        code, out, err = host.call(capsys, *arguments)
        assert code == 2 and not out
        assert err.startswith("linodctl: ") and err.count("\n") == 1 and "--help" in err


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("show", "linodctl show [options] [SITE] RUN"),
        ("why", "linodctl why [options] [SITE] TASK"),
        ("run", "linodctl run [options] [SITE] TASK"),
        ("cancel", "linodctl cancel [options] [SITE] RUN"),
        ("pause", "linodctl pause [options] [SITE] [TASK]"),
        ("add", "linodctl add [options] SITE DIR"),
    ],
)
def test_the_usage_shows_how_often_each_word_is_typed(host, capsys, command, usage):
    assert host.call(capsys, command, "--help")[1].startswith(f"usage: {usage}\n")


def test_global_options_may_stand_on_both_sides_of_the_command(host, capsys):
    assert json.loads(host.call(capsys, "--json", "sites")[1]) == []
    assert json.loads(host.call(capsys, "sites", "--json")[1]) == []


def test_a_pipe_that_is_closed_is_no_error(host):
    host.add("myprj")
    host.remember("myprj", [task("ping")], [run("ping", output="x" * 200) for _ in range(2000)])
    process = subprocess.Popen(
        host.command("history", "-n", "2000", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_it_starts_as_a_module_and_without_the_environment(host):
    done = subprocess.run(
        [sys.executable, "-m", "linod.ctl", "--version"], capture_output=True, text=True, timeout=30, cwd=os.getcwd()
    )
    assert done.returncode == 0 and done.stdout.startswith("linodctl ")


# Words


def test_instants_are_typed_as_spans_days_or_times():
    now = datetime.now(UTC)
    for text, seconds in (("90s", 90), ("2h", 7200), ("1.5 days ago", 129600), ("10 min", 600), ("-1w", 604800)):
        assert abs((now - instant(text)).total_seconds() - seconds) < 5
    assert instant("2026-11-24 20:00") == datetime(2026, 11, 24, 20).astimezone()
    assert instant("2026-11-24T20:00:00Z") == datetime(2026, 11, 24, 20, tzinfo=UTC)
    midnight = instant("today")
    assert (midnight.hour, midnight.minute) == (0, 0) and midnight <= datetime.now(UTC).astimezone()
    assert timedelta(hours=20) < instant("today") - instant("yesterday") < timedelta(hours=28)
    assert instant("08:30").astimezone().strftime("%H:%M") == "08:30"


@pytest.mark.parametrize("text", ["", "soon", "9999999999999999d", "25:00", "2026-13-01"])
def test_what_is_no_time_is_told(host, capsys, text):
    host.add("myprj")
    code, _, err = host.call(capsys, "history", f"--since={text}")
    assert code == 2 and "is no time; write one like" in err


def test_the_day_is_left_out_where_it_is_today():
    now = datetime.now(UTC).astimezone().replace(hour=12)
    assert brief_clock(now.replace(hour=9, minute=5, second=7), now) == "09:05:07"
    assert brief_clock(now - timedelta(days=3), now).startswith(f"{now - timedelta(days=3):%Y-%m-%d} ")


def test_numbers_are_told_in_words():
    assert [count(1, "task"), count(2, "task")] == ["1 task", "2 tasks"]
    assert [duration(s) for s in (0, 1.5, 59, 61, 3600, 90061)] == [
        "0 s",
        "1.5 s",
        "59 s",
        "1 min 1 s",
        "1 h",
        "1 d 1 h",
    ]
    assert [size(512), size(2 * 1024**2)] == ["0.5 MiB", "2.0 GiB"]


def test_a_bar_shows_how_far_a_task_is():
    assert line_of(5, 10, "mails") == " 50% [##########          ] 5/10 mails"
    assert line_of(5, None, "mails") == "5 mails"
    assert line_of(50, 10, "") == "100% [####################] 50/10 "
    assert "\x1b" not in line_of(1, 2, "\x1b[2J")
