"""linodctl add --scan: what getlino lays out on a server becomes sites with one command."""

import json

import pytest

from tests.support.site import MANAGE, SETTINGS

PLACE = "/usr/local/lino/lino_local"
TASKS = """
import linod

@linod.task(every=0.2)
def beat():
    pass
"""


@pytest.fixture
def place(server):
    """Where getlino has its sites: a function that lays one out there."""

    def lay(name, settings="", owner="root"):
        directory = f"{PLACE}/{name}"
        server.write(f"{directory}/manage.py", MANAGE)
        server.write(f"{directory}/proj/__init__.py", "")
        server.write(f"{directory}/proj/settings.py", SETTINGS + settings)
        server.write(f"{directory}/app/__init__.py", "")
        server.write(f"{directory}/app/tasks.py", TASKS)
        server.run(f"ln -s /srv/noi1e/env {directory}/env && chown --no-dereference --recursive {owner}: {directory}")

    try:
        yield lay
    finally:
        server.run(
            "for site in $(ls /etc/linod/sites); do systemctl disable --now linod@$site; linodctl remove --purge $site;"
            f" done; rm -rf {PLACE}",
            check=False,
        )


def test_sites_are_shown_and_then_added(server, place):
    server.write(f"{PLACE}/settings.py", "")
    server.run(f"mkdir -p {PLACE}/no-site")
    place("alpha")
    place("beta", owner="lino")
    place("off", settings="USE_LINOD = False\n")
    place("broken", settings="this is no Python\n")
    shown = server.ctl("add --scan").stdout
    assert "Nothing was changed." in shown
    found = {site["site"]: site for site in json.loads(server.ctl("add --scan --json").stdout)}
    assert {name: site["uses_linod"] for name, site in found.items()} == {
        "alpha": True,
        "beta": True,
        "off": False,
        "broken": None,
    }
    assert (found["alpha"]["user"], found["beta"]["user"]) == ("www-data", "lino")
    assert "SyntaxError" in found["broken"]["problem"]
    assert server.ask("ls -A /etc/linod/sites") == ""

    said = server.ctl("add --scan --apply").stdout
    assert "systemctl enable --now linod@alpha linod@beta" in said
    assert server.ask("ls /etc/linod/sites").split() == ["alpha", "beta"]
    server.run("systemctl enable --now linod@alpha linod@beta")
    assert server.show("linod@alpha", "User", "ActiveState") == ["www-data", "active"]
    assert server.show("linod@beta", "User", "ActiveState") == ["lino", "active"]
    left = {site["site"] for site in json.loads(server.ctl("add --scan --json").stdout)}
    assert left == {"off", "broken"}


def test_a_stranger_sees_the_plan_and_cannot_do_it(server, place):
    place("alpha", owner="lino")
    [site] = json.loads(server.ctl("add --scan --json", user="stranger").stdout)
    assert site["uses_linod"] is None and "you are stranger" in site["problem"]
    server.ctl("add --scan --apply", user="stranger")
    assert server.ask("ls -A /etc/linod/sites") == ""
