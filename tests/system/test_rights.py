"""Who may do what: root and the site's own user, and nobody else."""

import pytest

TASKS = """
import os, pwd
import linod

@linod.task(every=3600)
def tell():
    print(pwd.getpwuid(os.getuid()).pw_name)

@linod.task(every=3600)
def environment():
    print(*sorted(os.environ))
"""
FROM_SYSTEMD = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "MAINPID"}


@pytest.fixture(scope="module")
def site(server):
    """One for all tests, which leave it as it is."""
    site = server.add_site("myprj", TASKS)
    site.start()
    yield site
    site.remove()


@pytest.mark.claim("S20")
@pytest.mark.parametrize("place", ["/var/lib/linod/myprj", "/run/linod/myprj"])
def test_another_user_cannot_look_into_a_sites_directories(site, place):
    done = site.server.run(f"ls {place}", user="stranger", check=False)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


@pytest.mark.claim("S20")
def test_another_user_cannot_read_its_history(site):
    for file in ("history.sqlite3", "history.sqlite3-wal"):
        done = site.server.run(f"cat {site.state}/{file}", user="stranger", check=False)
        assert "Permission denied" in done.stderr


@pytest.mark.claim("S21")
def test_another_user_cannot_use_its_control_socket(site):
    for command in ("run myprj tell", "pause myprj", "reload myprj"):
        done = site.server.ctl(command, user="stranger", check=False)
        assert done.returncode != 0
        assert "listens to root and www-data, not to stranger." in done.stderr
    assert not site.records(LINOD_EVENT="asked")
    assert not site.records(LINOD_EVENT="paused")
    assert not site.records(LINOD_EVENT="reloading")


@pytest.mark.claim("S21")
def test_who_gets_at_the_socket_all_the_same_is_hung_up_on(site):
    """SO_PEERCRED decides, not only the rights of the directory."""
    runs = len(site.runs())
    site.server.run("chmod 755 /run/linod/myprj && chmod 777 /run/linod/myprj/control")
    done = site.server.ctl("run myprj tell", user="stranger", check=False)
    site.server.run("chmod 750 /run/linod/myprj && chmod 660 /run/linod/myprj/control")
    assert done.returncode != 0
    assert len(site.runs()) == runs


@pytest.mark.claim("S21")
def test_the_sites_own_user_may_use_it(site):
    assert "www-data" in site.server.ctl("run myprj tell", user="www-data").stdout


@pytest.mark.claim("S22")
def test_garbage_on_the_control_socket_harms_nothing(site):
    site.server.run(
        "python3 -c '"
        "import os, socket\n"
        "for size in (1, 100, 50000):\n"
        "    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        '    end.connect("/run/linod/myprj/control")\n'
        "    end.send(os.urandom(size))\n"
        "    end.recv(1000)\n"
        "'",
        user="www-data",
    )
    assert "www-data" in site.server.ctl("run myprj tell").stdout


@pytest.mark.claim("S1")
def test_the_daemon_refuses_to_run_as_root(add_site):
    site = add_site("as-root", TASKS)
    site.say(User="root")
    assert site.start(check=False).returncode != 0
    assert site.show("ActiveState", "ExecMainStatus", "NRestarts") == ["failed", "78", "0"]
    assert "root" in site.status


def test_another_user_than_www_data_is_a_drop_in_that_linodctl_writes(server, add_site):
    site = add_site("ours", TASKS, owner="lino")
    server.run("rm /etc/linod/sites/ours")
    server.ctl("add ours /srv/ours --user lino")
    site.start()
    assert "lino" in server.ctl("run ours tell").stdout
    owner = server.ask("stat --format=%U:%a /var/lib/linod/ours /run/linod/ours").splitlines()
    assert owner == ["lino:750", "lino:750"]


@pytest.mark.claim("S31")
def test_tasks_never_see_what_systemd_says_to_the_daemon(site):
    seen = set(site.server.ctl("run myprj environment").stdout.split())
    assert "LINOD_RUN" in seen
    assert not seen & FROM_SYSTEMD


@pytest.mark.claim("S44")
def test_the_environment_file_reaches_the_tasks_and_root_may_keep_it_to_itself(add_site, server):
    site = add_site("secret", TASKS)
    server.write("/etc/linod/secret.env", "SITE_SECRET=pssst\n", mode="600")
    site.start()
    assert "SITE_SECRET" in server.ctl("run secret environment").stdout.split()


def test_what_a_task_creates_can_be_written_by_the_group(add_site, server):
    site = add_site(
        "umask",
        """
        import linod

        @linod.task(every=1)
        def write():
            open("made", "w").close()
        """,
    )
    site.start()
    site.wait_for_runs("write")
    assert server.ask("stat --format=%a /srv/umask/made") == "664"
