"""Mail when a site has failed, and when it is back: to a real mail server, once for each change."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from linod import sites
from linod.alert.compose import failure_mail, recovery_mail
from linod.alert.gather import Failure, find_failure
from linod.alert.main import exit_code_of, main, tell_failure, tell_recovery
from linod.alert.memory import Mail, recall, recovery_command, remember
from linod.alert.send import NotSent, send
from linod.daemon.loop import Daemon
from linod.site.mail import SMTP, mail_settings
from linod.sites import HostSite
from tests.support.smtp import Server

ROOT = Path(__file__).parents[2]
SECRET = "s3cr3t-words"
SITE = HostSite(name="myprj")
FAILURE = Failure(
    site="myprj",
    unit="linod@myprj.service",
    host="server",
    when="2026-11-24 20:00:00 UTC",
    result="exit-code",
    code="exited",
    status="78",
    said="There is no manage.py in /srv/myprj.",
    lines=("20:00:00 linod[7]: There is no manage.py", "20:00:00 systemd[1]: linod@myprj.service: Failed"),
)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of the site `myprj`, on a host whose administrator has laid down nothing."""
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(sites, "ETC", tmp_path / "etc")
    monkeypatch.setenv("STATE_DIRECTORY", str(state))
    return state


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "mails") as server:
        yield server


def note(state: Path, server: Server, **more: Any) -> None:
    """What the daemon noted when the site was last loaded."""
    mail = {"to": ["admin@example.com"], "sender": "site@example.com", "host": "127.0.0.1", "port": server.port}
    assert remember(state, mail | more) == ""


def fail(state: Path) -> int:
    """The site has failed. Returns the exit code."""
    return exit_code_of(lambda: tell_failure(SITE, state, FAILURE))


def recover(state: Path) -> int:
    """The site is back. Returns the exit code."""
    return exit_code_of(lambda: tell_recovery(SITE, state))


def configure(tmp_path: Path, text: str) -> None:
    (tmp_path / "etc" / "myprj.toml").write_text(text)


TELL = """
import os
from pathlib import Path
from linod.alert.main import *
site = HostSite(name="myprj")
state = Path(os.environ["STATE_DIRECTORY"])
print(tell_failure(site, state, of_site(site)))
"""


# Once for each change


def test_a_failure_is_told_once_and_the_recovery_once(state: Path, server: Server) -> None:
    note(state, server, prefix="[Django] ")
    assert [fail(state) for _ in range(3)] == [0, 0, 0]
    assert [recover(state) for _ in range(3)] == [0, 0, 0]
    first, second = server.mails
    assert re.fullmatch(r"\[Django\] linod: myprj has failed on \S+", first["Subject"])
    assert re.fullmatch(r"\[Django\] linod: myprj is back on \S+", second["Subject"])
    assert (first["To"], first["From"]) == ("admin@example.com", "site@example.com")
    assert fail(state) == 0
    assert len(server.mails) == 3


def test_two_alerts_at_once_send_one_mail(state: Path, tmp_path: Path) -> None:
    with Server(tmp_path / "mails", "--delay", "0.5") as server:
        note(state, server)
        command = [sys.executable, "-c", TELL]
        alerts = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(4)]
        try:
            assert [alert.wait(60) for alert in alerts] == [0, 0, 0, 0]
        finally:
            for alert in alerts:
                alert.kill()
                alert.communicate()
        assert len(server.mails) == 1


def test_a_mail_that_could_not_be_sent_is_tried_again_at_the_next_failure(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = tmp_path / "closed"
    closed.touch()
    with Server(tmp_path / "mails", "--refuse-while", str(closed)) as server:
        note(state, server, user="", password=SECRET)
        assert fail(state) == 1
        said = capsys.readouterr().out
        assert "took no mail: 451" in said
        assert not (state / "alerted").exists()
        closed.unlink()
        assert fail(state) == 0
        assert len(server.mails) == 1
    assert recover(state) == 1  # nobody listens now
    assert (state / "alerted").exists()


def test_the_daemon_asks_for_a_recovery_only_where_a_failure_was_told(state: Path, server: Server) -> None:
    assert recovery_command(state, "myprj") is None
    note(state, server)
    fail(state)
    command = recovery_command(state, "myprj")
    assert command is not None
    assert command[1:] == ["-I", "-m", "linod.alert", "recovered", "myprj"]


def test_a_daemon_that_cannot_start_a_process_for_the_mail_says_so_and_goes_on(
    state: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(state, server)
    fail(state)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    said: list[str] = []
    daemon = SimpleNamespace(
        launch=SimpleNamespace(state=str(state), name="myprj"),
        reporter=SimpleNamespace(say=lambda text, _level: said.append(text)),
    )
    Daemon.tell_recovery(daemon)  # type: ignore[arg-type]
    reason = "/nowhere/python cannot be started: No such file or directory."
    assert said == [f"Nobody is told that the site runs again: {reason}"]


# What it says


def test_a_mail_says_what_failed_and_what_to_do() -> None:
    text = failure_mail(FAILURE, Mail()).get_content()
    for sentence in (
        "The background tasks of myprj on server are not run any more: linod@myprj.service has failed.",
        "Something must be mended before it can start (exit code 78).",
        "It said last: There is no manage.py in /srv/myprj.",
        "linodctl check myprj",
        "journalctl -u linod@myprj.service",
        "systemctl start linod@myprj.service",
        "20:00:00 systemd[1]: linod@myprj.service: Failed",
    ):
        assert sentence in text
    assert "reset-failed" not in text


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"result": "watchdog"}, "It was stuck"),
        ({"result": "oom-kill"}, "The kernel ran out of memory"),
        ({"result": "timeout"}, "within its time limit"),
        ({"result": "signal", "code": "killed", "status": "SEGV"}, "a signal ended it: SEGV"),
        ({"result": "exit-code", "code": "exited", "status": "75"}, "Another process runs the tasks"),
        ({"result": "exit-code", "code": "exited", "status": "1"}, "it ended with exit code 1"),
        ({"result": "", "code": "", "status": ""}, "Nothing more is known"),
    ],
)
def test_a_mail_says_how_it_ended(how: dict[str, str], sentence: str) -> None:
    failure = Failure(site="a", unit="linod@a.service", host="h", when="now", **how)
    assert sentence in failure_mail(failure, Mail()).get_content()


def test_after_a_crash_loop_a_mail_says_that_systemd_has_given_up() -> None:
    failure = Failure(site="a", unit="linod@a.service", host="h", when="now", code="exited", status="1", gave_up=True)
    text = failure_mail(failure, Mail()).get_content()
    assert "systemd has given up restarting it. The last time, it ended with exit code 1." in text
    assert "systemctl reset-failed linod@a.service" in text


@pytest.mark.claim("S14")
def test_no_text_can_become_another_header_or_recipient(state: Path, server: Server) -> None:
    evil = "a\r\nBcc: eva@example.com"
    note(state, server, prefix=evil, sender="site@example.com")
    assert fail(state) == 0
    (mail,) = server.mails
    assert mail["Bcc"] is None
    failure = Failure(site=evil, unit=evil, host=evil, when=evil, said=evil, lines=(evil,))
    for composed in (failure_mail(failure, Mail(prefix=evil)), recovery_mail(failure, evil, Mail(prefix=evil))):
        assert composed["Bcc"] is None
        assert "\n" not in composed["Subject"]


@pytest.mark.parametrize("name", ["../x", "a b", "a\nb", "", "-x", "é"])
def test_what_is_no_name_of_a_site_is_refused(state: Path, name: str) -> None:
    assert main(["failed", name]) == 78


def test_a_line_of_any_length_and_any_character_arrives(state: Path, server: Server) -> None:
    lines = ("x" * 5000, "Grüße \N{GRINNING FACE}", "\udcff \x00 .", ".")
    failure = Failure(site="a", unit="u", host="h", when="now", lines=lines)
    send(
        failure_mail(failure, Mail(to=("a@example.com",))),
        Mail(to=("a@example.com",), host="127.0.0.1", port=server.port),
    )
    text = server.mails[0].get_content()
    assert "Grüße \N{GRINNING FACE}" in text
    assert "x" * 1000 in text


def test_a_site_has_failed_where_systemd_started_the_alert_but_cannot_be_asked(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a host without a message bus, where only root may ask."""
    monkeypatch.setenv("PATH", str(state))
    failure = find_failure(SITE, {"MONITOR_EXIT_CODE": "killed", "MONITOR_EXIT_STATUS": "11"})
    assert failure is not None
    assert (failure.unit, failure.code, failure.status) == ("linod@myprj.service", "killed", "SIGSEGV")
    assert "linodctl check myprj" in failure_mail(failure, Mail()).get_content()


def test_a_test_mail_says_that_it_is_one(state: Path, server: Server) -> None:
    note(state, server)
    assert main(["test", "myprj"]) == 0
    assert server.mails[0]["Subject"].endswith(": a test")
    assert not (state / "alerted").exists()


# Through which server, and to whom


def test_the_administrators_word_overrides_the_sites(state: Path, server: Server, tmp_path: Path) -> None:
    remember(state, {"to": ["dev@example.com"], "sender": "site@example.com", "host": "127.0.0.1", "port": 1})
    configure(tmp_path, f'[alert]\nto = ["ops@example.com", "root"]\nhost = "127.0.0.1"\nport = {server.port}\n')
    assert fail(state) == 0
    (mail,) = server.mails
    assert mail["To"] == "ops@example.com, root"
    assert mail["From"] == "site@example.com"


def test_an_administrator_who_only_names_addresses_means_the_mail_server_of_the_host(
    state: Path, server: Server, tmp_path: Path
) -> None:
    configure(tmp_path, f'[alert]\nto = "ops@example.com"\nport = {server.port}\n')
    assert fail(state) == 0
    assert server.mails[0]["To"] == "ops@example.com"


@pytest.mark.claim("S43")
def test_the_password_of_the_site_is_not_told_to_another_server(state: Path, tmp_path: Path) -> None:
    with Server(tmp_path / "mails", "--login", f"linod:{SECRET}") as server:
        note(state, server, user="linod", password=SECRET)
        configure(tmp_path, f'[alert]\nhost = "127.0.0.1"\nport = {server.port}\n')
        assert fail(state) == 1
        (tmp_path / "password").write_text(f"{SECRET}\n")
        configure(
            tmp_path,
            f'[alert]\nhost = "127.0.0.1"\nport = {server.port}\nuser = "linod"\n'
            f'password_file = "{tmp_path}/password"\n',
        )
        assert fail(state) == 0


def test_a_mistake_in_the_administrators_file_does_not_keep_the_mail_back(
    state: Path, server: Server, tmp_path: Path
) -> None:
    """It may be the very reason why the site has failed."""
    note(state, server)
    configure(tmp_path, "this is not TOML")
    assert fail(state) == 0
    assert len(server.mails) == 1


def test_a_server_that_asks_for_a_password_gets_it_and_nobody_else_sees_it(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server(tmp_path / "mails", "--login", f"linod:{SECRET}") as server:
        note(state, server, user="linod", password=f"wrong-{SECRET}")
        assert fail(state) == 1
        note(state, server, user="linod", password=SECRET)
        assert fail(state) == 0
        (mail,) = server.mails
    said = capsys.readouterr()
    assert "refuses the password of linod" in said.out
    assert SECRET not in said.out + said.err + mail.as_string() + repr(recall(state))


@pytest.mark.claim("S43")
@pytest.mark.parametrize("starttls", [True, False])
def test_a_server_that_speaks_tls_is_understood_and_must_be_trusted(
    state: Path, tmp_path: Path, starttls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    options = ["--certificate", str(certificate), *(["--starttls"] if starttls else [])]
    with Server(tmp_path / "mails", *options) as server:
        note(state, server, starttls=starttls, ssl=not starttls)
        assert fail(state) == 1
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert fail(state) == 0
        assert len(server.mails) == 1


def make_certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(path)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True, timeout=60)
    path.write_text(path.read_text() + (tmp_path / "key.pem").read_text())
    return path


def test_recipients_that_the_server_refuses_keep_the_mail_from_nobody_else(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server(tmp_path / "mails", "--refuse", "eva") as server:
        note(state, server, to=["eva@example.com", "admin@example.com"])
        assert fail(state) == 0
        assert len(server.mails) == 1
        assert "sent to admin@example.com. The mail server refused eva@example.com." in capsys.readouterr().out
        mail = Mail(to=("eva@example.com",), host="127.0.0.1", port=server.port)
        with pytest.raises(NotSent, match="takes no mail for eva@"):
            send(failure_mail(FAILURE, mail), mail)


def test_a_server_that_does_not_answer_is_not_waited_for_longer_than_its_limit(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mail = Mail(to=("a@example.com",), host="127.0.0.1", port=silent.getsockname()[1], timeout=0.3)
        begun = time.monotonic()
        with pytest.raises(NotSent, match="took no mail"):
            send(failure_mail(FAILURE, mail), mail)
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("noted", "sentence"),
    [
        (None, "it was never loaded"),
        ({"to": [], "host": "127.0.0.1"}, "its ADMINS are empty"),
        ({"to": ["a@example.com"], "lacking": "the site sends mail with files"}, "the site sends mail with files"),
        ({"to": "not a list", "host": 7}, "its ADMINS are empty"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(
    state: Path, noted: dict[str, Any] | None, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if noted is not None:
        remember(state, noted)
    assert fail(state) == 78
    said = capsys.readouterr().out
    assert sentence in said
    assert "Write [alert] in /etc/linod/myprj.toml" in said
    assert not (state / "alerted").exists()


def test_a_state_directory_that_is_missing_is_an_error_in_words(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(state / "none") == 1
    assert capsys.readouterr().out == f"{state}/none: No such file or directory.\n"


# What the daemon notes


@pytest.mark.claim("S43")
def test_only_the_units_user_can_read_what_is_noted(state: Path) -> None:
    old = os.umask(0)
    try:
        remember(state, {"host": "mail", "password": SECRET})
    finally:
        os.umask(old)
    assert stat.S_IMODE((state / "mail.json").stat().st_mode) == 0o600
    assert recall(state) == Mail(host="mail", password=SECRET)


def test_what_was_noted_already_is_not_written_again(state: Path) -> None:
    remember(state, {"host": "mail"})
    before = (state / "mail.json").stat()
    remember(state, {"host": "mail"})
    assert (state / "mail.json").stat().st_ino == before.st_ino
    remember(state, {"host": "other"})
    assert recall(state) == Mail(host="other")
    assert os.listdir(state) == ["mail.json"]


def test_a_note_that_cannot_be_written_is_told_in_words(tmp_path: Path) -> None:
    assert remember(tmp_path / "none", {}) == f"{tmp_path}/none/mail.json cannot be written: No such file or directory."


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"to": 5, "port": "x", "ssl": 1, "more": {}}'])
def test_a_note_that_is_damaged_is_no_error(state: Path, text: str) -> None:
    (state / "mail.json").write_text(text)
    assert recall(state) in (None, Mail())


def test_what_the_daemon_loads_for_it_is_small() -> None:
    code = "import linod.alert.memory, sys, json; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=20)
    assert not {"smtplib", "email", "ssl", "subprocess", "tomllib"} & set(json.loads(found.stdout))


# What the site tells


def settings(**given: Any) -> SimpleNamespace:
    """The settings of a Django site, as far as they are about mail."""
    defaults = {
        "ADMINS": [("Ann", "ann@example.com")],
        "SERVER_EMAIL": "site@example.com",
        "EMAIL_SUBJECT_PREFIX": "[Site] ",
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": "mail.example.com",
        "EMAIL_PORT": 25,
        "EMAIL_HOST_USER": "",
        "EMAIL_HOST_PASSWORD": "",
        "EMAIL_USE_TLS": False,
        "EMAIL_USE_SSL": False,
        "EMAIL_TIMEOUT": None,
    }
    return SimpleNamespace(**defaults | given)


def test_a_site_tells_its_admins_and_its_mail_server() -> None:
    given = settings(
        EMAIL_HOST_USER="u", EMAIL_HOST_PASSWORD=SECRET, EMAIL_PORT=587, EMAIL_USE_TLS=True, EMAIL_TIMEOUT=5
    )
    assert Mail.from_mapping(mail_settings(given)) == Mail(
        to=("ann@example.com",),
        sender="site@example.com",
        prefix="[Site] ",
        host="mail.example.com",
        port=587,
        user="u",
        password=SECRET,
        starttls=True,
        timeout=5.0,
    )


def test_admins_may_be_addresses_alone() -> None:
    assert mail_settings(settings(ADMINS=["a@example.com", "b@example.com"]))["to"] == [
        "a@example.com",
        "b@example.com",
    ]


def test_a_site_that_writes_its_mails_to_files_has_no_mail_server() -> None:
    told = mail_settings(settings(EMAIL_BACKEND="django.core.mail.backends.filebased.EmailBackend"))
    assert "host" not in told
    assert "filebased" in told["lacking"]


def test_the_mailers_of_newer_django_are_understood() -> None:
    options = {"host": "mail.example.com", "use_tls": True, "username": "u", "password": SECRET}
    mailer = {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}
    told = Mail.from_mapping(mail_settings(settings(MAILERS={"default": mailer})))
    assert (told.host, told.port, told.user, told.password) == ("mail.example.com", 587, "u", SECRET)
    console = {"BACKEND": "django.core.mail.backends.console.EmailBackend"}
    assert "host" not in mail_settings(settings(MAILERS={"default": console}))


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ({"ADMINS": 7}, "its ADMINS cannot be read (TypeError: 'int' object is not iterable)"),
        ({"ADMINS": [{"name": "Ann"}]}, "its ADMINS cannot be read (KeyError: 1)"),
        ({"ADMINS": ("Ann", "ann@example.com")}, "its ADMINS are one pair, not a list of pairs: a comma is missing"),
    ],
)
def test_admins_that_cannot_be_read_keep_no_site_from_running(given: dict[str, Any], lacking: str) -> None:
    told = mail_settings(settings(**given))
    assert (told["lacking"], told["host"]) == (lacking, "mail.example.com") and "to" not in told


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ({"EMAIL_TIMEOUT": "10s"}, "its mail server's settings cannot be read (ValueError: could not convert"),
        ({"MAILERS": {"default": {"BACKEND": SMTP, "OPTIONS": 7}}}, "its mail server's settings cannot be read (Attr"),
        ({"MAILERS": {"default": {"BACKEND": SMTP, "OPTIONS": None}}}, ""),
    ],
)
def test_a_mistake_about_the_mail_server_leaves_people_known(given: dict[str, Any], lacking: str) -> None:
    told = mail_settings(settings(**given))
    assert told["to"] == ["ann@example.com"] and told.get("lacking", "").startswith(lacking)


def test_real_settings_of_django_are_understood_as_json() -> None:
    code = """
import json
from django.conf import settings
settings.configure(ADMINS=[("Ann", "ann@example.com")])
from linod.site.mail import mail_settings
print(json.dumps(mail_settings(settings)))
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=30)
    told = Mail.from_mapping(json.loads(found.stdout))
    assert (told.to, told.host, told.port, told.prefix) == (("ann@example.com",), "localhost", 25, "[Django] ")
