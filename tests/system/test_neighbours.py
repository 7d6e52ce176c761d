"""Many sites on one server: one that is broken says what to do about it, and the others don't notice."""

import pytest

GOOD = """
import linod

@linod.task(every=0.5)
def often():
    pass
"""


def no_manage(server, site):
    server.run(f"rm {site.directory}/manage.py")


def no_environment(server, site):
    server.run(f"rm {site.directory}/env")


def environment_that_is_gone(server, site):
    server.run(f"ln -sfn {site.directory}/nowhere {site.directory}/env")


def settings_that_raise(server, site):
    site.write("proj/settings.py", "raise RuntimeError('no password for the database')\n")


def settings_that_are_missing(server, site):
    server.run(f"rm {site.directory}/proj/settings.py")


def unreadable(server, site):
    server.run(f"chown root: {site.directory} && chmod 700 {site.directory}")


def no_directory(server, site):
    server.run(f"mv {site.directory} {site.directory}.moved")


def bad_toml(server, site):
    site.override("max_parallel = 2\npython = [\n")


def unknown_key(server, site):
    site.override('pyton = "env/bin/python"\n')


def bad_task(server, site):
    site.declare("import linod\n\n@linod.task(every=0)\ndef often():\n    pass\n")


# What breaks a site, and what its status must name: the thing that is wrong, and what to do.
BROKEN = {
    "no-manage": (no_manage, ["manage.py", "/srv/no-manage"]),
    "no-env": (no_environment, ["/usr/bin/python3", "Django", "virtual environment"]),
    "lost-env": (environment_that_is_gone, ["/srv/lost-env/env/bin/python", "virtual environment"]),
    "no-settings": (settings_that_are_missing, ["proj.settings"]),
    "unreadable": (unreadable, ["/srv/unreadable", "www-data"]),
    "no-directory": (no_directory, ["/srv/no-directory", "/etc/linod/sites/no-directory"]),
    "bad-toml": (bad_toml, ["/etc/linod/bad-toml.toml, line"]),
    "unknown-key": (unknown_key, ["/etc/linod/unknown-key.toml, line 1", "pyton", "python"]),
    "bad-task": (bad_task, ["/srv/bad-task/app/tasks.py:3", "every"]),
}


@pytest.fixture(scope="module")
def good(server):
    """Sites that go on while others break."""
    sites = [server.add_site(name, GOOD) for name in ("good-1", "good-2")]
    for site in sites:
        site.start()
        site.wait_for_runs("often")
    yield sites
    for site in sites:
        site.remove()


def shown(site, lines=0):
    """What `systemctl status` shows, with so many lines of the journal."""
    return site.server.run(f"systemctl status --full --lines={lines} {site.unit}", check=False).stdout


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_site_says_what_to_do_and_the_others_go_on(server, add_site, good, name):
    break_it, words = BROKEN[name]
    site = add_site(name, GOOD)
    break_it(server, site)
    before = [(one.pid, len(one.ended("often"))) for one in good]

    assert site.start(check=False).returncode != 0
    assert site.show("ActiveState", "ExecMainStatus", "NRestarts") == ["failed", "78", "0"]
    assert not [word for word in words if word not in shown(site)], shown(site)

    for one, (pid, ended) in zip(good, before, strict=True):
        one.wait_for_runs("often", ended + 1)
        assert (one.pid, one.active) == (pid, "active")
        assert {run.outcome for run in one.ended("often")} == {"succeeded"}


def test_settings_that_raise_may_mend_themselves_so_the_site_is_waited_for(server, add_site):
    site = add_site("raising", GOOD)
    settings = site.read("proj/settings.py")
    settings_that_raise(server, site)
    site.start()
    assert site.active == "active"
    assert "waiting for the site: RuntimeError: no password for the database" in shown(site)
    assert "/srv/raising/proj/settings.py:1" in shown(site)
    site.write("proj/settings.py", settings)
    site.wait_for_runs("often")
    assert "waiting" not in site.status


def test_a_site_that_does_not_use_linod_is_no_failure(server, add_site):
    site = add_site("no-linod", GOOD, settings="USE_LINOD = False")
    site.start()
    server.wait(lambda: site.active == "inactive")
    assert "This site does not use linod." in shown(site, lines=10)
    assert site.show("Result", "NRestarts", "ExecMainStatus") == ["success", "0", "0"]


def test_a_site_without_tasks_is_no_failure(server, add_site):
    site = add_site("no-tasks")
    site.start()
    server.wait(lambda: site.active == "inactive")
    assert "This site has no scheduled jobs." in shown(site, lines=10)
    assert site.show("Result", "NRestarts") == ["success", "0"]


def test_linodctl_sites_shows_the_broken_one_beside_the_others(server, add_site, good):
    site = add_site("no-manage", GOOD)
    no_manage(server, site)
    site.start(check=False)
    rows = {line.split()[0]: line.split() for line in server.ctl("sites").stdout.splitlines() if line.split()}
    assert rows["good-1"][1] == rows["good-2"][1] == "active"
    assert rows["no-manage"][1].startswith("failed")


def test_linodctl_check_tells_what_keeps_a_site_from_starting(server, add_site):
    site = add_site("no-manage", GOOD)
    assert server.ctl("check no-manage", check=False).returncode == 0
    no_manage(server, site)
    done = server.ctl("check no-manage", check=False)
    assert done.returncode != 0
    assert "manage.py" in done.stdout + done.stderr
