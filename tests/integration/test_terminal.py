"""The daemon in a terminal, a real pseudo-terminal: Ctrl-C, Ctrl-Z and fg, a closed window, colours."""

import os
import pty
import select
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest

from linod.linux import children, descendants
from tests.support.site import PATIENCE, Site, is_alive, state_of, until

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow


TASKS = """
import linod, logging, os, time

@linod.task(every=0.5)
def silent():
    pass

@linod.task(every=1, timeout=100)
def long():
    if not os.path.exists("began"):
        open("began", "w").close()
        time.sleep(2)
        open("finished", "w").close()

@linod.task(every=0.5)
def warns():
    if not os.path.exists("warned"):
        open("warned", "w").close()
        logging.getLogger("app").warning("careful")
"""


class Terminal:
    """A process with a terminal of its own: what it shows, and keys to press."""

    def __init__(self, command, **options):
        self.master, slave = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=lambda: own_terminal(slave), **options
        )
        os.close(slave)

    @property
    def pid(self):
        return self.process.pid

    def read(self):
        """Take what has been shown since."""
        while self.master is not None and select.select([self.master], [], [], 0.02)[0]:
            try:
                self.text += os.read(self.master, 65536).decode(errors="replace")
            except OSError:  # nobody has the terminal open any more
                return

    def wait_for(self, text):
        deadline = time.monotonic() + PATIENCE
        while text not in self.text:
            self.read()
            assert time.monotonic() < deadline, f"{text!r} is not shown, but:\n{self.text}"

    def press(self, keys):
        os.write(self.master, keys.encode())

    def press_until_over(self, keys):
        """Press them again and again, as one who loses patience. The exit code."""
        until(lambda: self.read() or self.process.poll() is not None or self.press(keys))
        return self.wait()

    def wait(self):
        """The exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < deadline, f"It does not end:\n{self.text}"
        self.read()
        return self.process.returncode

    def close(self):
        if self.master is not None:
            os.close(self.master)
            self.master = None


def own_terminal(slave):
    """In the child: lead a session whose terminal this is."""
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


@contextmanager
def terminal(site, command=None, **environment):
    shown = Terminal(command or site.command("linod"), cwd=site.path, env=site.environment | environment)
    try:
        yield shown
    finally:
        for pid in [*descendants(shown.pid), shown.pid]:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        shown.process.wait()
        shown.close()


def test_ctrl_c_lets_the_running_task_end(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with terminal(site) as shown:
        until((site.path / "began").exists)
        shown.press("\x03")
        shown.wait_for("SIGINT: stopping, waiting for 1 run to end; once more kills.")
        assert shown.wait() == 0
        shown.wait_for("Stopped.")
    assert (site.path / "finished").exists()
    assert "Traceback" not in shown.text
    [run] = [run for run in site.runs("long") if run.outcome != "skipped"]
    assert run.outcome == "succeeded"


def test_a_second_ctrl_c_kills_at_once(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with terminal(site) as shown:
        until((site.path / "began").exists)
        shown.press("\x03")
        shown.wait_for("stopping")
        assert shown.press_until_over("\x03") == 130
    assert not (site.path / "finished").exists()
    [run] = [run for run in site.runs("long") if run.outcome != "skipped"]
    assert (run.outcome, run.reason) == ("cancelled", "the daemon was told twice to stop")
    assert "Traceback" not in shown.text


def test_sigterm_drains_and_a_second_one_kills_at_once(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with site.daemon() as daemon:
        until((site.path / "began").exists)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("SIGTERM: stopping")
        until(lambda: daemon.process.poll() is not None or daemon.signal(signal.SIGTERM))
        assert daemon.wait() == 143
    assert not (site.path / "finished").exists()


def test_a_closed_terminal_drains(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with terminal(site) as shown:
        until((site.path / "began").exists)
        shown.close()
        assert shown.wait() == 0
    assert (site.path / "finished").exists()


def test_ctrl_z_stops_the_daemon_and_fg_goes_on(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with terminal(site, ["bash", "--norc", "-i"], PS1="READY> ") as shell:
        shell.wait_for("READY> ")
        shell.press("{} {} linod\n".format(*site.command()))
        site.wait_for_runs("silent")
        [pid] = children(shell.pid)
        shell.press("\x1a")
        shell.wait_for("Stopped")  # says the shell
        assert state_of(pid) == "T"
        number = len(site.ended("silent"))
        time.sleep(1)  # nothing can be waited for: nothing shall happen
        assert len(site.ended("silent")) <= number + 1
        shell.press("fg\n")
        site.wait_for_runs("silent", number + 3)
        shell.press("\x03")
        until(lambda: not is_alive(pid))
        shell.press("echo status $?\n")
        shell.wait_for("status 0")
    assert "Traceback" not in shell.text


def test_colour_is_for_terminals_and_can_be_refused(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with terminal(site) as shown:
        shown.wait_for("careful")
    assert "\x1b[" in shown.text
    (site.path / "warned").unlink()
    with terminal(site, NO_COLOR="1") as shown:
        shown.wait_for("careful")
    assert "\x1b[" not in shown.text
    (site.path / "warned").unlink()
    with site.daemon() as daemon:
        daemon.wait_for("careful")
        assert "\x1b[" not in daemon.output()


def test_a_frequent_task_with_nothing_to_say_is_not_mentioned(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with site.daemon() as daemon:
        site.wait_for_runs("silent", 3)
        assert daemon.terminate() == 0
    assert not [line for line in daemon.output().splitlines() if "silent" in line and "Next" not in line]
