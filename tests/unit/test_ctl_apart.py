"""A site's programs, run for whoever typed the command: they have no terminal to type into, and nothing to wait for."""

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import termios
import time

import pytest

from linod.ctl import leftovers
from linod.linux import birth
from tests.support.ctl import CtlHost
from tests.unit.test_ctl_screen import in_terminal

GOOD = '{"uses_linod": true, "tasks": ["a.b"], "complaints": []}'


@pytest.fixture
def host():
    with CtlHost.open_to_all() as host:
        host.add("myprj")
        host.let_in = host.path / "open"
        host.let_in.mkdir()
        host.let_in.chmod(0o777)
        yield host


def python(host, does, version="echo 3 11 0"):
    """Let the interpreter of the site be a script: what it does when the site is loaded, and when it is asked."""
    program = host.path / "srv/myprj/python"
    program.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then {version}; exit; fi\n{does}\n')
    program.chmod(0o755)
    (host.etc / "myprj.toml").write_text(f'python = "{program}"\n')


def problems(done):
    assert (done.returncode, done.stderr) == (78, ""), done.stderr
    [found] = json.loads(done.stdout)
    return found["problems"]


def typed(command, *keys):
    """What a command shows on a terminal on which that is typed, each when something else has been shown."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(["setsid", "--ctty", "--wait", *command], stdin=theirs, stdout=theirs, stderr=theirs)
    seen, waiting = b"", list(keys)
    try:
        deadline = time.monotonic() + 30
        while process.poll() is None or select.select([ours], [], [], 0)[0]:
            assert time.monotonic() < deadline, seen
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 65536)
            if waiting and waiting[0][0].encode() in seen:
                os.write(ours, waiting.pop(0)[1])
        assert termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
    return seen.decode()


@pytest.mark.claim("S3")
def test_a_site_that_is_checked_has_no_terminal(host):
    look = f"(: < /dev/tty) 2> /dev/null && touch {host.let_in}/terminal"
    python(host, f"{look}; echo '{GOOD}'", version=f"{look}; echo 3 11 0")
    assert "1 task" in in_terminal(["setsid", "--ctty", "--wait", *host.command("check", "myprj")])
    assert not (host.let_in / "terminal").exists()


@pytest.mark.claim("S3")
def test_a_site_that_is_executed_has_another_terminal_than_who_called_it(host):
    """Which it may open by its name, and from which it can type nothing into that of root."""
    python(host, "test -t 0 && test -t 1 && test -t 2 && tty && echo named >$(tty) && echo own >/dev/tty")
    shown = typed(["sh", "-c", 'echo "before: $(tty)"; exec "$@"', "sh", *host.command("exec", "myprj")])
    mine, theirs = re.findall("/dev/pts/[0-9]+", shown)
    assert mine != theirs and "named" in shown and "own" in shown


@pytest.mark.claim("S3")
def test_what_a_site_leaves_behind_does_not_read_what_is_typed_later(host):
    thief = f"while read line; do echo $line >>{host.let_in}/stolen; done"
    leave = f"exec 8<&0; setsid sh -c 'echo $$ >{host.let_in}/pid; {thief}' <&8 &"
    python(host, f"{leave} until test -s {host.let_in}/pid; do sleep 0.01; done")
    left = f"kill -0 $(cat {host.let_in}/pid) 2>/dev/null"
    again = f"echo over; read line; while {left}; do sleep 0.01; done; echo typed $line"
    shown = typed(["bash", "-c", f'"$@"; {again}', "bash", *host.command("exec", "myprj")], ("over", b"password\n"))
    assert "typed password" in shown and not (host.let_in / "stolen").exists()


def test_what_is_typed_reaches_what_is_executed(host):
    """A line, an interrupt, and the size of the terminal."""
    python(
        host,
        "stty size; read line; echo got $line; trap 'echo caught; exit 3' INT; echo on; while :; do sleep 0.02; done",
    )
    command = ["bash", "-c", 'stty rows 33 cols 99; "$@"; echo code $?', "bash", *host.command("exec", "myprj")]
    shown = typed(command, ("33 99", b"a line\n"), ("on\r", b"\x03"))
    assert "got a line" in shown and "caught" in shown and "code 3" in shown


@pytest.mark.parametrize("more", ["| cat", "</dev/null", "2>/dev/null", "| cat & wait"])
def test_what_is_shown_elsewhere_leaves_the_terminal_alone(host, more):
    python(host, "seq 20000; echo errors >&2; test -t 0 || cat; exit 3")
    command = " ".join(map(shlex.quote, host.command("exec", "myprj")))
    shown = typed(["bash", "-c", f"{command} {more}"])
    assert shown.count("\r\n") >= 20000 and "20000\r\n" in shown and ("errors\r\n" in shown) == ("2>" not in more)


@pytest.mark.claim("S2")
def test_who_asks_for_a_version_tells_no_secrets(host):
    python(host, f"echo '{GOOD}'", version='test -z "$SECRET" && echo 3 11 0')
    assert host.spawn("check", "myprj", SECRET="x").returncode == 0


@pytest.mark.claim("S5")
@pytest.mark.parametrize(
    "answer",
    [
        *("", "[]", "null", "{}", "{", "[" * 100_000, '"x"', "9" * 5000, '{"problem": 7}'),
        *('{"uses_linod": 1, "tasks": [], "complaints": []}', '{"uses_linod": true, "tasks": [{}], "complaints": []}'),
    ],
)
def test_a_site_may_answer_anything(host, answer):
    (host.let_in / "answer").write_text(answer)
    python(host, f"cat {host.let_in}/answer; echo 'no luck' >&2; exit 0")
    [problem] = problems(host.spawn("check", "myprj", "--json"))
    assert "died while loading the site: no luck" in problem
    shown = host.spawn("add", "--scan", host.path / "srv", "--json")
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.claim("S5")
def test_a_site_that_writes_without_end_fills_no_memory(host):
    python(host, f"head -c 500000000 /dev/zero >&2; head -c 100000000 /dev/zero; echo '{GOOD}'")
    limited = ["sh", "-c", 'ulimit -v 400000; exec "$@"', "sh", *host.command("check", "myprj", "--json")]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=100)
    assert "died while loading the site" in problems(done)[0]


@pytest.mark.claim("S5")
def test_a_process_that_a_site_leaves_behind_is_not_waited_for(host):
    """It is killed, unless it has a session of its own."""
    pids = [host.let_in / name for name in ("near", "far")]
    leave = f"sleep 1000 & echo $! > {pids[0]}; setsid sh -c 'echo $$ > {pids[1]}; exec sleep 1000' &"
    python(host, f"{leave} until test -s {pids[1]}; do sleep 0.01; done; echo '{GOOD}'")
    try:
        assert host.spawn("check", "myprj").returncode == 0
        near, far = ((pid, birth(pid)) for pid in (int(path.read_text()) for path in pids))
        assert leftovers.wait([near], 10) and leftovers.is_alive(far)
    finally:
        os.kill(int(pids[1].read_text()), signal.SIGKILL)


def started(host, *arguments):
    """A command in a group of its own, when the site's program has begun."""
    process = subprocess.Popen(
        # Below nohup or in the background of a shell these tests ignore signals, and so would all that they start.
        ["env", "--default-signal", *host.command(*arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    os.close(os.open(host.let_in / "begun", os.O_RDONLY))
    return process


@pytest.fixture
def begun(host):
    """Opened by a site's program when it has begun; who opens it as well waits for that."""
    os.mkfifo(host.let_in / "begun")
    (host.let_in / "begun").chmod(0o666)
    return f"exec 9> {host.let_in}/begun 9>&-"


def test_an_interrupt_ends_a_check_without_a_traceback(host, begun):
    python(host, "", version=f"{begun}; sleep 100")
    process = started(host, "check", "myprj")
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_what_is_executed_and_its_end_is_told(host, begun, number):
    python(host, f"{begun}; exec sleep 100")
    process = started(host, "exec", "myprj")
    os.kill(process.pid, number)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 128 + number


def test_a_program_that_catches_a_signal_decides_what_it_means(host, begun):
    python(host, f"trap 'echo caught; exit 3' INT\n{begun}\nwhile :; do sleep 0.05; done")
    process = started(host, "exec", "myprj")
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30) == ("caught\n", "")
    assert process.returncode == 3
