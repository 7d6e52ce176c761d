"""People hear of each failure once: by mail, by an address on the web, by a signal, and by pings."""

import json
import signal
import socket
import sqlite3
import time
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import pairwise
from textwrap import dedent

import pytest

from tests.support.site import Site, name_of, until
from tests.support.smtp import Server
from tests.support.web import WebServer

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow

# Fails as long as there is a file.
TASKS = """
import os
import linod

@linod.task(every=0.5, catch_up="none")
def work():
    print("about to work")
    if os.path.exists("broken"):
        raise ValueError("it is broken")
"""
PATIENCE = 60.0  # seconds; changes are gathered for ten


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def make_site(path, tasks=TASKS, *, smtp=1, every=0, settings=""):
    """A site that writes to one administrator."""
    mail = f"""
    ADMINS = [("Anna", "anna@example.org")]
    EMAIL_PORT = {smtp}
    EMAIL_HOST = "127.0.0.1"
    LINOD = {{"alert_every": {every}}}
    """
    return Site(path, tasks, settings=dedent(mail) + dedent(settings))


@pytest.fixture
def mails(tmp_path):
    with Server(tmp_path / "mails") as server:
        yield server


@contextmanager
def at_most(seconds):
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def wait_for_mails(server, number):
    until(lambda: len(server.mails) >= number, PATIENCE, f"{number} mails")
    return server.mails


def text_of(mail):
    return mail.get_content()


def untold(site):
    with site.history() as archive:
        return list(archive._rows("SELECT * FROM untold"))


@pytest.mark.claim("P21")
def test_a_failure_is_told_once_and_so_is_the_recovery(tmp_path, mails):
    site = make_site(tmp_path / "site", smtp=mails.port)
    site.write("broken")
    with site.daemon() as daemon:
        [mail] = wait_for_mails(mails, 1)
        assert mail["To"] == "anna@example.org"
        assert mail["Subject"] == "[Django] site: work failed: ValueError: it is broken"
        assert mail["Auto-Submitted"] == "auto-generated"
        text = text_of(mail)
        assert socket.gethostname() in text and 'raise ValueError("it is broken")' in text
        site.wait_for_runs("work", 50, timeout=60)
        assert len(mails.mails) == 1, "it has failed fifty times"
        (site.path / "broken").unlink()
        _, mail = wait_for_mails(mails, 2)
        assert mail["Subject"] == "[Django] site: work is well again"
        failures = len([run for run in site.ended("work") if run.outcome == "failed"])
        assert f"It had gone wrong {failures} times since " in text_of(mail)
        until(lambda: not untold(site))
        assert daemon.terminate() == 0
    assert len(mails.mails) == 2


def test_what_could_not_be_sent_is_sent_by_the_next_daemon_once(tmp_path):
    port = free_port()
    site = make_site(tmp_path / "site", smtp=port)
    site.write("broken")
    with site.daemon() as daemon:
        daemon.wait_for(
            "A mail about 1 change of tasks could not be sent: the site's mail server took no mail", PATIENCE
        )
        site.wait_for_runs("work", len(site.ended("work")) + 5)
        assert daemon.output().count("could not be sent") == 1
        daemon.kill()
    with Server(tmp_path / "mails", port=port) as server:
        with site.daemon() as daemon:
            wait_for_mails(server, 1)
            until(lambda: not untold(site))
            daemon.kill()
        with site.daemon() as daemon:
            site.wait_for_runs("work", len(site.ended("work")) + 10)
            (site.path / "broken").unlink()
            wait_for_mails(server, 2)
            assert daemon.terminate() == 0
        assert [mail["Subject"].partition(": ")[2] for mail in server.mails] == [
            "work failed: ValueError: it is broken",
            "work is well again",
        ]


def test_a_run_that_waits_for_a_lock_is_late(tmp_path, mails):
    tasks = """
    import os, time
    import linod

    @linod.task(every=1, lock="ledger", overlap="skip")
    def holder():
        while os.path.exists("busy"):
            time.sleep(0.05)

    @linod.task(every=1, lock="ledger", late_after=3)
    def waiter():
        pass
    """
    site = make_site(tmp_path / "site", tasks, smtp=mails.port)
    site.write("busy")
    with site.daemon() as daemon:
        [mail] = wait_for_mails(mails, 1)
        assert mail["Subject"].endswith("waiter is late: holder holds the lock 'ledger'")
        assert "It was due at" in text_of(mail)
        assert "is late: holder holds the lock" in daemon.output()
        (site.path / "busy").unlink()
        _, mail = wait_for_mails(mails, 2)
        assert mail["Subject"].endswith("waiter begins in time again")
        assert daemon.terminate() == 0


def test_a_run_that_takes_too_long_is_stuck(tmp_path, mails):
    tasks = """
    import os, time
    import linod

    @linod.task(every=1, stuck_after=1.5)
    def work():
        while os.path.exists("busy"):
            time.sleep(0.05)
    """
    site = make_site(tmp_path / "site", tasks, smtp=mails.port)
    site.write("busy")
    with site.daemon() as daemon:
        [mail] = wait_for_mails(mails, 1)
        assert mail["Subject"].endswith("work is stuck: it goes on for longer than 1.5 s")
        (site.path / "busy").unlink()
        _, mail = wait_for_mails(mails, 2)
        assert mail["Subject"].endswith("work has ended well again")
        assert daemon.terminate() == 0


def test_a_lost_run_is_told(tmp_path, mails):
    tasks = """
    import os, time
    import linod

    @linod.task(every=1)
    def work():
        while os.path.exists("busy"):
            time.sleep(0.05)
    """
    site = make_site(tmp_path / "site", tasks, smtp=mails.port)
    site.write("busy")
    with site.daemon() as daemon:
        daemon.wait_for(lambda: [run for run in site.runs("work") if run.started])
        daemon.kill()
    (site.path / "busy").unlink()
    with site.daemon() as daemon:
        wait_for_mails(mails, 1)
        text = text_of(mails.mails[0])
        assert "a run of work was lost: the daemon died while it was running" in text
        assert "work is well again" in text, "that came while changes were gathered"
        assert daemon.terminate() == 0
    assert len(mails.mails) == 1


def test_two_hundred_tasks_that_fail_at_once_are_one_mail(tmp_path, mails):
    tasks = """
    import linod

    def work():
        raise ValueError("no more")

    for number in range(200):
        linod.task(every=5, name=f"work{number}")(work)
    """
    site = make_site(tmp_path / "site", tasks, smtp=mails.port, every=300)
    with site.daemon() as daemon:
        [mail] = wait_for_mails(mails, 1)
        assert " changes of tasks: work" in mail["Subject"]
        until(lambda: len({run.task for run in site.ended()}) == 200)
        # On a busy machine some fail later than within ten seconds; they wait for the next mail.
        named = text_of(mail).count("* work failed")
        until(lambda: named + len(untold(site)) == 200)
        assert named > 20
        assert daemon.terminate() == 0
    assert len(mails.mails) == 1


def test_a_task_that_is_paused_by_linod_is_told(tmp_path, mails):
    site = make_site(tmp_path / "site", smtp=mails.port, settings='LINOD["pause_after"] = 2\n')
    site.write("broken")
    with site.daemon() as daemon:
        [mail] = wait_for_mails(mails, 1)
        text = text_of(mail)
        assert "work failed: ValueError" in text
        assert "work is paused: it has failed 2 times in a row: ValueError: it is broken" in text
        assert daemon.terminate() == 0


def test_a_single_pass_tells_before_it_leaves(tmp_path, mails):
    tasks = """
    import linod

    @linod.task(every="1h", catch_up="once")
    def work():
        raise ValueError("no more")
    """
    site = make_site(tmp_path / "site", tasks, smtp=mails.port)
    with site.daemon() as daemon:
        daemon.wait_for("1 task")
        daemon.terminate()
    # Its due time shall have been missed.
    with closing(sqlite3.connect(site.state / "history.sqlite3")) as db, db:
        db.execute("UPDATE tasks SET since = since - 4000000000, accounted = NULL")
    with at_most(PATIENCE):
        assert site.manage("linod", "--once").returncode == 0
    [mail] = mails.mails
    assert mail["Subject"].endswith("work failed: ValueError: no more")
    assert not untold(site)


# As the sender does it, in the process of a site.
SENDS = """
from datetime import UTC, datetime
from linod.alert.task import TaskAlert
from linod.command.start import look_here
from linod.site.telling import send_mail

evil = "a\\r\\nBcc: eva@example.com"
given = dict(name=evil, outcome="failed", reason=evil, detail=evil, at=datetime.now(UTC).isoformat())
send_mail(look_here(), [TaskAlert(number=1, event="failed", task="app.tasks.work", **given).as_dict()], 0)
"""


@pytest.mark.claim("S14")
def test_no_text_about_a_task_becomes_another_header_or_recipient(tmp_path, mails):
    site = make_site(tmp_path / "site", smtp=mails.port)
    done = site.manage("shell", "--command", SENDS)
    assert done.returncode == 0, done.stderr
    [mail] = mails.mails
    assert mail["Bcc"] is None and mail["To"] == "anna@example.org"
    assert mail["Subject"] == "[Django] site: a Bcc: eva@example.com failed: a Bcc: eva@example.com"


def test_nobody_is_told_where_the_administrator_does_not_want_it(tmp_path, mails):
    site = make_site(tmp_path / "site", smtp=mails.port, settings='LINOD["alert_tasks"] = False\n')
    site.write("broken")
    with site.daemon() as daemon:
        site.wait_for_runs("work", 5)
        assert not untold(site)
        assert daemon.terminate() == 0
    assert not mails.mails


# The web


def test_an_address_is_told_in_json(tmp_path):
    with WebServer(tmp_path / "web") as web:
        site = make_site(tmp_path / "site", settings=f'ADMINS = []\nLINOD["alert_url"] = "{web.url}/secret"\n')
        site.write("broken")
        with site.daemon() as daemon:
            [request] = until(lambda: web.requests, PATIENCE)
            daemon.wait_for("A message to alert_url about work was sent.")
            assert daemon.terminate() == 0
    assert (request.method, request.path, request.kind) == ("POST", "/secret", "application/json")
    told = json.loads(request.body)
    assert (told["schema"], told["site"], told["host"], told["more"]) == (1, "site", socket.gethostname(), 0)
    [alert] = told["alerts"]
    first = site.ended("work")[0]
    assert (alert["event"], alert["task"], alert["name"]) == ("failed", "app.tasks.work", "work")
    assert (alert["run"], alert["outcome"], alert["times"]) == (first.id, "failed", 1)
    assert alert["reason"] == "ValueError: it is broken"
    assert datetime.fromisoformat(alert["since"]) == first.started
    assert "secret" not in daemon.output()


def pinging(url, every=1, more=""):
    return f"""
    import os, time
    import linod

    @linod.task(every={every}, ping="{url}/secret?key=geheim"{more})
    def work():
        print("about to work")
        while os.path.exists("busy"):
            time.sleep(0.05)
        if os.path.exists("broken"):
            raise ValueError("it is broken")
    """


def test_each_run_is_pinged(tmp_path):
    with WebServer(tmp_path / "web") as web:
        site = Site(tmp_path / "site", pinging(web.url))
        with site.daemon() as daemon:
            until(lambda: len(web.requests) >= 2)
            site.write("broken")
            until(lambda: any("fail" in request.path for request in web.requests))
            assert daemon.terminate() == 0
        requests = web.requests
    paths = [request.path for request in requests]
    assert paths[:2] == ["/secret/start?key=geheim", "/secret?key=geheim"]
    failed = paths.index("/secret/fail?key=geheim")
    assert paths[failed - 1] == "/secret/start?key=geheim"
    assert requests[failed].method == "POST"
    assert requests[failed].body.startswith("failed: ValueError: it is broken\n\nabout to work\n")
    with site.history() as archive:
        [task] = archive.tasks()
    everything = daemon.output() + task["task"] + site.manage("linod", "--list", "--json").stdout
    assert "secret" not in everything and "geheim" not in everything


def test_a_run_that_ends_while_the_daemon_stops_is_pinged(tmp_path):
    with WebServer(tmp_path / "web") as web:
        site = Site(tmp_path / "site", pinging(web.url))
        site.write("busy")
        with site.daemon() as daemon:
            until(lambda: web.requests)
            daemon.signal(signal.SIGTERM)
            daemon.wait_for("stopping, waiting for 1 run to end")
            (site.path / "busy").unlink()
            assert daemon.wait() == 0
        assert [request.path for request in web.requests][-1] == "/secret?key=geheim"


def test_a_stop_waits_for_no_sender_that_is_not_born_yet(tmp_path):
    with WebServer(tmp_path / "web") as web:
        settings = 'LINOD = {"idle_worker": 0.5, "drain_timeout": 0}'
        site = Site(tmp_path / "site", pinging(web.url), settings)
        site.write("busy")
        with site.daemon() as daemon:
            until(lambda: web.requests)
            until(lambda: not any(name_of(pid) == "linod-sender" for pid in daemon.children()))
            assert daemon.terminate() == 0, "though a sender was asked for, for the run that was ended"
    assert [run.outcome for run in site.runs("work") if run.started] == ["cancelled"]


def test_a_slow_address_delays_no_run(tmp_path):
    with WebServer(tmp_path / "web") as web:
        web.delay(30)
        site = Site(tmp_path / "site", pinging(web.url, every=0.25))
        with site.daemon() as daemon:
            daemon.wait_for("The pings of work to http://127.0.0.1", PATIENCE)
            assert "does not answer within 10 s" in daemon.output()
            with at_most(25):  # dozens of calls wait, each for ten seconds
                assert daemon.terminate() == 0
        starts = [run.started for run in site.ended("work")]
        assert max(later - earlier for earlier, later in pairwise(starts)).total_seconds() < 5.0
        assert daemon.output().count("The pings of work") == 1


# The signal

RECEIVERS = """
import time
from pathlib import Path
from django.apps import AppConfig

class App(AppConfig):
    name = "app"

    def ready(self):
        from linod.signals import task_alert
        from .tasks import work
        task_alert.connect(raises)
        task_alert.connect(notes, sender=work)
        task_alert.connect(hangs)

def raises(alert, **kwargs):
    raise RuntimeError("no, thank you")

def notes(sender, alert, **kwargs):
    Path("noted").write_text(f"{sender.__name__} {alert['event']}")

def hangs(alert, **kwargs):
    while Path("hang").exists():
        time.sleep(0.05)
"""


def test_receivers_of_the_signal_that_raise_or_hang_harm_nothing(tmp_path, mails):
    site = make_site(tmp_path / "site", smtp=mails.port)
    site.write("app/apps.py", RECEIVERS)
    site.write("broken")
    with site.daemon() as daemon:
        wait_for_mails(mails, 1)
        daemon.wait_for("the receiver raises raised RuntimeError: no, thank you")
        assert (site.path / "noted").read_text() == "work failed"
        assert not untold(site), "it is not sent again"
        site.write("hang")
        (site.path / "broken").unlink()
        wait_for_mails(mails, 2)
        until(lambda: (site.path / "noted").read_text() == "work recovered")
        site.wait_for_runs("work", len(site.ended("work")) + 5)
        with at_most(30):  # it would be ended after a minute
            assert daemon.terminate() == 0
