"""What the user of a site may try against root and the rest of the host, on a server that is booted."""

import ast
import contextlib
import json

import pytest

EVIL = r"\x1b]0;owned\x07\x1b[31mred \x9b2J \u202egnp.exe"
OBEYED = set("\x1b\x07\x9b\u202e")

# A name, a reason and an output of which each wants to be more than text. (Of a name that cannot be printed the daemon
# wants to know nothing.)
TASKS = f"""
import socket
import linod

EVIL = "{EVIL}"

@linod.task(every=3600)
def fails():
    linod.progress(1, 2, EVIL)
    print(EVIL)
    raise ValueError(EVIL)

def named():
    print("one line\\nLINOD_OUTCOME=failed\\nMESSAGE_ID=0")

@linod.task(every=3600)
def speaks():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.sendto(b"STATUS=forged\\nSTOPPING=1\\nWATCHDOG=trigger\\nMAINPID=1", "/run/systemd/notify")

named.__name__ = "named LINOD_OUTCOME=failed"
linod.task(every=3600, name="named")(named)
"""

# And a way to send mail that fails with such a text.
MAIL = f"""
def refuse(**options):
    raise ValueError("{EVIL}")
"""
SETTINGS = """
ADMINS = [("Anna", "anna@example.com")]
EMAIL_BACKEND = "app.mail.refuse"
"""

# Opens the memory of a process that tells of a failure, as soon as there is one.
SPY = """
import os, time

deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"linod.alert" not in file.read():
                    continue
            with open(f"/proc/{pid}/mem", "r+b"):
                print("It lets anybody in.")
        except PermissionError:
            print("It is closed.")
        except OSError:
            continue  # it has ended meanwhile
        raise SystemExit
"""


@pytest.fixture(scope="module")
def site(server):
    """A site of its own user, whose tasks want to be more than text."""
    site = server.add_site("evil", TASKS, SETTINGS, {"app/mail.py": MAIL}, owner="lino")
    server.run("rm /etc/linod/sites/evil")
    server.ctl("add evil /srv/evil --user lino")
    site.start()
    for task in ("app.tasks.fails", "named", "speaks"):
        server.ctl(f"run evil {task}", check=False)
    yield site
    site.remove()


@pytest.mark.claim("S11")
def test_systemctl_shows_nothing_that_a_terminal_obeys(site):
    site.server.wait(lambda: "ValueError" in site.status)
    shown = site.server.ask(f"systemctl status {site.unit}", check=False)
    assert "gnp.exe" in shown and not set(shown) & OBEYED


@pytest.mark.claim("S31")
def test_no_task_speaks_for_the_service(site):
    [run] = site.ended("speaks")
    assert run.outcome == "succeeded"
    assert site.show("ActiveState", "MainPID", "Result") == ["active", str(site.pid), "success"]
    assert "3 tasks." in site.status


@pytest.mark.claim("S12")
def test_journalctl_shows_nothing_that_a_terminal_obeys(site):
    site.server.run("journalctl --sync; journalctl --update-catalog")
    for option in ("", "-x", "-o cat", "-o with-unit", "-o short-full"):
        shown = site.server.ask(f"journalctl -u {site.unit} --since=@{site.since:.6f} {option}")
        assert "gnp.exe" in shown and not set(shown) & OBEYED, option


@pytest.mark.claim("S12")
def test_no_output_and_no_name_forges_a_record(site):
    ends = [record for record in site.records() if "LINOD_OUTCOME" in record]
    assert {(record["LINOD_TASK_ID"], record["LINOD_OUTCOME"]) for record in ends} == {
        ("app.tasks.fails", "failed"),
        ("named", "succeeded"),
        ("app.tasks.speaks", "succeeded"),
    }
    for record in site.records(LINOD_EVENT="output"):
        assert "MESSAGE_ID" not in record and "\n" not in record["LINOD_TASK"]


COMMANDS = (
    "sites|list evil|history evil|show evil 1|show evil 2|why evil named|status evil|check evil|run evil named"
    "|alert-test evil"
)


@pytest.mark.claim("S13")
@pytest.mark.parametrize("command", COMMANDS.split("|"))
@pytest.mark.parametrize("terminal", [False, True])
def test_linodctl_shows_nothing_that_a_terminal_obeys(site, command, terminal):
    """On a terminal there are colours of its own."""
    typed = f"linodctl --no-color {command}"
    shown = site.server.ask(f'script -qec "{typed}" /dev/null' if terminal else typed, check=False)
    assert shown and not set(shown.replace("\r\n", "\n").replace("\r\x1b[K", "")) & (OBEYED | {"\r"})
    if not terminal:
        told = site.server.run(f"linodctl {command} --json", check=False).stdout
        assert json.loads(told) and told.isascii() and not set(told) & OBEYED


TOLD = "import os; print([os.getgroups(), os.getresuid(), os.getresgid(), oct(os.umask(0)), sorted(os.environ)])"


@pytest.mark.claim("S1", "S2")
def test_what_is_executed_has_nothing_of_who_called_it(site, server):
    uid = int(server.ask("id --user lino"))
    typed = f'SECRET=x TERM=linux setpriv --groups 0,4,27 linodctl exec evil shell --command "{TOLD}"'
    groups, users, own, umask, environment = ast.literal_eval(server.ask(f"umask 077; {typed}").splitlines()[-1])
    assert (groups, users, own, umask) == ([uid], (uid,) * 3, (uid,) * 3, "0o2")
    assert "TERM" in environment and not {"SECRET", "SUDO_USER", "OLDPWD"} & set(environment)


@pytest.mark.claim("S33")
def test_nobody_reads_the_journal_through_the_process_that_tells_of_a_failure(site):
    """It has the group of the journal, and the user of the site."""
    site.write("spy.py", SPY)
    spy = site.server.start("python3 /srv/evil/spy.py", user="lino", stdout=-1)
    with contextlib.closing(spy.stdout):
        try:
            site.server.run("systemctl start linod-alert@evil", check=False)
            assert spy.communicate(timeout=60)[0] == "It is closed.\n"
        finally:
            spy.kill()
            spy.wait()


@pytest.mark.claim("S4", "S5")
def test_a_state_directory_full_of_traps_delays_nobody_and_leads_nowhere(site, add_site, server):
    """Pipes, devices and links in the place of each file that root's commands look at."""
    add_site("trapped", "import linod\n", owner="lino")
    server.run("rm /etc/linod/sites/trapped")
    server.ctl("add trapped /srv/trapped --user lino", check=False)
    server.run("install -d -o lino -g lino -m 750 /var/lib/linod/trapped; echo precious >/root/precious")
    before = server.ask("stat --format='%U %G %a %Y %s' /root/precious")
    for trap in ("mkfifo {}", "ln -s /root/precious {}", "ln -s /dev/zero {}", "mkdir {}", "ln -s {} {}"):
        made = "; ".join(
            trap.format(f"/var/lib/linod/trapped/{name}", f"/var/lib/linod/trapped/{name}")
            for name in ("history.sqlite3", "history.sqlite3-wal", "history.sqlite3-shm", "lock", "mail.json", "starts")
        )
        server.run(f"rm -rf /var/lib/linod/trapped/*; {made}", user="lino")
        for command in ("sites", "list trapped", "history trapped", "status trapped", "check trapped", "pause trapped"):
            done = server.ctl(command, check=False, timeout=30)
            assert "Traceback" not in done.stderr, (trap, command)
        assert server.ask("stat --format='%U %G %a %Y %s' /root/precious") == before
    server.ctl("remove trapped --purge")
    assert server.read("/root/precious") == "precious\n"
