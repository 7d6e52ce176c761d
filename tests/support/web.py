"""A real HTTP server on loopback in a process of its own, which keeps each request as a file.

    python -m tests.support.web --port 8080 --dir /tmp/requests

Its first line of output names the port. Tests use `WebServer`.
"""

import argparse
import json
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.serving import Served


@dataclass(frozen=True)
class Request:
    """One that the server got."""

    method: str
    path: str
    kind: str  # its Content-Type
    body: str


class WebServer(Served):
    """Run the server for as long as the `with` block lasts, on a free port unless one is given.

    It answers 200, or whatever stands in the file `answer` of its directory, after as many seconds as in `delay`.
    A redirection leads to /moved, where it answers 200.
    """

    module, name = "tests.support.web", "web"

    def __init__(self, directory, port=0):
        super().__init__(directory, port=port)
        self.directory.mkdir(parents=True, exist_ok=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self):
        """All requests so far, in the order of their arrival."""
        return [Request(**json.loads(path.read_text())) for path in sorted(self.directory.glob("*.json"))]

    def answer(self, status):
        (self.directory / "answer").write_text(str(status))

    def delay(self, seconds):
        (self.directory / "delay").write_text(str(seconds))


class Handler(BaseHTTPRequestHandler):
    directory = Path()
    lock = threading.Lock()
    number = 0

    def do_GET(self):
        self.keep("")

    def do_POST(self):
        self.keep(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def keep(self, body):
        with self.lock:
            Handler.number += 1
            path = self.directory / f"{self.number:06}.json"
        kind = self.headers.get("Content-Type", "")
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"method": self.command, "path": self.path, "kind": kind, "body": body}))
        part.rename(path)
        time.sleep(float(self.told("delay", 0)))
        status = 200 if self.path == "/moved" else int(self.told("answer", 200))
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/moved")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def told(self, name, default):
        path = self.directory / name
        return path.read_text() if path.exists() else default

    def log_message(self, *_arguments):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dir", type=Path, required=True)
    options = parser.parse_args()
    Handler.directory = options.dir
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    print(f"Listening on 127.0.0.1 port {server.server_address[1]}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
