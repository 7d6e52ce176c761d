"""What the daemon tells systemd, over a real datagram socket."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from linod.daemon.notify import Notifier, watchdog_interval


class Manager:
    """The end of the socket that systemd has."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(0)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return messages


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    made = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield made
    made.socket.close()


def test_systemd_hears_how_it_goes(manager: Manager) -> None:
    notifier = Notifier()
    notifier.ready()
    notifier.status("6 tasks. Next: ping at 20:00.")
    notifier.stopping()
    assert manager.heard() == ["READY=1", "STATUS=6 tasks. Next: ping at 20:00.", "STOPPING=1"]
    assert not notifier.complaint()


def test_a_status_is_told_only_when_it_is_another_one(manager: Manager) -> None:
    notifier = Notifier()
    for text in ("a", "a", "b", "b", "a"):
        notifier.status(text)
    assert manager.heard() == ["STATUS=a", "STATUS=b", "STATUS=a"]


@pytest.mark.claim("S11")
def test_a_status_is_one_line_and_cannot_say_anything_else(manager: Manager) -> None:
    """Messages of databases have several lines, and each line of a notification is a message of its own."""
    notifier = Notifier()
    notifier.status("waiting for the site: OperationalError: connection failed\n\tIs it running?\nREADY=1\n")
    notifier.failed("no\nREADY=1", 22)
    notifier.status("caf\udce9")
    notifier.status("\x1b]0;owned\x07 \x9b2J \u202egnp.exe")
    assert manager.heard() == [
        "STATUS=waiting for the site: OperationalError: connection failed Is it running? READY=1",
        "STATUS=no READY=1\nERRNO=22",
        "STATUS=caf\\udce9",
        "STATUS=\\x1b]0;owned\\x07 \\x9b2J \\u202egnp.exe",
    ]


@pytest.mark.claim("S31")
def test_what_systemd_says_to_the_daemon_is_for_no_child(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = Notifier()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)
    notifier.ready()
    assert manager.heard() == ["READY=1"]
    assert notifier.interval == 10


def test_the_watchdog_is_fed_by_turns_and_not_by_each(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1500000")
    notifier = Notifier()
    assert notifier.next_ping() == 0
    for _ in range(10):
        notifier.turn_finished()
    assert manager.heard() == ["WATCHDOG=1"]
    wait = notifier.next_ping()
    assert wait is not None and 0 < wait <= 0.5
    time.sleep(wait)
    notifier.turn_finished()
    assert manager.heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [
        ("30000000", None, 10.0),
        pytest.param("30000000", str(os.getpid()), 10.0, id="ours"),
        ("30000000", "1", 0.0),  # it watches another process
        ("0", None, 0.0),
        (None, None, 0.0),
        ("often", None, 0.0),
    ],
)
def test_the_interval_of_the_watchdog(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, interval: float
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert watchdog_interval() == interval


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
        monkeypatch.delenv(name, raising=False)
    notifier = Notifier()
    notifier.ready()
    notifier.status("x")
    notifier.turn_finished()
    assert notifier.complaint() == "" and notifier.next_ping() is None and not notifier.wanted


def test_an_abstract_socket_is_one_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"linod-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    Notifier().ready()
    assert manager.heard() == ["READY=1"]
    manager.socket.close()


def test_a_notification_that_systemd_asked_for_and_that_fails_is_told_once(manager: Manager, tmp_path: Path) -> None:
    notifier = Notifier()
    manager.socket.close()
    for text in ("a", "b"):
        notifier.status(text)
    assert notifier.complaint() == "systemd wants to be notified, but that fails: Connection refused."
    notifier.status("c")
    assert notifier.complaint() == ""


def test_a_socket_that_is_not_there_is_a_complaint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notifier = Notifier()
    notifier.ready()
    assert notifier.complaint().startswith("systemd wants to be notified, but that fails: ")


def test_a_status_may_be_in_any_language(manager: Manager) -> None:
    """The library writes Latin-1, and systemd reads nothing but UTF-8."""
    Notifier().status("отправить_почту läuft seit 20:00 …")
    assert manager.heard() == ["STATUS=отправить_почту läuft seit 20:00 …"]


def test_a_status_is_cut_where_nobody_would_read_on(manager: Manager) -> None:
    Notifier().status("x" * 100_000)
    [message] = manager.heard()
    assert len(message) < 500 and message.endswith("x…")


def test_a_reload_is_told_with_its_time(manager: Manager) -> None:
    """systemd 257 waits for ever for the end of a reload whose time it was not told."""
    before = time.monotonic()
    notifier = Notifier()
    notifier.reloading()
    notifier.ready()
    reloading, ready = manager.heard()
    assert ready == "READY=1" and reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert before <= int(reloading.rpartition("=")[2]) / 1e6 + 1e-6 <= time.monotonic()


def test_more_time_is_asked_for_in_microseconds(manager: Manager) -> None:
    Notifier().extend(90.5)
    assert manager.heard() == ["EXTEND_TIMEOUT_USEC=90500000"]


def test_a_manager_that_does_not_read_keeps_nobody_waiting_and_misses_nothing_that_matters(manager: Manager) -> None:
    notifier = Notifier()
    for number in range(1000):  # its queue takes a few of them
        notifier.status(str(number))
    notifier.ready()
    heard = manager.heard()
    notifier.turn_finished()
    heard += manager.heard()
    notifier.turn_finished()
    heard += manager.heard()
    assert heard[-2:] == ["STATUS=999", "READY=1"] and len(heard) < 1000
    assert notifier.complaint() == ""
