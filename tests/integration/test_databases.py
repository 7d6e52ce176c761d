"""A site's database may be restarted, hang up, or be down: what tasks notice of it, and what linod does.

On a real PostgreSQL and a real MariaDB, with connections that Django keeps for ever (CONN_MAX_AGE=None).
"""

import itertools
import os
import re
import signal
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from linod.launch import Launch, Place
from linod.runs import Outcome
from tests.support.mariadb import MariaDB
from tests.support.noi1e import TASKS, ServedSite
from tests.support.postgres import Postgres
from tests.support.site import Daemon, Site, is_alive, until
from tests.support.smtp import Server as MailServer

SERVERS = [Postgres, MariaDB]
SUCCEEDED, FAILED = Outcome.SUCCEEDED, Outcome.FAILED

VISIT = """
import linod
from django.db import connection

@linod.task(every={every})
def visit():
    with connection.cursor() as cursor:
        cursor.execute("SELECT {own_id}")
        print("connection", cursor.fetchone()[0])
"""

VISITS = """
import linod
from django.db import connection

def visit():
    with connection.cursor() as cursor:
        cursor.execute("SELECT {own_id}, {sleep}")
        print("connection", cursor.fetchone()[0])

for number in range(4):
    linod.task(every=1, name=f"visit{{number}}")(visit)
"""

# An app that cannot be loaded without its database.
ASKS_WHILE_LOADING = """
from django.apps import AppConfig

class Config(AppConfig):
    name = "app"

    def ready(self):
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
"""

numbers = itertools.count(1)


@pytest.fixture(scope="module", params=SERVERS, ids=lambda kind: kind.__name__)
def shared_server(request):
    with request.param() as server:
        yield server


@pytest.fixture
def server(shared_server):
    """A server that is up; each test has a database of its own on it."""
    if shared_server.process.poll() is not None:
        shared_server.start()
    shared_server.database = f"site{next(numbers)}"
    shared_server.create_database(shared_server.database)
    return shared_server


def make_site(path, server, tasks=VISIT, every=1, workers=1, **more):
    settings = f"DATABASES = {{'default': {server.django(server.database)!r}}}\nLINOD = {{'max_parallel': {workers}}}"
    return Site(path, tasks.format(own_id=server.own_id, every=every, **more), settings)


def connection_of(run):
    """The id of the connection that a run used, as it printed it."""
    return int(re.search(r"connection (\d+)", run.output)[1])


def wait_for(site, daemon, outcome, task="visit", after=None):
    """Wait for a run that was started later than an instant and ended that way."""
    return daemon.wait_for(
        lambda: next(
            (run for run in site.ended(task) if run.outcome is outcome and (after is None or run.started > after)), None
        )
    )


def wait_for_same_worker(site, number):
    """Wait until the last runs, so many of them, were all done by one worker; returns all that have ended."""
    return until(
        lambda: len(runs := site.ended("visit")) >= number and len({run.pid for run in runs[-number:]}) == 1 and runs
    )


def test_while_the_server_is_down_runs_fail_and_the_next_one_after_it_is_back_succeeds(tmp_path, server):
    site = make_site(tmp_path, server)
    with site.daemon() as daemon:
        wait_for(site, daemon, SUCCEEDED)
        server.stop()
        failed = wait_for(site, daemon, FAILED, after=datetime.now(UTC))
        server.start()
        back = datetime.now(UTC)
        wait_for(site, daemon, SUCCEEDED, after=back)
        assert daemon.terminate() == 0
    assert re.match(r"OperationalError: .*\b127\.0\.0\.1\b", failed.reason)
    assert "cursor.execute" in failed.traceback or "connection.cursor()" in failed.traceback
    runs = site.ended("visit")
    assert {run.outcome for run in runs} == {SUCCEEDED, FAILED}, "nothing else has happened to them"
    assert {run.outcome for run in runs if run.started > back} == {SUCCEEDED}


@pytest.mark.parametrize("happening", ["restart", "crash", "hang up"])
def test_what_happens_to_the_server_between_two_runs_is_not_noticed(tmp_path, server, happening):
    def happen():
        if happening == "restart":
            server.restart()
        elif happening == "crash":
            server.kill()
            server.start()
        else:
            server.end_connections(server.database)

    site = make_site(tmp_path, server, every=2)
    with site.daemon() as daemon:
        for _ in range(10):
            before = len(site.wait_for_runs("visit", len(site.ended("visit")) + 1))
            happen()
            was_between = sum(run.started is not None for run in site.runs("visit")) == before
            last, following = site.wait_for_runs("visit", before + 1)[before - 1 : before + 1]
            if was_between and following.pid == last.pid:
                break
        else:
            raise AssertionError("there were no two runs of one worker with that between them")
        assert daemon.terminate() == 0
    assert following.outcome is SUCCEEDED, following.reason


@pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: kind.__name__)
def test_a_connection_that_was_idle_for_too_long_is_replaced_before_the_next_run(tmp_path, kind):
    with kind(*kind.hang_up_after_a_second) as server:
        server.database = "site"
        server.create_database("site")
        site = make_site(tmp_path, server, every=3)
        with site.daemon() as daemon:
            runs = wait_for_same_worker(site, 3)
            assert daemon.terminate() == 0
    assert {run.outcome for run in runs} == {SUCCEEDED}, [run.reason for run in runs]
    assert len({connection_of(run) for run in runs}) == len(runs)


def test_no_connection_is_shared_between_processes(tmp_path, server):
    sleep = "pg_sleep(0.5)" if server.engine == "postgresql" else "sleep(0.5)"
    site = make_site(tmp_path, server, VISITS, workers=4, sleep=sleep)
    # It has had a connection while it loaded.
    site.write("app/apps.py", ASKS_WHILE_LOADING)
    tasks = [f"visit{number}" for number in range(4)]
    with site.daemon() as daemon:
        for task in tasks:
            site.wait_for_runs(task, 2)
        assert connections_held_by(daemon.pid, server) == []
        assert connections_held_by(daemon.fork_server(), server) == []
        # They change while we look: what was opened or closed meanwhile says nothing.
        held = {pid: connections_held_by(pid, server) for pid in daemon.workers()}
        known = server.connections(server.database).values()
        assert daemon.terminate() == 0
    assert any(held.values()), "workers keep their connections"
    assert all(len(ports) <= 1 for ports in held.values())
    ports = [port for ports in held.values() for port in ports if port in known]
    assert len(ports) == len(set(ports))
    users = {}
    for run in (run for task in tasks for run in site.ended(task)):
        assert run.outcome is SUCCEEDED, run.reason
        users.setdefault(connection_of(run), set()).add(run.pid)
    assert all(len(pids) == 1 for pids in users.values())
    assert len(users) > 1


def connections_held_by(pid, server):
    """The local ports of the connections to a server for which a process has descriptors."""
    inodes = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *_, inode = line.split()[:10]
        if remote.endswith(f":{server.port:04X}"):
            inodes[f"socket:[{inode}]"] = int(local.rpartition(":")[2], 16)
    links = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            pass  # it was closed since
    return [inodes[link] for link in links if link in inodes]


def test_a_fork_server_that_cannot_be_loaded_without_the_database_is_tried_again_until_it_can(tmp_path, server):
    site = make_site(tmp_path, server)
    site.write("app/apps.py", ASKS_WHILE_LOADING)
    with site.daemon() as daemon:
        wait_for(site, daemon, SUCCEEDED)
        server.stop()
        os.kill(daemon.fork_server(), signal.SIGKILL)
        daemon.wait_for("The site's fork server is gone: its process was killed (SIGKILL)")
        daemon.wait_for("The site cannot be loaded: OperationalError: ")
        wait_for(site, daemon, FAILED, after=datetime.now(UTC))  # the workers that are there go on
        for worker in (workers := daemon.workers()):
            os.kill(worker, signal.SIGKILL)
        until(lambda: not any(map(is_alive, workers)))
        server.start()
        back = datetime.now(UTC)
        run = wait_for(site, daemon, SUCCEEDED, after=back)
        assert run.pid not in workers
        assert "The site is loaded again." in daemon.output()
        assert daemon.terminate() == 0


def test_a_service_whose_site_needs_the_database_is_ready_and_waits_for_it(tmp_path, server):
    site = make_site(tmp_path, server)
    site.write("app/apps.py", ASKS_WHILE_LOADING)
    server.stop()
    with Systemd(tmp_path / "notify") as systemd, ServiceDaemon(site, NOTIFY_SOCKET=systemd.path) as daemon:
        daemon.wait_for(lambda: systemd.has_heard("READY=1"))
        daemon.wait_for(lambda: systemd.has_heard("STATUS=waiting for the site: OperationalError: "))
        server.start()
        wait_for(site, daemon, SUCCEEDED)
        daemon.wait_for(lambda: systemd.has_heard("STATUS=1 task. Next: visit at "))
        assert daemon.terminate() == 0


class Systemd:
    """The end of NOTIFY_SOCKET at which systemd listens."""

    def __init__(self, path):
        self.path = str(path)
        self.text = ""

    def __enter__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(self.path)
        return self

    def __exit__(self, *_exception):
        self.socket.close()

    def has_heard(self, words):
        while True:
            try:
                self.text += self.socket.recv(65536).decode() + "\n"
            except BlockingIOError:
                return words in self.text


class ServiceDaemon(Daemon):
    """A daemon that a service manager starts: nothing has loaded the site for it."""

    def __init__(self, site, **environment):
        python, *_ = site.command()
        place = Place(directory=str(site.path), python=python, manage=str(site.path / "manage.py"))
        site.state.mkdir()
        launch = Launch(place=place, name="site", state=str(site.state))
        site.command = lambda *_arguments: launch.command()
        super().__init__(site, environment=environment)


def test_the_six_tasks_of_noi1e_do_their_work_again_and_again(tmp_path, server):
    site = ServedSite(tmp_path / "noi1e", every=3, NOI1E_DATABASE=server.url(server.database))
    site.data.set_up()
    with MailServer(tmp_path / "mails") as mail_server:
        site.use_mail_server(mail_server.port)
        with site.daemon() as daemon:
            for task in TASKS:
                site.wait_for_runs(task, 2)
            assert daemon.terminate() == 0
    runs = site.ended()
    assert {run.outcome for run in runs} <= {SUCCEEDED, Outcome.SKIPPED}, [run.reason for run in runs]
    sent = len(mail_server.mails)
    assert sent == site.data.ask("Message.objects.exclude(mail='').values('mail').distinct().count()") > 50
    assert (
        site.data.ask(
            "Message.objects.filter(sent=None).exclude(user__mail_mode='silent').exclude(user__email='').count()"
        )
        == 0
    )
    assert site.data.ask("Commit.objects.count()") > 0
    assert site.data.ask("Problem.objects.count()") > 0
