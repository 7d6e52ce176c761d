"""A site that fails for good: one mail then, and one when it is back."""

import pytest

TASKS = """
import linod

@linod.task(every=1)
def often():
    pass
"""


@pytest.fixture(scope="module")
def crashed(server):
    """A site that systemd has given up after some crashes, and about which somebody has got mail."""
    server.forget_mails()
    site = server.add_site("crashes", TASKS)
    site.override('[alert]\nto = ["admin@example.com"]\n')
    site.drop_in("[Unit]\nStartLimitBurst=3\n[Service]\nRestartSec=100ms\n")
    site.start()
    crash(site)
    server.wait(lambda: alerts(server))
    settle(server)
    yield site
    site.remove()
    server.forget_mails()


def crash(site):
    """Let its daemon be killed as often as systemd starts it again."""
    for _ in range(10):
        site.server.wait(lambda: site.active in ("active", "failed"))
        if site.active == "failed":
            return
        kill(site)
    raise AssertionError("It is started again for ever.")


def kill(site):
    """Kill its daemon, and wait until systemd has noticed."""
    before = site.show("NRestarts", "ActiveState")
    site.server.run(f"systemctl kill --kill-whom=main --signal=KILL {site.unit}")
    site.server.wait(lambda: site.show("NRestarts", "ActiveState") != before)


def alerts(server):
    return [mail for mail in server.mails() if mail["To"] == "admin@example.com"]


def alerts_about(server, name):
    return [mail for mail in alerts(server) if name in mail["Subject"]]


def settle(server, name="crashes"):
    """Wait until nobody is about to send a mail."""
    server.wait(lambda: server.show(f"linod-alert@{name}.service", "ActiveState") in ("inactive", "failed"))
    server.wait("test -z \"$(mailq | grep -v '^Mail queue is empty')\"")


def test_a_crash_loop_ends_as_failed(crashed):
    assert crashed.active == "failed"


def test_one_mail_tells_of_it_and_what_the_journal_said_last(crashed):
    [mail] = alerts(crashed.server)
    assert "crashes" in mail["Subject"]
    assert "linod@crashes" in mail.get_content()
    assert "1 task." in mail.get_content()


def test_who_fails_again_without_having_recovered_causes_no_second_mail(crashed):
    crashed.server.run("systemctl start linod-alert@crashes")
    settle(crashed.server)
    assert len(alerts(crashed.server)) == 1


def test_one_more_mail_tells_of_the_recovery(crashed):
    """It is sent when the site has run for half a minute."""
    server = crashed.server
    server.run(f"systemctl reset-failed {crashed.unit}")
    crashed.start()
    server.wait(lambda: len(alerts(server)) > 1)
    settle(server)
    [failed, recovered] = alerts(server)
    assert "crashes" in recovered["Subject"]
    assert recovered["Subject"] != failed["Subject"]


def test_a_site_that_cannot_be_loaded_sends_one_as_well(add_site, server):
    site = add_site("unloadable", "import nothing_like_this")
    site.override('[alert]\nto = ["admin@example.com"]\n')
    assert site.start(check=False).returncode != 0
    server.wait(lambda: alerts_about(server, "unloadable"))
    settle(server, "unloadable")
    [mail] = alerts_about(server, "unloadable")
    assert "nothing_like_this" in mail.get_content()


def test_a_task_that_fails_is_told_once_and_once_more_when_it_is_well(add_site, server):
    """By the unit's own user and within its limits."""
    tasks = """
    import os
    import linod

    @linod.task(every=1)
    def fragile():
        if not os.path.exists("mended"):
            raise RuntimeError("it is broken")
    """
    site = add_site("fragile", tasks)
    site.override('[alert]\nto = ["admin@example.com"]\nevery = 1\n')
    site.start()
    server.wait(lambda: alerts_about(server, "fragile"))
    [mail] = alerts_about(server, "fragile")
    assert "RuntimeError: it is broken" in mail.get_content()
    assert "linodctl why fragile fragile" in mail.get_content()
    failed = len(site.runs("fragile"))
    site.wait_for_runs("fragile", failed + 3)
    server.run(f"touch {site.directory}/mended")
    server.wait(lambda: len(alerts_about(server, "fragile")) > 1)
    [_failed, recovered] = alerts_about(server, "fragile")
    assert "is well again" in recovered["Subject"]


def test_whether_anybody_would_be_told_can_be_tried(add_site, server):
    site = add_site("told", TASKS)
    site.override('[alert]\nto = ["admin@example.com"]\n')
    assert "mail to admin@example.com" in server.run("linodctl alert-test told").stdout
    server.wait(lambda: alerts_about(server, "told"))
