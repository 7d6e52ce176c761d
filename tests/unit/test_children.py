"""How processes end, and the signals that the daemon acts on: real processes, real signals."""

import faulthandler
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from linod.daemon.children import end_leftovers, has_mark, how_it_ended, writes_to
from linod.linux import birth, children, processes
from tests.support.site import until

ROOT = Path(__file__).resolve().parents[2]


def ended(end: object) -> int:
    """The wait status of a child that ends like this: an exit code, or a negative signal."""
    pid = os.fork()
    if pid == 0:
        assert isinstance(end, int)
        if end >= 0:
            os._exit(end)
        faulthandler.disable()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.kill(os.getpid(), -end)
        time.sleep(5)
        os._exit(99)
    return os.waitpid(pid, 0)[1]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (0, "its process left with exit status 0"),
        (3, "its process left with exit status 3"),
        (-signal.SIGKILL, "its process was killed (SIGKILL), by somebody or because memory was short"),
        (-signal.SIGSEGV, "its process died of SIGSEGV"),
        (-signal.SIGTERM, "its process died of SIGTERM"),
        (-int(signal.SIGRTMIN), "its process died of SIGRTMIN"),
        (-40, "its process died of signal 40"),
    ],
)
def test_how_a_process_ended_is_told_in_words(end: int, words: str) -> None:
    assert how_it_ended(ended(end)) == words


def test_every_signal_has_words() -> None:
    for number in range(1, signal.SIGRTMAX + 1):
        assert "its process" in how_it_ended(number)


def test_a_process_is_known_by_its_mark_or_its_pipe() -> None:
    reading, writing = os.pipe()
    child = subprocess.Popen(["sleep", "60"], env={"LINOD_RUN": "77", "PATH": os.environ["PATH"]}, stdout=writing)
    try:
        # It shows an empty environment for an instant, while the kernel still executes it.
        assert until(lambda: has_mark(child.pid, b"LINOD_RUN=77\0"))
        assert not has_mark(child.pid, b"LINOD_RUN=7\0")
        assert writes_to(child.pid, os.fstat(reading).st_ino)
        assert not writes_to(child.pid, 1)
    finally:
        child.kill()
        child.wait()
        os.close(reading)
        os.close(writing)
    assert not has_mark(child.pid, b"LINOD_RUN=77\0") and not writes_to(child.pid, 1)


def test_what_a_dead_worker_left_in_its_session_is_ended() -> None:
    worker = subprocess.Popen(
        ["sh", "-c", "sleep 60 & sleep 60 & echo there; wait"], start_new_session=True, stdout=subprocess.PIPE
    )
    try:
        assert worker.stdout and worker.stdout.readline() == b"there\n"
        left = children(worker.pid)
        born = birth(worker.pid)
        assert end_leftovers(worker.pid, (born or 0) - 1, processes()) == 0, "the pid is another process's now"
        worker.kill()
        worker.wait()
        assert end_leftovers(worker.pid, born, processes()) == len(left) == 2
        end = time.monotonic() + 10
        while any(birth(pid) is not None and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" for pid in left):
            assert time.monotonic() < end
    finally:
        try:
            os.killpg(worker.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        worker.communicate()


# Signals, in a process of their own

SIGNALS = """
import os, select, signal, sys
from linod.daemon.signals import Signals

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP])  # as a parent may have left it
signals = Signals()
assert signals.take() == []
for number in sys.argv[1:]:
    os.kill(os.getpid(), int(number))
assert select.select([signals], [], [], 5)[0]
print([signal.Signals(number).name for number in signals.take()])
assert signals.take() == []
assert not select.select([signals], [], [], 0)[0]
"""


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ([signal.SIGTERM], ["SIGTERM"]),
        ([signal.SIGHUP], ["SIGHUP"]),
        ([signal.SIGINT, signal.SIGINT], ["SIGINT", "SIGINT"]),
        ([signal.SIGCHLD, signal.SIGTERM, signal.SIGCHLD], ["SIGTERM", "SIGCHLD"]),
    ],
)
def test_signals_become_events_of_the_loop(sent: list[int], taken: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SIGNALS, *map(str, map(int, sent))],
        cwd=ROOT,
        timeout=20,
        capture_output=True,
        text=True,
    )
    assert ended.stdout.strip() == str(taken), ended.stderr
