"""What the tests' own servers have in common: each is a process of its own, for as long as a `with` block lasts."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Served:
    """A server on loopback, which keeps what it gets in a directory. Its first line of output names the port."""

    module: str  # is run with --port and --dir
    name: str

    def __init__(self, directory, *options, port=0):
        self.directory, self.options, self.port = Path(directory), options, port

    def __enter__(self):
        options = ["--port", str(self.port), "--dir", str(self.directory), *self.options]
        # It ends when its standard input does, so that it can't outlive a test run that was killed.
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module, *options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The {self.name} server did not start.")
        self.port = int(line.split()[-1])
        return self

    def __exit__(self, *exc_info):
        self.process.communicate()  # closes its standard input
