"""The six tasks of noi1e do what they say, and doing it again changes nothing.

They run in processes of their own, against a real database, mail server and git repository; linod isn't involved.
"""

import os
import shutil
import sqlite3
import subprocess
import time
from collections import Counter

import pytest

from tests.support.noi1e import Site
from tests.support.smtp import Server

PENDING = "Message.objects.filter(sent=None, user__mail_mode='{}').exclude(user__email='')"
OFTEN = PENDING.format("often")
DAILY = PENDING.format("daily")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("noi1e"))
    site.set_up()
    return site


@pytest.fixture
def site(prepared, tmp_path):
    """The site with fresh demo data, and nobody listening on its mail port."""
    site = Site(shutil.copytree(prepared.var, tmp_path / "var"))
    site.use_mail_server(port=1)
    return site


@pytest.fixture
def mail_server(site, tmp_path):
    """Return a function that starts a mail server for the site, with options."""
    servers = []

    def start(*options):
        server = Server(tmp_path / "mails", *options).__enter__()
        servers.append(server)
        site.use_mail_server(server.port)
        return server

    yield start
    for server in servers:
        server.__exit__()


def only_one_pending(site):
    """Leave one message to send at once; return the path of the SQLite file and the user's id."""
    site.ask(f"{OFTEN}.exclude(pk={OFTEN}.first().pk).delete()")
    return site.var / "db.sqlite3", site.ask(f"{OFTEN}.get().user_id")


def add_message(database, user_id, subject):
    """Write a message as another process would, without waiting for Django to load."""
    connection = sqlite3.connect(database, timeout=30)
    with connection:
        connection.execute(
            "INSERT INTO notify_message (user_id, created, subject, body, mail) VALUES (?, datetime('now'), ?, '', '')",
            [user_id, subject],
        )
    connection.close()


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def texts(mails):
    return "".join(mail.get_body(["plain"]).get_content() for mail in mails)


# checksummaries


def test_checksummaries_brings_all_summaries_up_to_date(site):
    wrong = site.ask("User.objects.update(invested_minutes=7), Ticket.objects.update(comment_count=7)")
    assert wrong == [240, 400]
    site.run_task("checksummaries")
    invested = "[sum(s.minutes or 0 for s in x.work_sessions.all()) == x.invested_minutes for x in {}.objects.all()]"
    assert all(site.ask(invested.format("User")))
    assert all(site.ask(invested.format("Ticket")))
    assert all(site.ask("[t.comments.count() == t.comment_count for t in Ticket.objects.all()]"))
    assert sum(site.ask("list(User.objects.values_list('open_tickets', flat=True))")) == site.ask(
        "Ticket.objects.filter(state__in=['new', 'working'], assigned_to__isnull=False).count()"
    )


def test_checksummaries_saves_nothing_when_repeated(site):
    site.run_task("checksummaries")
    assert "Recomputed 640 summaries, 0 were out of date." in site.run_task("checksummaries")


# checkdata

PROBLEMS = "list(Problem.objects.order_by('checker', 'pk').values_list('checker', 'row_id', 'message'))"


def test_checkdata_stores_the_same_problems_when_repeated(site):
    site.run_task("update_all_repos")
    assert "1380 rows with 4 checkers" in site.run_task("checkdata")
    problems = site.ask(PROBLEMS)
    assert {checker for checker, *_ in problems} == {
        "users.user_without_address",
        "tickets.working_ticket_without_worker",
        "tickets.endless_session",
        "repos.commit_for_unknown_ticket",
    }
    assert f"{len(problems)} problems found" in site.run_task("checkdata")
    assert site.ask(PROBLEMS) == problems


def test_checkdata_forgets_what_was_repaired(site):
    site.run_task("checkdata")
    site.ask("User.objects.filter(email='').update(email='somebody@example.com')")
    site.run_task("checkdata")
    assert "users.user_without_address" not in {checker for checker, *_ in site.ask(PROBLEMS)}


# send_pending_emails_often and send_pending_emails_daily


@pytest.mark.parametrize("mode", ["often", "daily"])
def test_each_user_gets_all_messages_in_one_mail(site, mail_server, mode):
    pending = PENDING.format(mode)
    others = f"Message.objects.filter(sent=None).exclude(user__mail_mode='{mode}').count()"
    expected = dict(site.ask(f"[(m.body, m.user.email) for m in {pending}]"))
    untouched = site.ask(others)
    server = mail_server()
    site.run_task(f"send_pending_emails_{mode}")
    assert Counter(mail["To"] for mail in server.mails) == Counter(set(expected.values()))
    for mail in server.mails:
        plain, html = (mail.get_body([kind]).get_content() for kind in ["plain", "html"])
        for body, address in expected.items():
            assert (body in plain, body in html) == (address == mail["To"],) * 2
    assert site.ask(f"{pending}.count()") == 0
    assert site.ask(others) == untouched


def test_nothing_is_sent_or_said_when_repeated(site, mail_server):
    server = mail_server()
    site.run_task("send_pending_emails_often")
    count = len(server.mails)
    assert site.run_task("send_pending_emails_often") == ""
    assert len(server.mails) == count


def test_a_refused_recipient_holds_up_nobody(site, mail_server):
    victim = site.ask(f"{OFTEN}.first().user.email")
    pending = site.ask(f"{OFTEN}.filter(user__email='{victim}').count()")
    recipients = site.ask(f"list(set({OFTEN}.values_list('user__email', flat=True)))")
    server = mail_server("--refuse", victim)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"MailsNotSent: 1 of \d+ mails could not be sent"):
            site.run_task("send_pending_emails_often")
    assert sorted(mail["To"] for mail in server.mails) == sorted(set(recipients) - {victim})
    assert site.ask(f"{OFTEN}.count()") == pending


def test_a_message_that_was_refused_before_shares_the_next_mail(site, mail_server, tmp_path):
    database, user_id = only_one_pending(site)
    closed = tmp_path / "closed"
    closed.touch()
    server = mail_server("--refuse-while", str(closed))
    with pytest.raises(RuntimeError, match="Closed for now"):
        site.run_task("send_pending_emails_often")
    add_message(database, user_id, "Second")
    closed.unlink()
    site.run_task("send_pending_emails_often")
    [mail] = server.mails
    assert mail["Subject"] == "[noi1e] 2 messages"


def test_each_message_arrives_once_though_the_server_is_often_busy(site, mail_server):
    bodies = site.ask(f"[m.body for m in {OFTEN}]")
    server = mail_server("--busy", "0.4")
    runs = 0
    while site.ask(f"{OFTEN}.exists()"):
        site.start_task("send_pending_emails_often").communicate()
        runs += 1
        assert runs < 30
    assert runs > 1
    received = texts(server.mails)
    assert [received.count(body) for body in bodies] == [1] * len(bodies)


def test_a_dropped_connection_is_opened_again(site, mail_server):
    count = site.ask(f"{OFTEN}.values('user').distinct().count()")
    server = mail_server("--drop-every", "3")
    assert f"Sent {count} of {count} mails." in site.run_task("send_pending_emails_often")
    assert len(server.mails) == len({mail["Message-ID"] for mail in server.mails}) == count


def test_a_server_that_is_down_loses_no_message_and_little_time(site, mail_server):
    pending = site.ask(f"{OFTEN}.count()")
    count = site.ask(f"{OFTEN}.values('user').distinct().count()")
    with pytest.raises(RuntimeError, match=f"{count} of {count} mails could not be sent") as failure:
        site.run_task("send_pending_emails_often")
    assert str(failure.value).count("Connection refused") == 3
    assert site.ask(f"{OFTEN}.count()") == pending
    server = mail_server()
    site.run_task("send_pending_emails_often")
    assert len(server.mails) == count


def test_a_message_that_arrives_meanwhile_waits_for_the_next_mail(site, mail_server):
    database, user_id = only_one_pending(site)
    server = mail_server("--delay", "2")
    task = site.start_task("send_pending_emails_often")
    wait_until(lambda: server.mails)
    add_message(database, user_id, "Meanwhile")
    task.communicate()
    assert site.ask(f"[m.subject for m in {OFTEN}]") == ["Meanwhile"]
    site.run_task("send_pending_emails_often")
    assert [mail["Subject"] == "[noi1e] Meanwhile" for mail in server.mails] == [False, True]


def test_a_mail_whose_end_nobody_saw_comes_again_with_the_same_message_id(site, mail_server, tmp_path):
    database, user_id = only_one_pending(site)
    closed = tmp_path / "closed"
    server = mail_server("--delay", "2", "--refuse-while", str(closed))
    task = site.start_task("send_pending_emails_often")
    wait_until(lambda: server.mails)
    task.kill()
    task.communicate()
    add_message(database, user_id, "Afterwards")
    closed.touch()
    with pytest.raises(RuntimeError, match="2 of 2 mails could not be sent"):
        site.run_task("send_pending_emails_often")
    closed.unlink()
    site.run_task("send_pending_emails_often")
    first, again, other = sorted(server.mails, key=lambda mail: mail["Subject"] == "[noi1e] Afterwards")
    assert first["Message-ID"] == again["Message-ID"] != other["Message-ID"]
    assert texts([first]) == texts([again])
    assert other["Subject"] == "[noi1e] Afterwards"


# clear_seen_messages


def test_clear_seen_messages_deletes_what_is_seen_and_old(site):
    old = "created__lt=timezone.now() - datetime.timedelta(hours=24)"
    doomed = site.ask(f"Message.objects.filter({old}, seen__isnull=False).count()")
    count = site.ask("Message.objects.count()")
    assert doomed and site.ask("Message.objects.filter(seen__isnull=False).count()") > doomed
    assert f"Deleted {doomed} seen messages." in site.run_task("clear_seen_messages")
    assert site.ask("Message.objects.count()") == count - doomed
    site.ask("Message.objects.all()[:1].get().delete()")
    assert "Deleted 0 seen messages." in site.run_task("clear_seen_messages")


# update_all_repos


def make_repository(path, *texts):
    path.mkdir(parents=True)
    git(path, "init", "--quiet")
    for text in texts:
        commit(path, text)
    return path


def commit(path, text, *options):
    git(path, "commit", "--quiet", "--allow-empty", "--message", text, *options)


def git(path, *arguments):
    # Not those of the hook that may run this test.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    identity = ["-c", "user.name=Eva", "-c", "user.email=eva@example.com", "-c", "safe.directory=*"]
    subprocess.run(["git", *identity, *arguments], cwd=path, env=environment, check=True, capture_output=True)


def register(site, name, path):
    site.ask(f"Repository.objects.create(name={name!r}, path={str(path)!r}).pk")


def summaries(site, name):
    return site.ask(f"[c.summary for c in Commit.objects.filter(repository__name={name!r}).order_by('pk')]")


def test_update_all_repos_reads_each_commit_once(site):
    assert "Read 40 new commits of repository noi1e." in site.run_task("update_all_repos")
    assert summaries(site, "noi1e")[0] == "Work on ticket #1"
    assert site.run_task("update_all_repos") == ""
    assert site.ask("Commit.objects.count()") == 40


def test_update_all_repos_reads_what_is_new_and_what_was_rewritten(site, tmp_path):
    path = make_repository(tmp_path / "eva", "One", "Two")
    register(site, "eva", path)
    site.run_task("update_all_repos")
    commit(path, "Three\n\nwith details, and a strange sign: \x1f")
    site.run_task("update_all_repos")
    assert summaries(site, "eva") == ["One", "Two", "Three"]
    commit(path, "3", "--amend")
    git(path, "reflog", "expire", "--expire=now", "--all")
    git(path, "gc", "--quiet", "--prune=now")
    site.run_task("update_all_repos")
    assert summaries(site, "eva") == ["One", "Two", "Three", "3"]


def test_a_broken_repository_holds_up_no_other(site, tmp_path):
    site.ask("Repository.objects.all().delete()")
    register(site, "missing", tmp_path / "missing")
    # git would find the one around it.
    outer = make_repository(tmp_path / "outer", "Somebody else's")
    (outer / "inner").mkdir()
    register(site, "inner", outer / "inner")
    register(site, "empty", make_repository(tmp_path / "empty"))
    register(site, "good", make_repository(tmp_path / "good", "Good"))
    output = site.run_task("update_all_repos")
    assert "WARNING Repository missing can't be read" in output
    assert "WARNING Repository inner can't be read: fatal: not a git repository" in output
    assert output.count("WARNING") == 2
    assert site.ask("list(Commit.objects.values_list('summary', flat=True))") == ["Good"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_repository_of_another_user_is_read(site, tmp_path):
    path = make_repository(tmp_path / "foreign", "Foreign")
    for each in [path, *path.rglob("*")]:
        os.chown(each, 65534, 65534)
    register(site, "foreign", path)
    site.run_task("update_all_repos")
    assert summaries(site, "foreign") == ["Foreign"]
