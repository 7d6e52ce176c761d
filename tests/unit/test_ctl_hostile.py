"""What a site's user may lay out for root, who types linodctl: links, names, histories and files that hold anything."""

import ctypes
import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from linod.archive import FILE, OPENED
from linod.ctl import accounts, adding, leftovers, owned, reading
from linod.ctl.accounts import find_account, parse_environment
from linod.ctl.footing import opened
from linod.ctl.screen import cut, fit
from linod.ctl.scripts import understand
from linod.ctl.supervisor import Unusable, read_file
from linod.ctl.survey import history_of, who_runs
from linod.ctl.units import units_in
from linod.daemon.lock import lock_site
from linod.errors import HistoryError, LinodError
from linod.linux import birth, children
from linod.sites import HostSite
from linod.state import CONTROL
from linod.wire import Done
from tests.support.ctl import CtlHost, daemon_says, run, task
from tests.support.site import until
from tests.unit.test_ctl_completion import complete

SOMEBODY = 65534
IN_OPEN = 0x20  # of inotify(7)


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = CtlHost(tmp_path)
    host.patch(monkeypatch)
    host.add("bad", "good")
    host.remember("good", [task("ping")], [run("ping")])
    return host


def own(*paths):
    """Let them belong to somebody who isn't root."""
    if os.geteuid() == 0:
        for path in paths:
            os.chown(path, SOMEBODY, -1, follow_symlinks=False)


def reached(directory):
    with opened(directory) as fd:
        return os.readlink(f"/proc/self/fd/{fd}")


# Links


@pytest.mark.claim("S4")
def test_a_link_of_a_user_leads_root_to_what_belongs_to_that_user_only(tmp_path):
    (tmp_path / "home/new").mkdir(parents=True)
    for name, target in (("own", "new"), ("out", "/usr/lib"), ("up", "../" * 20 + "usr")):
        (tmp_path / "home" / name).symlink_to(target)
        own(tmp_path / "home" / name)
    own(tmp_path / "home", tmp_path / "home/new")
    assert reached(tmp_path / "home/own") == reached(tmp_path / "home/new") == f"{tmp_path}/home/new"
    for way in ("home/out", "home/up", "home/out/python3", "home/own/../out"):
        with pytest.raises(LinodError, match=r"the link (out|up) leads to .*, and not only root could change it"):
            reached(tmp_path / way)


def test_what_cannot_be_opened_is_told(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for name, why in (("loop", "Too many"), ("file", "Not a directory"), ("none", "No such file")):
        with pytest.raises(LinodError, match=f"{tmp_path}/{name} cannot be opened safely: {why}"):
            reached(tmp_path / name)
    assert reached(Path("/")) == "/"


if os.geteuid() == 0:  # only root can be led astray

    def test_a_link_that_root_has_laid_is_followed(tmp_path):
        (tmp_path / "current").symlink_to("/usr/lib")
        (tmp_path / "again").symlink_to("current")
        assert reached(tmp_path / "again") == "/usr/lib"
        own(tmp_path)  # now somebody else can put other links of root's there
        with pytest.raises(LinodError, match="not only root could change it"):
            reached(tmp_path / "again")

    @pytest.mark.claim("S4")
    def test_nothing_is_given_away_where_the_path_of_a_site_leads_by_now(tmp_path):
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious/shadow").touch()
        (tmp_path / "site").symlink_to("precious")
        own(tmp_path / "site")
        for look in (owned.give, owned.owned_by_root):
            with pytest.raises(LinodError, match="cannot be opened safely"):
                look(tmp_path / "site", find_account("nobody"))
        assert (tmp_path / "precious/shadow").stat().st_uid == 0

    @pytest.mark.claim("S4")
    def test_nothing_is_written_for_supervisor_where_a_user_lets_the_path_lead(host, capsys):
        (host.path / "srv/bad").rename(host.path / "srv/before")
        target = host.path / "precious"
        target.mkdir()
        (host.path / "srv/bad").symlink_to(target)
        own(host.path / "srv/bad")
        code, _, err = host.call(capsys, "supervisor-config", "bad", "--write", "--conf-dir", host.etc)
        assert code == 1 and "cannot be opened safely" in err
        assert not list(target.iterdir()) and not list(host.etc.glob("*.conf"))

    @pytest.mark.claim("S5")
    def test_what_is_in_the_place_of_a_script_is_not_waited_for(host):
        os.mkfifo(host.path / "srv/bad/linod.sh")
        done = host.spawn("supervisor-config", "bad", "--write", "--conf-dir", host.etc)
        assert done.returncode == 1 and f"{host.path}/srv/bad/linod.sh is there already." in done.stderr

    @pytest.mark.claim("S10")
    def test_what_is_written_for_supervisor_can_be_read_whatever_the_umask(host):
        write = ("supervisor-config", "bad", "--write", "--conf-dir", host.etc)
        subprocess.run(["sh", "-c", 'umask 077; exec "$@"', "sh", *host.command(*write)], check=True, timeout=30)
        assert (host.path / "srv/bad/linod.sh").stat().st_mode & 0o777 == 0o755
        assert (host.etc / "linod-bad.conf").stat().st_mode & 0o777 == 0o600
        assert host.spawn(*write).returncode == 0

    @pytest.mark.claim("S7")
    def test_a_command_to_copy_harms_nobody(host, capsys):
        host.remember("bad", [task("ping")])
        for path in (host.var / "bad", *(host.var / "bad").iterdir()):
            os.chown(path, 33, -1)
        (host.var / "bad" / "$(reboot)").touch()
        _, out, _ = host.call(capsys, "check", "bad")
        assert f"chown --no-dereference www-data '{host.var}/bad/$(reboot)'" in out


@pytest.mark.claim("S10")
def test_variables_of_a_site_are_for_root_alone(host):
    site, given = HostSite(name="new"), adding.Particulars(variables={"PASSWORD": "x"}, settings="new.settings")
    before = os.umask(0)
    try:
        adding.make(site, host.directory("new"), dict(adding.files_for(site, given)))
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in host.etc.glob("new.*")} == {
        "new.env": 0o600,
        "new.toml": 0o644,
    }


@pytest.mark.claim("S9")
def test_a_daemon_of_another_site_is_not_asked(host, capsys):
    (host.var / "bad").mkdir()
    (host.var / "bad" / CONTROL).symlink_to(host.var / "good" / CONTROL)
    (host.run / "bad").mkdir()
    with daemon_says(host.var / "good", Done(text="paused")) as asked:
        code, _, err = host.call(capsys, "reload", "bad")
        assert (code, asked) == (75, []), err
        assert host.call(capsys, "reload", "good")[0] == 0


# Names


@pytest.mark.claim("S7")
def test_no_name_is_executed_when_it_is_completed(host):
    trap = host.path / "trap"
    host.remember("bad", [task("good"), task(f"$(touch {trap})"), task(f"`touch {trap}`"), task("g;reboot")])
    assert complete(host, "why", "bad", "") == ["good"]
    assert not trap.exists()


@pytest.mark.claim("S7")
def test_a_name_in_a_command_to_copy_is_quoted(host, capsys):
    host.remember("bad", [task("$(reboot)")], pauses=[("app.tasks.$(reboot)", 0, "", "")])
    assert "linodctl resume bad '$(reboot)'" in host.call(capsys, "why", "bad", "$(reboot)")[1]
    host.directory("$(reboot)")
    assert f" '{host.path}/srv/$(reboot)'\n" in host.call(capsys, "add", "--scan", host.path / "srv")[1]


def test_the_status_of_a_daemon_says_nothing_but_itself():
    text = "Id=a\nActiveState=failed\nStatusText=x\u2028ActiveState=active\x0bMainPID=1\x85Result=success\n"
    unit = units_in(text, ["a"])["a"]
    assert unit["ActiveState"] == "failed" and not unit["MainPID"] and not unit["Result"]


# Processes


@pytest.mark.claim("S8")
def test_a_pid_that_was_written_into_a_lock_is_nobody_to_end(tmp_path):
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "lock").write_text(f"{innocent.pid} {birth(innocent.pid)}\n")
        assert leftovers.find(tmp_path, [tmp_path]) == []
        assert leftovers.end_all(tmp_path, [tmp_path]) == []
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


if os.geteuid() == 0:  # others may not know who has locked what

    @pytest.mark.claim("S8")
    def test_a_pid_that_was_written_into_a_lock_is_nobody_to_name(host, capsys):
        (host.var / "bad").mkdir()
        (host.var / "bad/lock").write_text(f"{os.getpid()} {birth(os.getpid())}\n")
        code, out, _ = host.call(capsys, "sites", "--json")
        assert {one["site"]: one["state"] for one in json.loads(out)} == {"bad": "stopped", "good": "stopped"}
        code, out, err = host.call(capsys, "remove", "bad")
        assert (code, err) == (0, "")

    @pytest.mark.claim("S4")
    @pytest.mark.parametrize("name", [f"{FILE}-wal", f"{FILE}-shm"])
    def test_what_root_reads_a_history_with_is_given_to_nobody(name):
        """SQLite, as root, gives the files beside a database to its owner, whatever else they are called."""
        with CtlHost.open_to_all() as host:
            host.add("bad")
            host.remember("bad", [task("ping")])
            state, precious = host.var / "bad", host.path / "precious"
            with closing(sqlite3.connect(state / FILE)) as writer:
                writer.execute("BEGIN IMMEDIATE")  # as long as it is open, the others are there
                own(state, *state.iterdir())
                assert "ping" in host.spawn("list", "bad").stdout
                (state / name).unlink()
                precious.write_text("precious")
                precious.chmod(0o600)
                os.link(precious, state / name)
                host.spawn("list", "bad")
                assert (precious.stat().st_uid, precious.read_text()) == (0, "precious")

    @pytest.mark.claim("S5")
    def test_a_child_that_its_user_has_stopped_is_not_waited_for(monkeypatch):
        monkeypatch.setattr(accounts, "PATIENCE", 0.3)
        with pytest.raises(LinodError, match=r"has not answered within 0\.3 s"):
            accounts.in_child(find_account("nobody"), lambda: os.kill(os.getpid(), signal.SIGSTOP))
        assert accounts.in_child(find_account("nobody"), lambda: "x" * 1_000_000) == "x" * 1_000_000


def test_who_has_locked_a_site_is_found(tmp_path):
    (tmp_path / "lock").write_text(f"{os.getpid()} {birth(os.getpid())}\n")
    with (tmp_path / "lock").open() as lock:
        assert leftovers.holder_of(tmp_path) is None
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert leftovers.holder_of(tmp_path) == os.getpid()


def test_a_link_to_the_state_of_another_users_site_names_nobody(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/.linod").symlink_to(tmp_path)
    own(tmp_path / "site/.linod")
    (tmp_path / "lock").write_text(f"{os.getpid()} {birth(os.getpid())}\n")
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Who isn't root has made both.
        assert leftovers.find(tmp_path / "site") == ([] if os.geteuid() == 0 else [os.getpid()])


# The child goes on where its parent ends, so that there is always one to be found.
AGAIN = """
import os, signal, time
def again(*_):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # Python forgets what comes during a fork
    if os.path.exists("again") and os.fork():
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
signal.signal(signal.SIGTERM, again)
print("up", flush=True)
while os.path.exists("again"):
    time.sleep(0.01)
"""


def test_one_that_is_started_again_and_again_is_not_ended_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "MOST_ROUNDS", 3)
    (tmp_path / "manage.py").write_text(AGAIN)
    (tmp_path / "again").touch()
    process = subprocess.Popen(["/usr/bin/python3", "manage.py", "linod"], cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"up\n"
        with pytest.raises(LinodError, match="run anew each time"):
            leftovers.end_all(tmp_path, [])
    finally:
        (tmp_path / "again").unlink()
        process.wait(10)
        monkeypatch.setattr(leftovers, "MOST_ROUNDS", 100)
        leftovers.end_all(tmp_path, [])
        process.stdout.close()


# Files


# Exchanges a file and a pipe as fast as it can.
EXCHANGE = """
import os, sys
path = sys.argv[1]
os.link(path, f"{path}.file")
os.mkfifo(f"{path}.pipe")
while True:
    for kind in ("pipe", "file"):
        os.link(f"{path}.{kind}", f"{path}.next")
        os.rename(f"{path}.next", path)
"""


@contextmanager
def exchanged(path):
    """Within the block, a path is now that of a file and now that of a pipe."""
    process = subprocess.Popen([sys.executable, "-c", EXCHANGE, path])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.claim("S5")
@pytest.mark.parametrize("mode", [0o400, 0o600])
@pytest.mark.parametrize("ending", OPENED)
def test_a_pipe_in_the_place_of_what_a_history_is_read_with_is_told(host, ending, mode):
    """SQLite opens several files, and each in two ways where it may not write."""
    host.remember("bad", [task("ping")])
    path = host.var / "bad" / f"{FILE}{ending}"
    for name in (path, Path(f"{host.var}/bad/{FILE}-wal")):
        name.unlink(missing_ok=True)
        name.touch()
    path.unlink()
    os.mkfifo(path, mode)
    own(path)
    done = host.spawn("list", "bad")
    assert done.returncode == 1 and f"The history {path} is no file. Put it aside to begin a new one." in done.stderr


@pytest.mark.claim("S5")
def test_a_history_that_cannot_be_opened_is_not_waited_for(tmp_path, monkeypatch):
    """A pipe may have been laid there in the instant after it was seen to be a file."""
    monkeypatch.setattr(reading, "WITHIN", 0.3)
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(HistoryError, match=r"cannot be read within 0\.3 s"):
        reading.LookApart(tmp_path / FILE)
    assert not children(os.getpid())


@pytest.mark.claim("S5")
def test_a_history_that_is_exchanged_again_and_again_is_not_waited_for(host, monkeypatch):
    """Within a second or two it is a file when it is looked at, and a pipe when it is opened."""
    monkeypatch.setattr(reading, "WITHIN", 0.3)
    host.remember("bad", [task("ping")])

    def is_caught():
        try:
            with history_of(HostSite(name="bad")) as archive:
                assert len(archive.tasks()) == 1
        except HistoryError as error:
            return "cannot be read within 0.3 s" in error.message

    with exchanged(host.var / "bad" / FILE):
        for _ in range(3):
            until(is_caught, timeout=60)
    assert not children(os.getpid())


@pytest.mark.claim("S5")
def test_what_is_no_file_is_not_even_opened(tmp_path):
    """Some devices act when they are opened: a watchdog then reboots the host."""
    os.mkfifo(tmp_path / "linod.sh")
    libc = ctypes.CDLL(None)
    with open(libc.inotify_init1(os.O_NONBLOCK), "rb", buffering=0) as opened_files:
        assert libc.inotify_add_watch(opened_files.fileno(), bytes(tmp_path / "linod.sh"), IN_OPEN) > 0
        with pytest.raises(Unusable, match="is no file"):
            read_file(tmp_path / "linod.sh")
        assert opened_files.read() is None


def test_a_script_with_a_zero_byte_is_no_text(tmp_path):
    (tmp_path / "linod.sh").write_bytes(b"cd '/srv/\0'\npython manage.py linod\n")
    with pytest.raises(Unusable, match="a byte 0"):
        read_file(tmp_path / "linod.sh")


def test_a_line_of_an_environment_file_ends_where_systemd_ends_it():
    assert dict(parse_environment("A=x\u2028y\x85z\r\nB=\x0b\x1cw\n")) == {"A": "x\u2028y\x85z", "B": "w"}


def test_a_state_that_is_too_deep_to_be_removed_is_told(host, capsys):
    deep = host.var / "bad"
    deep.mkdir()
    place = os.open(deep, os.O_PATH)
    for _ in range(1200):
        os.mkdir("d", dir_fd=place)
        before, place = place, os.open("d", os.O_PATH, dir_fd=place)
        os.close(before)
    os.close(place)
    try:
        code, _, err = host.call(capsys, "remove", "bad", "--purge")
        assert code == 0 or f"rm -rf {deep}" in err or "Too many open files" in err
    finally:
        subprocess.run(["rm", "-rf", deep], check=True)


def test_variables_that_double_each_other_fill_no_memory():
    start = understand("A=aaaaaaaa\n" + "A=$A$A\n" * 22 + "cd /srv/$A\nexec python manage.py linod", "/")
    assert len(start.directory) < 10_000


@pytest.mark.timeout(20)
def test_a_long_row_of_exec_is_one():
    assert understand("exec " * 10_000 + "python manage.py linod", "/srv").directory == "/srv"


@pytest.mark.timeout(20)
def test_a_long_text_is_cut_at_once():
    for character, kept in (("x", 9), ("界", 4)):
        assert cut(character * 1_000_000, 10) == character * kept + "…"
    assert sum(fit([10**8, 10**8, 5], 80)) <= 80


# Histories


def remembered(host, *statements):
    """A history of the bad site in which somebody has written by himself."""
    host.remember("bad", [task("ping"), task("tidy", at="20:00")], [run("ping", "failed"), run("ping")])
    with closing(sqlite3.connect(host.var / "bad" / FILE)) as db, db:
        for statement in statements:
            db.execute(*statement)


def seen(host, capsys):
    """What the commands about all sites say; the good one is always there."""
    told = [host.call(capsys, command, "--json") for command in ("sites", "status")]
    for code, out, err in told:
        assert code in (0, 1, 2, 3) and err == ""
        assert {one["site"] for one in json.loads(out)} == {"bad", "good"}
    return told


GOOD = task("ping").as_dict()


@pytest.mark.claim("S6")
@pytest.mark.parametrize(
    "changed",
    [
        *("[" * 100_000, "[]", "null", '"x"', "NaN", '{"id": 7}', b"\xff"),
        *({**GOOD, "id": 7}, {**GOOD, "id": []}, {**GOOD, "id": "app.tasks.tidy"}, {**GOOD, "label": ["x"]}),
        *({**GOOD, "text": None}, {**GOOD, "text": ""}, {**GOOD, "source": {}}, {**GOOD, "overridden": [1]}),
        *({**GOOD, "schedule": 7}, {**GOOD, "schedule": {**GOOD["schedule"], "seconds": 1e300}}),
        {**task("ping", at="20:00").as_dict(), "schedule": {"kind": "wallclock"}},
        {**GOOD, "schedule": {**task("ping", at="20:00").as_dict()["schedule"], "zone": None}},
        {**GOOD, "schedule": {**task("ping", at="20:00").as_dict()["schedule"], "spread": "x"}},
    ],
)
def test_a_task_that_linod_has_not_written_is_left_out(host, capsys, changed):
    text = json.dumps(changed) if isinstance(changed, dict) else changed
    remembered(host, ("UPDATE tasks SET task = ? WHERE id = 'app.tasks.ping'", [text]))
    for words in (["list", "bad"], ["why", "bad", "tidy"], ["history", "bad"], ["show", "bad", "1"]):
        code, out, err = host.call(capsys, *words)
        assert (code, err) == (0, "") and ("tidy" in out or words[0] in ("history", "show"))
    seen(host, capsys)


@pytest.mark.claim("S6")
@pytest.mark.parametrize("value", [None, "soon", 2**62, -(2**62), 10**17, b""])
@pytest.mark.parametrize("column", ["since", "accounted"])
def test_instants_that_linod_has_not_written_hide_no_site(host, capsys, column, value):
    free = ["CREATE TABLE other AS SELECT * FROM tasks", "DROP TABLE tasks", "ALTER TABLE other RENAME TO tasks"]
    remembered(host, *([one] for one in free), (f"UPDATE tasks SET {column} = ?", [value]))
    seen(host, capsys)
    assert host.call(capsys, "list", "bad")[0] == 0


@pytest.mark.claim("S6")
@pytest.mark.parametrize("column", ["outcome", "started", "due", "task", "reason", "trigger"])
@pytest.mark.parametrize("value", ["'x'", "x'ff'", "9e999", f"{2**62}"])
def test_runs_that_linod_has_not_written_hide_no_site(host, capsys, column, value):
    remembered(host, ["DROP INDEX runs_once"], [f"UPDATE runs SET {column} = {value}"])
    seen(host, capsys)


def test_a_lock_of_a_time_that_no_clock_shows_is_one_all_the_same():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as state:  # a file system that keeps such times
        held = lock_site(Path(state))
        for stamp in (2**50, -(2**50)):
            os.utime(held, (stamp, stamp))
            assert who_runs(Path(state))[0] == os.getpid()
        os.close(held)
