"""What throw-away database servers have in common: a directory, a port, an unprivileged user, and an end."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PATIENCE = 60  # seconds for a server to start or to stop on a busy machine


class ThrowawayServer:
    """A database server of the test's own, for as long as the `with` block lasts.

    It listens on a loopback port, and on a Unix socket in its directory. It ends with the test, also with one that is
    killed. Subclasses say which programs make its data and serve it.
    """

    user: str  # runs it where the tests run as root
    superuser: str  # of the database, without a password
    engine: str  # as Django calls it
    driver_error: type[Exception]
    stop_signal = signal.SIGTERM
    own_id: str  # SQL for the id of a connection
    hang_up_after_a_second: tuple[str, ...]  # options that end connections which are idle for so long

    def __init__(self, *options):
        self.options = options

    def __enter__(self):
        # Not below pytest's directory: that is closed to others, and too long a path for a Unix socket.
        self.directory = Path(tempfile.mkdtemp(prefix="linod-db-", dir="/tmp"))
        self.port = free_port()
        self.process = None
        try:
            if os.geteuid() == 0:
                os.chown(self.directory, self.account().pw_uid, -1)
            self.call(self.make_data_command())
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception):
        self.kill()
        shutil.rmtree(self.directory)

    def start(self):
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.as_user(), *self.serve_command()],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while (complaint := self.complaint()) is not None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{type(self).__name__} doesn't start: {complaint}\n{self.log.read_text()}")
            time.sleep(0.05)

    def stop(self):
        """Stop it as its administrator would, also while there are connections."""
        self.process.send_signal(self.stop_signal)
        self.process.wait(PATIENCE)

    def kill(self):
        """End it at once, as a crash would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def restart(self):
        self.stop()
        self.start()

    def url(self, name):
        """How noi1e is told of a database."""
        return f"{self.engine}://{self.superuser}@127.0.0.1:{self.port}/{name}"

    def django(self, name):
        """The same for a site's DATABASES, with connections that are kept for ever."""
        return {
            "ENGINE": f"django.db.backends.{self.engine}",
            "NAME": name,
            "USER": self.superuser,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "CONN_MAX_AGE": None,
            "OPTIONS": {"connect_timeout": 5},
        }

    def complaint(self):
        """Why it doesn't answer yet, or None."""
        try:
            self.ask("SELECT 1")
        except self.driver_error as error:
            return str(error)
        return None

    @property
    def log(self):
        return self.directory / "log"

    def call(self, command):
        done = subprocess.run(
            [*self.as_user(), *command],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}")

    def as_user(self):
        """What goes before a command, so that it has no more rights than it needs and ends with the test."""
        command = ["setpriv", "--pdeathsig", "KILL"]
        if os.geteuid() == 0:
            account = self.account()
            command += ["--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups"]
        return command

    def account(self):
        """The server's own user, where the host has it: programs can be there without their package's user."""
        try:
            return pwd.getpwnam(self.user)
        except KeyError:
            return pwd.getpwnam("nobody")


def free_port():
    """A loopback port below those that the kernel gives to clients, so that it is still free after a restart."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
