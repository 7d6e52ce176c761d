"""The names of sites."""

import pytest

TASKS = """
import linod

@linod.task(every=1)
def often():
    pass
"""


@pytest.mark.parametrize("name", ["my-prj", "my.prj", "a-b.c_d-9", "2fast", "My--Prj.."])
def test_a_name_with_dashes_and_dots_works(add_site, name):
    site = add_site(name, TASKS)
    site.start()
    site.wait_for_runs("often")
    assert site.records(LINOD_SITE=name)
    assert site.server.ctl(f"list {name}").returncode == 0
    site.reload()
    site.stop()
    assert site.active == "inactive"


@pytest.mark.parametrize("name", ["-dash", ".dot", "_under", "a@b", "a:b"])
def test_another_name_is_refused_in_words(server, name):
    unit = f"'linod@{name}.service'"
    try:
        assert server.run(f"systemctl start {unit}", check=False).returncode != 0
        status = server.run(f"systemctl status --full --lines=0 -- {unit}", check=False).stdout
        assert "is no name for a site" in status
        assert "Use letters" in status
    finally:
        server.run(f"systemctl stop {unit}; systemctl reset-failed -- {unit}", check=False)


@pytest.mark.parametrize("name", ["two\\x20words", "gr\\xc3\\xbcn", "a\\x2fb"])
def test_a_name_that_systemd_has_to_escape_never_starts(server, name):
    """systemd 257 fails on its directories by itself, before the daemon could say what is wrong."""
    unit = f"'linod@{name}.service'"
    try:
        assert server.run(f"systemctl start {unit}", check=False).returncode != 0
        assert server.show(unit, "ActiveState") != "active"
    finally:
        server.run(f"systemctl stop {unit}; systemctl reset-failed -- {unit}", check=False)


def test_a_site_that_was_never_added_is_refused_with_how_to_add_it(server):
    try:
        assert server.run("systemctl start linod@nobody", check=False).returncode != 0
        status = server.run("systemctl status --full --lines=0 linod@nobody", check=False).stdout
        assert "linodctl add nobody" in status
    finally:
        server.run("systemctl reset-failed linod@nobody", check=False)


@pytest.mark.parametrize("name", ["-dash", ".dot", "two words", "grün", "a/b", "a@b"])
def test_linodctl_adds_no_site_of_another_name(server, name):
    server.run("mkdir -p /srv/unnamed && touch /srv/unnamed/manage.py")
    done = server.ctl(f"add -- '{name}' /srv/unnamed", check=False)
    assert done.returncode != 0
    assert "name" in done.stderr
    assert server.ask("ls -A /etc/linod/sites") == ""
