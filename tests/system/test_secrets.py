"""The passwords of a site, put everywhere and driven through each kind of failure: where they are found afterwards."""

import re

import pytest

SETTINGS = """
import os

SECRET_KEY = "canary-of-the-key"
EMAIL_HOST_PASSWORD = "canary-of-the-mail"
EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
ADMINS = [("Admin", "admin@example.com")]
SERVICES = {"weather": {"api_key": "canary-of-the-service"}}
DATABASES["other"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": "other", "PASSWORD": "canary-of-the-database"}

if os.path.exists("down"):
    raise OSError(f"could not connect to {os.environ['DATABASE_URL']}\\n\\tIs it running?")
"""
ENVIRONMENT = "DATABASE_URL=postgres://app:canary-of-the-address@db/x\nSITE_TOKEN=canary-of-the-token\n"
TASKS = """
import ctypes, os, time
import linod
from django.conf import settings

class Settings(Exception):
    def __str__(self):
        return f"{settings.SECRET_KEY} {settings.EMAIL_HOST_PASSWORD} {settings.DATABASES} {settings.SERVICES}"

def connect(password="canary-of-an-argument"):
    here = "canary-of-a-variable"
    raise OSError(f"could not connect to {os.environ['DATABASE_URL']}")

def every_secret():
    try:
        connect()
    except OSError as error:
        raise Settings from error

def leaves():
    raise SystemExit(f"no {os.environ['SITE_TOKEN']}")

def crashes():
    secret = "canary-of-a-variable"
    ctypes.string_at(0)

def sleeps():
    secret = "canary-of-a-variable"
    time.sleep(60)

for function in (every_secret, leaves, crashes):
    linod.task(every=1)(function)
linod.task(every=1, timeout=1, grace=1)(sleeps)
"""
CANARY = re.compile("canary-of-[a-z-]+")
COMMANDS = (
    *("sites", "list secrets", "history secrets", "history secrets --failed", "why secrets every_secret"),
    *("status secrets", "check secrets", "logs secrets", "run secrets every_secret", "add --scan /srv"),
    *("metrics secrets", "metrics secrets --format prometheus"),
)


def canaries(text):
    return set(CANARY.findall(text))


@pytest.fixture(scope="module")
def site(server):
    """A site whose tasks have failed in every way, and which could not be loaded for a while."""
    site = server.add_site("secrets", TASKS, settings=SETTINGS)
    server.write("/etc/linod/secrets.env", ENVIRONMENT, mode="600")
    site.start()
    for task in ("every_secret", "leaves", "crashes", "sleeps"):
        site.wait_for_runs(task, 2)
    yield site
    site.remove()
    server.forget_mails()


@pytest.mark.claim("S40", "S42", "S43")
def test_no_secret_is_in_the_state_but_the_password_of_the_mail_server(site):
    found = site.server.ask(f"grep --text --recursive --only-matching 'canary-of-[a-z-]*' {site.state} /run/linod")
    assert set(found.splitlines()) == {f"{site.state}/mail.json:canary-of-the-mail"}
    assert site.server.ask(f"stat --format='%U %a' {site.state}/mail.json") == "www-data 600"
    assert "***" in site.ended("every_secret")[0].traceback


@pytest.mark.claim("S40")
@pytest.mark.parametrize("command", COMMANDS)
def test_linodctl_shows_no_secret(site, command):
    for option in ("", "--json"):
        done = site.server.ctl(f"{command} {option}", check=False)
        shown = done.stdout + done.stderr
        assert shown and not canaries(shown)


@pytest.mark.claim("S40", "S42")
def test_linodctl_shows_no_secret_of_a_run(site):
    for run in site.ended()[:20]:
        done = site.server.run(f"linodctl show secrets {run.id}; linodctl show secrets {run.id} --json")
        assert not canaries(done.stdout + done.stderr)


@pytest.mark.claim("S23")
def test_no_secret_is_in_the_command_line_of_a_process(site):
    """Every user of a host can read those."""
    assert len(site.processes()) > 2
    site.server.ctl("check secrets", check=False)
    assert not canaries(site.server.ask("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))


@pytest.mark.claim("S40", "S41")
def test_a_site_that_cannot_be_loaded_is_waited_for_without_telling_its_secrets(site):
    site.write("down", "")
    site.reload(check=False)
    site.restart()
    site.server.wait(lambda: "waiting for the site" in site.status)
    assert "postgres://app:***@db/x Is it running?" in site.status
    commands = f"systemctl status {site.unit}; linodctl; linodctl check secrets; linodctl status secrets"
    shown = site.server.run(commands, check=False)
    assert not canaries(shown.stdout + shown.stderr)


@pytest.mark.claim("S40")
def test_no_mail_about_a_failure_tells_a_secret(site, server):
    server.forget_mails()
    site.override('[alert]\nhost = "localhost"\n')
    site.write("proj/settings.py", "SECRET_KEY = 'canary-of-the-key\n")  # which no Python can read
    site.restart(check=False)
    mail = server.wait(lambda: next(iter(server.mails()), None))
    assert "secrets" in mail["Subject"] and "SyntaxError" in mail.get_content()
    assert not canaries(str(mail))


@pytest.mark.claim("S40", "S42")
def test_no_secret_is_in_the_journal(site, server):
    """The last test: here is all that was told before, of other units as well."""
    told = server.ask("journalctl --sync; journalctl --output=export --all")
    assert "LINOD_SITE=secrets" in told and "every_secret failed" in told
    assert not canaries(told)
