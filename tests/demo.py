"""Show linod at work for a minute: the six tasks of the demo site noi1e, and a mail server to send to.

    python -m tests.demo --seconds 60

Everything is real: the site, the daemon, the mails. What happens is shown as it happens, each line with who says it.
The tasks that are due too seldom are run by the command that a maintainer would type. Files lie in build/demo and are
left there to be looked at; processes all end with this one.
"""

import argparse
import contextlib
import fcntl
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, repeat
from pathlib import Path

from linod.archive import Archive
from linod.linux import die_with_parent
from linod.runs import Outcome
from linod.state import find_state

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "build" / "demo"
SITE = HOME / "noi1e"
MAILS = HOME / "mails"
ZONE = "Europe/Tallinn"  # the site's; one clock for all that is shown

PATIENCE = 120  # seconds for a command, or for the daemon to drain
PACE = 5  # seconds between two things that a person does, at the most
RUNS_SHOWN = 30
COLOURS = {"you": "32", "linod": "36", "mail": "35", "demo": "1"}
MAILS_SHOWN = 3  # of those that arrive together, which is
TOGETHER = 0.5  # seconds from one to the next

# What the environment must not tell the site: it is a service's, or another site's.
PRIVATE = re.compile("NOI1E_|LINOD_|DJANGO_SETTINGS_MODULE|STATE_DIRECTORY|NOTIFY_SOCKET|JOURNAL_STREAM|WATCHDOG_")


class Trouble(Exception):
    """Something did not go as it should, in words."""


class Screen:
    """Lines of several speakers on one terminal; mails that arrive together are summed up."""

    def __init__(self):
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.mails = 0
        self.last_mail = 0.0

    def show(self, who, text):
        if who == "mail":
            self.mails, self.last_mail = self.mails + 1, time.monotonic()
            if self.mails > MAILS_SHOWN:
                return
        self.write(who, text)

    def sum_up_mails(self):
        """Say how many were not shown, when no more arrive."""
        if time.monotonic() - self.last_mail < TOGETHER:
            return
        if self.mails > MAILS_SHOWN:
            self.write("mail", f"… and {self.mails - MAILS_SHOWN} more")
        self.mails = 0

    def write(self, who, text):
        time_of_day, name = f"{datetime.now():%H:%M:%S}", f"{who:5}"
        if self.colour:
            time_of_day, name = f"\x1b[2m{time_of_day}\x1b[0m", f"\x1b[{COLOURS[who]}m{name}\x1b[0m"
        print(f"{time_of_day} {name} {text}", flush=True)


class Program:
    """A running program whose lines go into a queue, each with who says it."""

    def __init__(self, who, command, lines, **options):
        # A session of its own, so that Ctrl-C does not reach it; without us it would never end.
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
            **{"stdin": subprocess.DEVNULL, **options},
        )
        self.first_line = self.process.stdout.readline() if who == "mail" else ""
        self.reader = threading.Thread(target=self.read, args=(who, lines), daemon=True)
        self.reader.start()

    def read(self, who, lines):
        for line in self.process.stdout:
            lines.put((who, line.rstrip()))

    def has_ended(self):
        return self.process.poll() is not None and not self.reader.is_alive()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Demo:
    """The site, its mail server, its daemon, and the screen on which they are seen."""

    def __init__(self):
        self.screen = Screen()
        self.lines = queue.Queue()
        self.heard = set()  # who has said something already
        self.programs = []
        self.daemon = None
        self.environment = {name: value for name, value in os.environ.items() if not PRIVATE.match(name)}

    def set_up(self):
        """Make the site with its data, and start its mail server."""
        shutil.copytree(ROOT / "tests" / "projects" / "noi1e", SITE, ignore=ignored)
        self.say("A new site with 240 users on SQLite, and a mail server.")
        for command in ["migrate", "--verbosity=0"], ["demo"]:
            self.ask(*command)
        command = [sys.executable, "-m", "tests.support.smtp", "--until-eof", "--verbose", "--dir", str(MAILS)]
        self.mail_server = self.start("mail", command, cwd=ROOT, stdin=subprocess.PIPE)
        if not self.mail_server.first_line:
            raise Trouble("The mail server does not start.")
        port = self.mail_server.first_line.split()[-1]
        self.environment |= {"NOI1E_EMAIL_HOST": "127.0.0.1", "NOI1E_EMAIL_PORT": port}

    def play(self, seconds):
        """Run the daemon, and do meanwhile what the site's users and its maintainer do."""
        seldom = self.tasks_not_due_within(seconds or 60)
        self.type("linod", "--list")
        self.say("$ python manage.py linod")
        self.daemon = self.start("linod", manage("linod"))
        end = time.monotonic() + (seconds or float("inf"))
        acts = chain.from_iterable((["post_messages", "3"], ["linod", "--run", task]) for task in seldom)
        pause = min(PACE, seconds / (2 * len(seldom) + 2)) if seconds else PACE
        for act in chain(acts, repeat(["post_messages", "3"])):
            self.watch(pause)
            if time.monotonic() > end and act[0] != "linod" and self.all_tasks_have_run():
                break
            self.type(*act)

    def finish(self):
        """Stop the daemon as a service manager would, and let it drain."""
        if self.daemon is None:
            return
        # Before its first word it may not be able to do more than die of the signal.
        self.listen(lambda: "linod" in self.heard, "The daemon says nothing")
        daemon, self.daemon = self.daemon, None
        self.say(f"$ kill -TERM {daemon.process.pid}")
        daemon.process.terminate()
        self.listen(daemon.has_ended, "The daemon does not stop")
        if code := daemon.process.returncode:
            raise Trouble(f"The daemon ended with exit code {code}.")

    def tasks_not_due_within(self, seconds):
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        tasks = json.loads(self.ask("linod", "--list", "--json"))["tasks"]
        return [task["name"] for task in tasks if datetime.fromisoformat(task["next_run"]) > end]

    def all_tasks_have_run(self):
        with history() as archive:
            return 0 < len(archive.tasks()) == len(archive.last_starts())

    def start(self, who, command, **options):
        program = Program(who, command, self.lines, **{"cwd": SITE, "env": self.environment, **options})
        self.programs.append(program)
        return program

    def ask(self, *arguments):
        """What a command of the site answers, unseen."""
        command = manage(*arguments)
        answer = subprocess.run(
            command, cwd=SITE, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if answer.returncode:
            raise Trouble(f"{' '.join(command[1:])} failed:\n{answer.stdout}{answer.stderr}")
        return answer.stdout

    def type(self, *arguments):
        """Do what a person would do in a terminal of their own."""
        self.say(f"$ python manage.py {' '.join(arguments)}", "you")
        program = self.start("you", manage(*arguments))
        self.listen(program.has_ended, f"{' '.join(arguments)} does not end")
        self.programs.remove(program)
        if code := program.process.returncode:
            raise Trouble(f"{' '.join(arguments)} ended with exit code {code}.")

    def say(self, text, who="demo"):
        self.screen.show(who, text)

    def watch(self, seconds):
        end = time.monotonic() + seconds
        self.listen(lambda: time.monotonic() > end, "Time does not pass")

    def listen(self, is_done, complaint):
        """Show what is said until something has happened."""
        deadline = time.monotonic() + PATIENCE
        while not is_done() or not self.lines.empty():
            try:
                who, line = self.lines.get(timeout=0.1)
            except queue.Empty:
                self.screen.sum_up_mails()
            else:
                self.heard.add(who)
                # The screen shows the time and the speaker already.
                self.screen.show(who, re.sub(r"^(\d\d:\d\d:\d\d|mail) ", "", line))
            if self.daemon and self.daemon.has_ended():
                raise Trouble(f"The daemon has ended by itself, with exit code {self.daemon.process.returncode}.")
            if time.monotonic() > deadline:
                raise Trouble(f"{complaint}, not within {PATIENCE} seconds.")

    def end_all(self):
        for program in self.programs:
            program.kill()


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="how long; 0: until Ctrl-C (default: 60)")
    seconds = parser.parse_args().seconds
    os.environ["TZ"] = ZONE
    time.tzset()
    for number in signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, signal.default_int_handler)
    try:
        with terminal_of_our_own(), directory_of_our_own():
            return show(seconds)
    except BrokenPipeError:  # nobody looks any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return 1


def show(seconds):
    """The whole demo. Returns the exit code."""
    demo = Demo()
    try:
        demo.set_up()
        with contextlib.suppress(KeyboardInterrupt):
            demo.play(seconds)
        demo.finish()
    except KeyboardInterrupt:
        print("Stopped at once.")
        return 0
    finally:
        demo.end_all()
    return print_history()


def print_history():
    """What the daemon has written down. Returns 1 where something went wrong."""
    with history() as archive:
        labels = {row["id"]: json.loads(row["task"])["label"] for row in archive.tasks()}
        runs = [run for run in archive.runs(limit=100_000) if run.started]
    row = "{:8}  {:26} {:9} {:10} {:>8} {:>8}  {}".format
    print("\n" + row("started", "task", "trigger", "outcome", "took", "memory", "last line of its output"))
    for run in sorted(runs, key=lambda run: run.started)[-RUNS_SHOWN:]:
        started, said = f"{run.started.astimezone():%H:%M:%S}", (run.output.splitlines() or [""])[-1]
        took, memory = f"{run.duration or 0:.2f} s", f"{(run.peak_memory or 0) / 1024:.0f} MiB"
        print(row(started, labels[run.task], run.trigger, run.outcome or "running", took, memory, said))
    succeeded = [run for run in runs if run.outcome is Outcome.SUCCEEDED]
    mails = len(list(MAILS.glob("*.eml")))
    print(
        f"\n{len({run.task for run in succeeded})} of {len(labels)} tasks have succeeded,"
        f" in {len(succeeded)} of {len(runs)} runs. {mails} mails arrived.\n"
        f"All of it is in {HOME.relative_to(ROOT)}."
    )
    return 0 if len(succeeded) == len(runs) else 1


def history():
    return Archive(find_state(SITE))


def manage(*arguments):
    return [sys.executable, "manage.py", *arguments]


def ignored(directory, names):
    """What belongs to a checkout that was used, not to the site."""
    inside_var = Path(directory).name == "var"
    return {name for name in names if inside_var or name in (".linod", "__pycache__", "log", "local_settings.py")}


@contextlib.contextmanager
def directory_of_our_own():
    """An empty build/demo that no other demo uses."""
    HOME.parent.mkdir(exist_ok=True)
    with (HOME.parent / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Trouble("Another demo is running in this checkout.") from None
        shutil.rmtree(HOME, ignore_errors=True)
        HOME.mkdir()
        yield


@contextlib.contextmanager
def terminal_of_our_own():
    """Let Ctrl-C reach this process alone: make, which waits for us, would call it an error."""
    try:
        before = os.tcgetpgrp(0)
    except OSError:  # no terminal
        before = None
    if before is None or before != os.getpgrp() or before == os.getpid():
        yield
        return
    # Nobody could continue what Ctrl-Z stopped: the shell knows of make only.
    signal.signal(signal.SIGTSTP, lambda *_: None)
    # The kernel stops a process in the background that reaches for the terminal, unless it blocks this signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(0, before)


if __name__ == "__main__":
    sys.exit(main())
