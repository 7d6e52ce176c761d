"""`apt install linod` on a server that never had it: nothing is started, and everything is in its place."""

from tests.support.workshop import ROOT


def test_installing_starts_nothing_and_says_what_to_type_next(bare):
    told = bare.apt("install linod").stdout
    assert "linodctl add SITE DIRECTORY" in told
    assert "systemctl enable --now linod@SITE" in told
    units = bare.ask("systemctl list-units --all --plain --no-legend 'linod*'").splitlines()
    assert [line.split()[0] for line in units] == ["linod.target"]
    assert bare.ask("systemctl is-system-running", check=False) == "running"


def test_the_daemon_comes_with_all_it_needs_but_without_django(bare):
    bare.apt("install linod")
    assert bare.installed("python3-systemd")
    assert bare.installed("python3-croniter")
    assert not bare.installed("python3-django")


def test_it_works_without_what_is_only_recommended(bare):
    bare.apt("install --no-install-recommends linod")
    assert not bare.installed("python3-croniter")
    site = bare.add_site("plain", tasks=PING, settings=WITHOUT_LINOD)
    site.start()
    assert site.wait_for_runs("ping")[0].outcome == "succeeded"


def test_the_library_alone_installs_no_unit(bare):
    bare.apt("install python3-linod")
    assert bare.ask("python3 -c 'import linod; print(linod.__file__)'").startswith("/usr/lib/python3/dist-packages/")
    assert not bare.exists("/usr/lib/systemd/system/linod@.service")


def test_everything_is_in_its_place(server):
    for page in ("man1/linodctl.1", "man5/linod.toml.5", "man8/linod.8"):
        assert server.exists(f"/usr/share/man/{page}.gz")
    assert server.exists("/usr/share/bash-completion/completions/linodctl")
    assert server.exists("/usr/share/zsh/vendor-completions/_linodctl")
    assert server.exists("/usr/share/doc/linod/README.md")
    assert server.ask("ls /usr/share/doc/linod/examples")
    for package in ("linod", "python3-linod"):
        assert server.ask(f"zcat /usr/share/doc/{package}/changelog.gz").startswith("linod (")
    assert " linod: " in server.ask("journalctl --list-catalog")
    assert server.ask("stat -c '%U %a' /etc/linod /etc/linod/sites /var/lib/linod").split() == ["root", "755"] * 3


def test_what_a_document_or_a_unit_refers_to_is_there(server):
    places = server.ask("grep -rhoE 'file:///usr/share/doc/linod/[A-Za-z./-]+' /usr/lib/systemd | sort -u").splitlines()
    assert places
    for place in places:
        assert server.exists(place.removeprefix("file://")), place


def test_linod_target_is_part_of_every_boot_and_starts_no_site(server):
    site = server.add_site("idle", tasks=PING, settings=WITHOUT_LINOD)
    server.reboot()
    assert server.show("linod.target", "ActiveState") == "active"
    assert site.active == "inactive"


def test_the_test_that_debian_runs_passes(server):
    server.apt("install python3-django")
    server.write("/root/one-run", (ROOT / "debian/tests/one-run").read_text(), mode="755")
    server.run("mkdir -p /root/tmp && AUTOPKGTEST_TMP=/root/tmp /root/one-run")
    assert server.ask("ls /etc/linod/sites /var/lib/linod") == "/etc/linod/sites:\n\n/var/lib/linod:"


def test_who_may_not_administer_is_told_so(server):
    site = server.add_site("shop", tasks=PING, settings=WITHOUT_LINOD)
    site.start()
    run = site.wait_for_runs("ping")[0]
    server.add_site("idle", tasks=PING, settings=WITHOUT_LINOD)
    server.run("mkdir -p /home/stranger/site && touch /home/stranger/site/manage.py")
    asked = dict.fromkeys(("run shop ping", "cancel shop {run}", "pause shop", "resume shop", "reload shop"), NOT_HEARD)
    for command, words in (REFUSED | asked).items():
        refused = server.ctl(command.format(run=run.id), user="stranger", check=False)
        told = refused.stdout + refused.stderr
        assert refused.returncode != 0, command
        assert words in told, command
        assert "Traceback" not in told, command
    assert sorted(server.ask("ls /etc/linod/sites").split()) == ["idle", "shop"]
    assert not site.records(LINOD_EVENT="paused")


def test_needrestart_restarts_other_services_but_no_site(installed):
    installed.apt("install needrestart")
    site = installed.add_site("busy", tasks=PING, settings=WITHOUT_LINOD)
    site.start()
    installed.write("/etc/systemd/system/other.service", OTHER)
    installed.run("systemctl daemon-reload && systemctl start other")
    installed.wait(lambda: libraries(installed, "other.service"))
    pids = {unit: installed.show(unit, "MainPID") for unit in ("other.service", site.unit)}
    replace(installed, libraries(installed, site.unit)[0])
    installed.run("needrestart -l -r a")
    assert installed.show("other.service", "MainPID") != pids["other.service"]
    assert installed.show(site.unit, "MainPID") == pids[site.unit]


def libraries(server, unit):
    """Where the library of SQLite is, for a unit that uses it."""
    pid = server.show(unit, "MainPID")
    return server.ask(f"grep -o '/usr/lib/.*/libsqlite3.so.*' /proc/{pid}/maps", check=False).splitlines()


def replace(server, library):
    """Do to a library what an upgrade does: put another file in its place."""
    server.run(f"cp {library} {library}.new && mv {library}.new {library}")


REFUSED = {
    "add mine /home/stranger/site": "cannot be changed by stranger: Permission denied. Try again as root.",
    "remove idle": "cannot be changed by stranger: Permission denied. Try again as root.",
    "import-supervisor --apply": "Only root may stop and start services, and you are stranger. Try again with sudo.",
    "exec shop check": "The site belongs to www-data, and you are stranger. Try again as root or www-data.",
    "check shop": "The site belongs to www-data, and you are stranger. Try again as root or www-data.",
    "list shop": "can be read by root, www-data and members of the group www-data, not by stranger.",
    "history shop": "can be read by root, www-data and members of the group www-data, not by stranger.",
    "show shop {run}": "can be read by root, www-data and members of the group www-data, not by stranger.",
}
NOT_HEARD = "The daemon of this site listens to root and www-data, not to stranger. Become one of them, as with sudo"
OTHER = """
[Service]
ExecStart=/usr/bin/python3 -c "import sqlite3, time; time.sleep(3600)"
"""
PING = """
from linod import dd

@dd.schedule_often(every=1)
def ping():
    print("pong")
"""
WITHOUT_LINOD = "INSTALLED_APPS = ['app']"
