"""Debian's promtool, node_exporter and Prometheus itself read what linodctl tells."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, contextmanager

import pytest

from tests.support.ctl import ROOT, CtlHost, run, task
from tests.unit.test_ctl_metrics import HOSTILE

PROGRAMS = ROOT / "build/prometheus/usr/bin"
RULES = ROOT / "packaging/prometheus/examples/linod.rules.yml"
PATIENCE = 30.0


@pytest.fixture
def host(tmp_path):
    """A site with names that are to break the format, and one whose history is broken."""
    host = CtlHost(tmp_path)
    host.add("hostile", "broken")
    names = ["ping", *(name for name in HOSTILE if name != "\ud800")]
    host.remember("hostile", [task(name) for name in names], [run("ping"), run("ping", "failed")])
    (host.var / "broken").mkdir()
    (host.var / "broken/history.sqlite3").write_bytes(b"no database" * 1000)
    return host


def metrics(host, *arguments):
    done = host.spawn("metrics", *arguments)
    assert done.returncode == 0
    return done.stdout


def promtool(*arguments, text=None):
    done = subprocess.run(
        [PROGRAMS / "promtool", *map(str, arguments)], input=text, capture_output=True, text=True, timeout=PATIENCE
    )
    return done.returncode, done.stdout + done.stderr


@contextmanager
def serving(program, *arguments):
    """A program that listens at an address of its own; yields how to ask it for a page."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [PROGRAMS / program, f"--web.listen-address={address}", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield lambda path: until(lambda: urllib.request.urlopen(f"http://{address}{path}", timeout=5).read().decode())
    finally:
        process.kill()
        process.wait()


def until(ask):
    """What it answers, as soon as it does."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if answer := ask():
                return answer
        except OSError:
            pass  # it doesn't listen yet
        assert time.monotonic() < end
        time.sleep(0.05)


def test_promtool_finds_nothing_wrong_with_the_metrics(host):
    assert promtool("check", "metrics", text=metrics(host, "--format", "prometheus")) == (0, "")


def test_promtool_finds_nothing_wrong_with_the_rules():
    code, told = promtool("check", "rules", RULES)
    assert code == 0 and "rules found" in told


def test_the_textfile_collector_takes_the_file(host, tmp_path):
    (tmp_path / "textfiles").mkdir()
    metrics(host, "--output", tmp_path / "textfiles/linod.prom")
    arguments = ("--collector.disable-defaults", "--collector.textfile")
    with serving("prometheus-node-exporter", *arguments, f"--collector.textfile.directory={tmp_path}/textfiles") as ask:
        page = ask("/metrics")
    assert "\nnode_textfile_scrape_error 0\n" in page
    assert '\nlinod_task_runs_total{outcome="failed",site="hostile",task="app.tasks.ping"} 1\n' in page
    assert '\nlinod_site_history_readable{site="broken"} 0\n' in page
    ours = {line for line in page.splitlines() if line.startswith("linod_")}
    assert len(ours) == sum(line.startswith("linod_") for line in metrics(host, "--format", "prometheus").splitlines())


def test_prometheus_takes_openmetrics(host, tmp_path):
    text = metrics(host).encode()
    (tmp_path / "server.py").write_text(
        "import sys, http.server\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.send_header('Content-Type', 'application/openmetrics-text; version=1.0.0; charset=utf-8')\n"
        "        self.end_headers()\n"
        "        self.wfile.write(open(sys.argv[1], 'rb').read())\n"
        "    def log_message(self, *_): pass\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), Handler)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    (tmp_path / "metrics.txt").write_bytes(text)
    command = [sys.executable, tmp_path / "server.py", tmp_path / "metrics.txt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as site:
        try:
            target = f"127.0.0.1:{int(site.stdout.readline())}"
            (tmp_path / "prometheus.yml").write_text(
                f"global: {{scrape_interval: 1s}}\nrule_files: [{RULES}]\n"
                f"scrape_configs: [{{job_name: linod, static_configs: [{{targets: ['{target}']}}]}}]\n"
            )
            arguments = (f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data")
            with serving("prometheus", *arguments) as ask:
                query = "/api/v1/query?query=linod_task_runs_total"
                found = until(lambda: json.loads(ask(query))["data"]["result"])
                target = json.loads(ask("/api/v1/targets"))["data"]["activeTargets"][0]
        finally:
            site.kill()
    assert target["lastError"] == ""
    values = {(one["metric"]["task"], one["metric"]["outcome"]): one["value"][1] for one in found}
    assert values["app.tasks.ping", "failed"] == "1" and len(values) == 7 * len(HOSTILE)
