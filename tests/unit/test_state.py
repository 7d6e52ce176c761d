"""Where a site keeps its history, and who holds its lock."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from linod import sites
from linod.daemon.lock import lock_site, require_no_other_lock
from linod.errors import EXIT_CONFIGURATION, EXIT_TRY_LATER, ConfigurationError, HistoryError, SiteLocked
from linod.launch import Launch, Place
from linod.linux import birth
from linod.sites import linked_name
from linod.state import OWN, find_state, make_state, site_name, user_name, why_unreadable

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site's directory, on a host whose /etc and /var are below tmp_path."""
    monkeypatch.setattr(sites, "SITES", tmp_path / "etc")
    monkeypatch.setattr(sites, "STATES", tmp_path / "var")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    directory = tmp_path / "projects" / "myprj"
    directory.mkdir(parents=True)
    return directory


def link(site: Path, name: str) -> None:
    sites.SITES.mkdir(exist_ok=True)
    (sites.SITES / name).symlink_to(site)


# The state directory


def test_a_site_of_its_own_keeps_its_state_beside_its_code(site: Path) -> None:
    assert find_state(site) == site / ".linod"
    assert site_name(site) == "myprj"
    assert linked_name(site) is None


def test_a_link_names_the_site_and_leads_to_its_state(site: Path, tmp_path: Path) -> None:
    link(site, "shop")
    assert site_name(site) == "shop"
    assert find_state(site) == tmp_path / "var" / "shop"


def test_a_link_is_found_by_whatever_path_the_site_was_started(site: Path, tmp_path: Path) -> None:
    link(site, "shop")
    (tmp_path / "elsewhere").symlink_to(site.parent)
    assert linked_name(tmp_path / "elsewhere" / "myprj") == "shop"
    assert linked_name(site.parent) is None


def test_a_link_that_leads_nowhere_does_no_harm(site: Path, tmp_path: Path) -> None:
    link(tmp_path / "gone", "a")
    link(site, "b")
    assert linked_name(site) == "b"
    assert linked_name(tmp_path / "gone") is None


def test_of_two_links_the_first_by_name_counts(site: Path) -> None:
    link(site, "b")
    link(site, "a")
    assert site_name(site) == "a"


def test_the_service_manager_has_the_first_word(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link(site, "shop")
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path / 'given'}:/second")
    assert find_state(site) == tmp_path / "given"


def test_a_new_state_directory_is_open_to_the_group_of_the_site(site: Path) -> None:
    made = make_state(site)
    assert made == site / ".linod"
    assert made.stat().st_mode & 0o7777 == 0o2770
    assert made.stat().st_gid == site.stat().st_gid
    assert make_state(site) == made


def test_two_that_start_at_the_same_time_make_one_state_directory(site: Path) -> None:
    with ThreadPoolExecutor() as pool:
        for _ in range(200):
            together = Barrier(2)

            def make(together: Barrier = together) -> Path:
                together.wait()
                return make_state(site)

            one, other = pool.submit(make), pool.submit(make)
            assert one.result() == other.result() == site / OWN
            (site / OWN).rmdir()


def test_a_directory_that_only_the_environment_named_is_found_without_it(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "given"))
    assert make_state(site) == tmp_path / "given"
    monkeypatch.delenv("STATE_DIRECTORY")
    assert find_state(site).resolve() == tmp_path / "given"
    assert make_state(site).resolve() == tmp_path / "given"


def test_a_directory_that_the_environment_moved_is_found_as_well(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("before", "after"):
        monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / name))
        make_state(site)
    monkeypatch.delenv("STATE_DIRECTORY")
    assert find_state(site).resolve() == tmp_path / "after"


def test_a_pointer_to_a_directory_that_is_gone_is_replaced(site: Path, tmp_path: Path) -> None:
    (site / ".linod").symlink_to(tmp_path / "gone")
    assert make_state(site) == site / ".linod"
    assert (site / ".linod").is_dir() and not (site / ".linod").is_symlink()


def test_a_linked_site_needs_no_pointer(site: Path, tmp_path: Path) -> None:
    link(site, "shop")
    assert make_state(site) == tmp_path / "var" / "shop"
    assert not os.path.lexists(site / ".linod")


def test_a_state_directory_that_cannot_be_made_is_told_in_words(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "file" / "below"))
    with pytest.raises(HistoryError, match=r"file/below cannot be made: Not a directory\. .*STATE_DIRECTORY"):
        make_state(site)


def test_why_a_file_cannot_be_read_names_who_can(tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.touch(0o640)
    owners = "root" if file.owner() == "root" else f"root, {file.owner()}"
    assert f"{file} can be read by {owners} and members of the group {file.group()}, not" in why_unreadable(file)
    file.chmod(0o600)
    assert f"{file} can be read by {owners}, not by" in why_unreadable(file)


# The lock

HOLD = """
import sys, time
from pathlib import Path
from linod.daemon.lock import lock_site, require_no_other_lock
lock_site(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""

# A daemon that dies alone: its worker, which inherits the lock, lives on for a moment.
DIE_ALONE = """
import os, sys, time
from pathlib import Path
from linod.daemon.lock import lock_site, require_no_other_lock
fd = lock_site(Path(sys.argv[1]))
if os.fork() == 0:
    sys.stdin.read(1)
    os._exit(0)
print("locked", flush=True)
"""


@pytest.fixture
def start() -> Iterator[object]:
    started: list[subprocess.Popen[bytes]] = []

    def start_(program: str, state: Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(state)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout and select.select([process.stdout], [], [], 10)[0]
        assert process.stdout.readline() == b"locked\n"
        return process

    yield start_
    for process in started:
        with process:
            process.kill()


def test_a_second_daemon_is_told_who_holds_the_lock(tmp_path: Path, start) -> None:  # type: ignore[no-untyped-def]
    first = start(HOLD, tmp_path)
    with pytest.raises(SiteLocked, match=f"being run already, by process {first.pid}. Stop that one first") as caught:
        lock_site(tmp_path)
    assert caught.value.exit_code == EXIT_TRY_LATER == 75
    first.send_signal(signal.SIGKILL)
    first.wait()
    os.close(lock_site(tmp_path))


def test_a_daemon_refuses_a_site_whose_daemon_is_older_than_its_link(tmp_path: Path, start) -> None:  # type: ignore[no-untyped-def]
    """Each of the two has a lock of its own: where the site had its state before it was added, and where it has now."""
    before, now = tmp_path / "site" / OWN, tmp_path / "state"
    before.mkdir(parents=True)
    now.mkdir()
    first = start(HOLD, before)
    place = Place(directory=str(before.parent), python=sys.executable)
    launch = Launch(place=place, name="shop", state=str(now), linked=True)
    second = subprocess.run(launch.command(), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert second.returncode == EXIT_TRY_LATER
    assert f"being run already, by process {first.pid}, which has locked {before}." in second.stdout + second.stderr
    first.kill()
    first.wait()
    require_no_other_lock(before.parent, now)


def test_a_state_that_a_link_leads_to_is_one_and_the_same(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / OWN).symlink_to(state)
    fd = lock_site(state)
    require_no_other_lock(tmp_path, state)
    os.close(fd)


def test_a_successor_waits_for_the_last_worker(tmp_path: Path, start) -> None:  # type: ignore[no-untyped-def]
    daemon = start(DIE_ALONE, tmp_path)
    daemon.wait()
    successor = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert successor.stdout and daemon.stdin
        assert not select.select([successor.stdout], [], [], 0.4)[0], "the worker still has the lock"
        daemon.stdin.close()
        assert select.select([successor.stdout], [], [], 10)[0]
        assert successor.stdout.readline() == b"locked\n"
    finally:
        successor.kill()
        successor.communicate()


def test_the_holder_is_named_by_pid_and_birth(tmp_path: Path) -> None:
    fd = lock_site(tmp_path)
    try:
        assert (tmp_path / "lock").read_text() == f"{os.getpid()} {birth(os.getpid())}\n"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_lock_file_of_another_user_is_told_in_words(tmp_path: Path) -> None:
    fd = lock_site(tmp_path)
    os.close(fd)
    (tmp_path / "lock").chmod(0o400)
    if os.getuid() == 0:
        (tmp_path / "lock").chmod(0)
        os.seteuid(NOBODY)
    reachable = os.access(tmp_path, os.X_OK, effective_ids=True)
    try:
        with pytest.raises(ConfigurationError, match=f"lock .*cannot be opened by {user_name()}") as caught:
            lock_site(tmp_path)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    assert caught.value.exit_code == EXIT_CONFIGURATION == 78
    assert reachable or "belongs to" in str(caught.value)
