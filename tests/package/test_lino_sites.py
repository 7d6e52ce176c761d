"""Real Lino sites on a booted server, from `apt install linod` on, without linod in their environments."""

import shutil
import sqlite3
import sys

import pytest

from tests.support.lino import KINDS, made
from tests.support.server import Site

# The release whose Python is that of the environments, which are made here.
SUITE = {(3, 11): "bookworm", (3, 13): "trixie"}[sys.version_info[:2]]
TODAY = ["checksummaries", "checkdata", "send_pending_emails_often", "send_pending_emails_daily", "clear_seen_messages"]
TASKS = {"2021": [*TODAY, "update_all_repos"], "2026": TODAY}
QUEUE = """
import sqlite3
with sqlite3.connect("default.db", timeout=20) as db:
    [id] = db.execute("SELECT id FROM users_user ORDER BY id LIMIT 1").fetchone()
    db.execute("UPDATE users_user SET email = 'robin@lino.test' WHERE id = ?", (id,))
    db.execute(
        "INSERT INTO notify_message (user_id, created, message_type, mail_mode, subject, body)"
        " VALUES (?, datetime('now'), 'system', 'often', 'The tide is high', 'Mind it')", (id,)
    )
"""
SLEEPS = """
import time
from lino.modlib.linod.choicelists import background_task

@background_task(every_unit="never", every=1)
def sleeps(ar):
    time.sleep(600)
"""
pytestmark = [
    pytest.mark.xdist_group(SUITE),
    pytest.mark.parametrize("shared", [SUITE], indirect=True, scope="session"),
]


def add_lino(server, kind):
    """Add a site, as an administrator does."""
    home, site = made(kind), Site(server, f"lino{kind}", f"/srv/lino{kind}", "www-data")
    target = server.root / site.directory[1:]
    shutil.copytree(home / "site", target, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(home / "env", target / "env", symlinks=True)
    python = target / "env/bin/python"
    python.unlink()
    python.symlink_to("/usr/bin/python3")
    for package in target.glob("env/lib/python3.*/site-packages/weasyprint"):
        shutil.rmtree(package)  # it makes PDFs, with libraries that these machines lack; Lino does without it
    (target / "own/models.py").write_text("")
    with (target / "settings.py").open("a") as file:
        file.write("EMAIL_PORT = 25\n")
    return server.link(site)


@pytest.mark.parametrize("kind", KINDS)
def test_all_tasks_of_a_lino_site_run_and_its_mail_arrives_once(server, kind):
    site = add_lino(server, kind)
    assert "It uses linod" in server.ctl(f"check {site.name}").stdout
    site.write("queue.py", QUEUE)
    server.run(f"cd {site.directory} && runuser -u www-data -- python3 queue.py")
    server.run(f"systemctl enable --now linod@{site.name}")
    listing = server.ctl(f"exec {site.name} linod --list").stdout
    assert all(f"do {task}()" in listing for task in TASKS[kind])
    for task in TASKS[kind]:
        server.wait(f"linodctl run {site.name} {task}")  # it may be running, for a new row of Lino asks for a run
    assert {run.outcome for run in site.ended()} == {"succeeded"}
    server.wait(server.mails)
    assert [mail["Subject"] for mail in server.mails()] == ["[lino] The tide is high"]
    assert site.show("NRestarts") == "0"


def test_the_unit_does_not_start_while_root_runs_the_command_of_the_site(server):
    site = add_lino(server, KINDS[-1])
    command = f"{site.directory}/env/bin/python manage.py linod"
    server.run(f"systemd-run --unit=original --working-directory={site.directory} {command}")
    server.wait(lambda: "runs manage.py linod" in server.ctl(f"check {site.name}", check=False).stdout)
    assert site.start(check=False).returncode != 0
    assert "runs manage.py linod there already. Stop it" in site.log()
    server.run("systemctl stop original")
    server.run(f"chown -R www-data: {site.directory}")
    site.start()
    site.wait_for_runs("linod.SystemTask.2")


def test_what_users_do_in_lino_and_what_befalls_the_daemon(server):
    site = add_lino(server, KINDS[-1])
    site.write("own/models.py", SLEEPS)
    site.start()
    server.wait(lambda: "new: sleeps" in site.log())
    request(site, "checkdata")
    server.wait(lambda: ask(site, "checkdata", "last_end_time") and not ask(site, "checkdata", "requested_at"), 5)
    ask(site, "checkdata", "1", "every_unit = 's', every = 1")
    server.wait(lambda: "changed: checkdata" in site.log())
    site.wait_for_runs("linod.SystemTask.5", 3)
    request(site, "sleeps")
    server.wait(lambda: ask(site, "sleeps", "last_start_time"))
    pid = site.pid
    site.signal("KILL")
    server.wait(lambda: site.pid not in (0, pid))
    server.wait(lambda: "lost: the daemon died" in str(ask(site, "sleeps", "message")))
    request(site, "sleeps")
    server.wait(lambda: ask(site, "sleeps", "last_start_time") and not ask(site, "sleeps", "last_end_time"))
    site.override("drain_timeout = 1\n")
    site.reload()
    site.stop()
    assert ask(site, "sleeps", "last_end_time")
    assert {run.outcome for run in site.ended("linod.SystemTask.6")} == {"lost", "cancelled"}


def ask(site, name, column, change=None):
    """A column of a row, after a change that a user makes."""
    with sqlite3.connect(site.server.root / site.directory[1:] / "default.db", timeout=20) as db:
        if change:
            db.execute(f"UPDATE linod_systemtask SET {change} WHERE name = ?", (name,))
        [found] = db.execute(f"SELECT {column} FROM linod_systemtask WHERE name = ?", (name,)).fetchone()
    db.close()
    return found


def request(site, name):
    """What Lino's button `Run now` does."""
    ask(
        site,
        name,
        "1",
        "requested_at = datetime('now'), last_start_time = NULL, last_end_time = NULL, message = 'Robin wants it'",
    )
