"""The settings, and what one process of linod tells the next one it executes."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from linod.conf import Settings
from linod.errors import ConfigurationError
from linod.launch import Launch, Place, clean_environment
from linod.linux import birth, boot_id, children, descendants, session, uptime


def test_a_site_without_settings_has_the_defaults() -> None:
    assert Settings.from_mapping({}) == Settings()


def test_settings_are_taken_from_a_dictionary() -> None:
    settings = Settings.from_mapping({"max_parallel": 8, "idle_worker": 5, "fork_server": False, "log_runs": "all"})
    assert (settings.max_parallel, settings.idle_worker, settings.fork_server) == (8, 5, False)


def test_no_output_and_no_lines_may_be_wanted() -> None:
    Settings.from_mapping({"keep_output_kib": 0, "log_lines": 0, "idle_worker": 0, "keep_failures_days": 0})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_paralel": 8}, r"LINOD has no setting 'max_paralel'. It knows max_parallel, "),
        ({"max_parallel": "8"}, r"LINOD\['max_parallel'\] = '8' is not a whole number. The default is \d+"),
        ({"max_parallel": 8.0}, "is not a whole number"),
        ({"max_parallel": True}, "is not a whole number"),
        ({"fork_server": 1}, "is not true or false"),
        ({"slow_after": "1s"}, "is not a number"),
        ({"slow_after": None}, "is not a number"),
        ({"log_runs": "some"}, r"LINOD\['log_runs'\] = 'some'. Write 'changes' or 'all'"),
        ({"max_parallel": 0}, "too small. Write a number from 1"),
        ({"max_running": -1}, "too small"),
        ({"keep_days": 0}, "too small"),
        ({"slow_after": -0.1}, "too small. Write a number from 0"),
        ({"keep_output_kib": -1}, "too small"),
        ({"log_lines": -1}, "too small"),
        ({"slow_after": float("nan")}, "too small"),
        ({"drain_timeout": float("inf")}, "too large"),
        ({"keep_days": 10**12}, "too large"),
    ],
)
def test_a_wrong_setting_is_refused_in_words(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        Settings.from_mapping(given)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("value", [["https://example.org/geheim"], b"https://example.org/geheim", 7, None])
def test_an_address_of_a_wrong_type_is_refused_and_not_repeated(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^LINOD\['alert_url'\] is no text but ") as caught:
        Settings.from_mapping({"alert_url": value})
    assert "geheim" not in str(caught.value)


PLACE = Place(directory="/srv/é site", python="/srv/é site/env/bin/python", manage="/srv/é site/manage.py")


def test_a_launch_is_understood_by_the_daemon_it_starts() -> None:
    launch = Launch(place=PLACE, name="site", state="/var/lib/linod/site", once=True, site_fd=7, site_pid=8)
    command = launch.command()
    assert command[:2] == [sys.executable, "-P"]
    assert command[2].endswith("/linod/daemon")
    assert Launch.from_argument(command[3]) == launch


def test_a_process_of_the_site_is_started_by_its_own_interpreter() -> None:
    command = PLACE.command("worker")
    assert command[0] == "/srv/é site/env/bin/python"
    assert command[2].endswith("/linod/site") and command[3] == "worker"
    assert Place(**json.loads(command[4])) == PLACE


def test_what_systemd_says_to_the_daemon_is_for_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "PGHOST"):
        monkeypatch.setenv(name, "1")
    environment = clean_environment()
    assert environment["PGHOST"] == "1" and "PATH" in environment
    assert not {name for name in environment if name.startswith(("NOTIFY", "WATCHDOG", "LISTEN"))}


# The kernel


def test_what_the_kernel_tells_of_processes() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        while not children(child.pid):
            assert child.poll() is None
        [grandchild] = children(child.pid)
        assert child.pid in children(os.getpid())
        assert {child.pid, grandchild} <= set(descendants(os.getpid()))
        assert session(grandchild) == session(child.pid) == child.pid != session(os.getpid())
        born = birth(child.pid)
        ticks = round(uptime() * os.sysconf("SC_CLK_TCK"))  # a product of floats may be a little too small
        assert born is not None and birth(os.getpid()) < born <= ticks  # type: ignore[operator]
    finally:
        os.killpg(child.pid, 9)
        child.wait()
    assert birth(child.pid) is None and session(child.pid) is None and children(child.pid) == []


NAMED = """
import os, sys
from linod.linux import overwrite_arguments
overwrite_arguments(sys.argv[1])
print(open("/proc/self/cmdline").read().rstrip("\\0"), os.environ["KEPT"], sys.argv[1:], sep="|")
"""


@pytest.mark.parametrize("title", ["linod@shop: checkdata", "linod@shop: почта", "linod@shop: " + "x" * 10_000])
def test_a_process_is_called_what_it_does_and_forgets_nothing(title: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NAMED, title],
        env={**os.environ, "KEPT": "kept"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    shown, kept, arguments = done.stdout.rstrip().split("|")
    assert title.startswith(shown) or shown == title
    assert (kept, arguments) == ("kept", f"[{title!r}]")


def test_the_boot_id_stays_the_same() -> None:
    assert boot_id() == boot_id() != ""
