"""Any message: it is decoded or refused, and a daemon that gets it lives, is not confused, and does not grow.

The daemons are real ones. Callers, a worker and a fork server tell them anything; then a caller asks how they do.
"""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from linod import schedules
from linod.caller import ask, connect, follow
from linod.errors import WireError
from linod.linux import descendants
from linod.runs import Outcome
from linod.task import Task
from linod.wire import LARGEST, Ask, Done, Ended, Message, Refused, Reload, Resume, RunNow, Standing, decode, encode
from tests.support.site import Daemon, Site, until
from tests.support.texts import changed_bytes, changed_values, encodable, numbers, values

# How often a daemon must answer: each of these examples takes much longer than others.
few = settings(max_examples=settings().max_examples // 5)
very_few = settings(max_examples=max(1, settings().max_examples // 25))
TOLERATED_MIB = 8  # of growth: what an allocator keeps, and what there is of history
WARM = 20  # examples before its memory is taken note of
THIS_RUN = 4_242_424_242  # in a message of a worker, the number of its run
LARGEST_PID = 1 << 22

# Messages

NAMES = {kind.__name__: kind for kind in get_args(Message)}
TASK = Task(id="app.tasks.new", label="new", text="Every 1 hour do new()", schedule=schedules.Interval(3600, 1.0))
words = st.sampled_from(["app.tasks.ping", "ping", "new", "app.tasks.none", *Outcome]) | encodable
tasks = st.lists(changed_values(st.just(TASK.as_dict())) | st.just(TASK.as_dict()), max_size=2)
whole = st.integers(0, 9) | st.integers(-(2**63), 2**63)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "int": whole,
    "float": numbers,
    "float | None": st.none() | numbers,
    "str": words,
    "bool": st.booleans(),
    "list[str]": st.lists(words, max_size=3),
    "list[dict[str, Any]]": tasks,
    "dict[str, Any]": st.dictionaries(words, values, max_size=3),
}
RUNS = whole | st.just(THIS_RUN)
packed: dict[str, st.SearchStrategy[list[Any]]] = {
    name: st.fixed_dictionaries(
        {each.name: RUNS if each.name == "run" else LIKELY[str(each.type)] for each in fields(kind)}
    ).map(lambda fields, name=name: [name, fields])
    for name, kind in NAMES.items()
}

ASKED = ("Amend", "Amend", "RunNow", "Pause", "Resume", "Cancel", "Visit")  # what changes something
LARGE = {"brackets": b"[" * 50_000, "bytes": b"\xff" * LARGEST, "braces": b'["Ask",' + b'{"a":' * 900}


def as_json(value: Any) -> bytes:
    return json.dumps(value, default=str).encode()[:LARGEST]


@st.composite
def packets(draw: st.DrawFn, *names: str) -> bytes:
    """Messages of these kinds as they are, with something wrong, and what is none."""
    return draw(right_and_wrong(names))


@cache
def right_and_wrong(names: tuple[str, ...]) -> st.SearchStrategy[bytes]:
    right = st.sampled_from(names or sorted(NAMES)).flatmap(packed.__getitem__)
    return st.one_of(
        right.map(as_json),
        changed_values(right).map(as_json),
        changed_bytes(right.map(as_json)),
        values.map(as_json),
        st.binary(min_size=1, max_size=100),
        st.sampled_from(sorted(LARGE)).map(lambda name: LARGE[name]),
    ).filter(harms_nobody)


def harms_nobody(packet: bytes) -> bool:
    """Whether it names no process of this machine, which the daemon would then have a right to end."""
    try:
        _kind, fields = json.loads(packet)
        pid = fields["pid"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return True
    return not isinstance(pid, int) or not 1 < pid <= LARGEST_PID


@given(packets())
@example(b"[" * 100_000)
@example(b'["Ended",{"run":1,"outcome":[]}]')
@example(b'["Forked",{"serial":1,"pid":1}]')
@example(b'["Hello",{"pid":-1,"memory":1}]')
@example(b'["Ended",{"run":1,"outcome":"failed","cpu":Infinity}]')
@example(b'["Amend",{"tasks":[],"gone":[[]]}]')
@example(b'["Ping",{"\\n":null}]')
def test_a_packet_is_a_message_or_refused(packet: bytes) -> None:
    try:
        message = decode(packet)
    except WireError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
        return
    for each in fields(message):
        assert hasattr(message, each.name)
    with suppress(ValueError):  # NaN is no other NaN's equal
        again = decode(encode(message))
        assert repr(again) == repr(message)


# Daemons

TASKS = '''
import os, socket
import linod

def say(fd, packets):
    """Say this to whoever is at the other end, where the descriptor is that of a conversation."""
    try:
        end = socket.socket(fileno=os.dup(fd))
    except OSError:
        return
    with end:
        if end.family == socket.AF_UNIX and end.type == socket.SOCK_SEQPACKET:
            for packet in packets:
                try:
                    end.send(packet, socket.MSG_DONTWAIT)
                except OSError:
                    pass

def packets(name, run=""):
    try:
        with open(name) as file:
            return [bytes.fromhex(line).replace(b"THIS_RUN", run.encode()) for line in file]
    except FileNotFoundError:
        return []

say(3, packets("of-fork-server"))

@linod.task(at="03:00")
def ping():
    print("pong")

@linod.task(at="03:00", timeout=10, grace=1)
def hostile():
    for name in os.listdir("/proc/self/fd"):
        say(int(name), packets("of-worker", os.environ["LINOD_RUN"]))
'''


class Served:
    """A site whose daemon is started again when it has died, so that the next example finds one."""

    def __init__(self, path: Path) -> None:
        self.site = Site(path, tasks=TASKS.replace("THIS_RUN", str(THIS_RUN)))
        self._daemon: Daemon | None = None
        self._examples = self._memory = 0

    @contextmanager
    def daemon(self) -> Iterator[Daemon]:
        """A daemon that must be the same, answer, and have its size at the end."""
        if self._daemon is None or self._daemon.process.poll() is not None:
            self._daemon = self.site.daemon()
            self._daemon.wait_for("Next: ")
            self._examples = 0
        daemon = self._daemon
        yield daemon
        assert daemon.process.poll() is None, daemon.output()[-4000:]
        answer = ask(self.site.path, Ask())
        assert isinstance(answer, Standing) and answer.pid == daemon.pid
        self.site.runs()  # can be read
        self._examples += 1
        if self._examples == WARM:
            self._memory = private(daemon.pid)
        assert self._examples <= WARM or private(daemon.pid) < self._memory + (TOLERATED_MIB << 10)

    def write(self, name: str, packets: list[bytes]) -> None:
        (self.site.path / name).write_text("".join(f"{packet.hex()}\n" for packet in packets))

    def end(self) -> None:
        if self._daemon is not None:
            with suppress(AssertionError):
                self._daemon.terminate()
            if self._daemon.process.poll() is None:
                self._daemon.kill()


def private(pid: int) -> int:
    """KiB of memory that nobody shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


@pytest.fixture
def served() -> Iterator[Served]:
    """One for all examples of a test."""
    with tempfile.TemporaryDirectory() as directory:
        served = Served(Path(directory))
        yield served
        served.end()


@few
@given(st.lists(st.lists(packets() | packets(*ASKED), min_size=1, max_size=4), min_size=1, max_size=4))
def test_callers_may_say_anything(served: Served, conversations: list[list[bytes]]) -> None:
    with served.daemon():
        channels = [connect(served.site.path) for _conversation in conversations]
        for channel, conversation in zip(channels, conversations, strict=True):
            for packet in conversation:
                with suppress(OSError):  # it has hung up
                    channel.send(packet, socket.MSG_DONTWAIT)
        for channel in channels:
            channel.close()


@few
@given(tasks, st.lists(words | values, max_size=2), st.sampled_from(["RunNow", "Pause"]))
@example([TASK.as_dict() | {"id": None}, TASK.as_dict() | {"id": 5}], [], "RunNow")
@example([TASK.as_dict() | {"id": []}], [], "RunNow")
@example([TASK.as_dict() | {"label": 5, "text": None}], [], "Pause")
@example([TASK.as_dict() | {"schedule": schedules.Interval(3600).as_dict()}], [], "RunNow")
@example([], [[]], "RunNow")
def test_tasks_may_be_amended_by_anything(served: Served, amended: list[Any], gone: list[Any], then: str) -> None:
    said = [["Amend", {"tasks": amended, "gone": gone}], [then, {"task": "new", "by": "", "reason": ""}]]
    with served.daemon():
        for packet in map(
            as_json, [*said, ["RunNow", {"task": "new", "by": ""}], ["Resume", {"task": "new", "by": ""}]]
        ):
            with connect(served.site.path) as channel, suppress(OSError):
                channel.send(packet)
                channel.recv(LARGEST)


def test_workers_and_fork_servers_are_heard(served: Served) -> None:
    """Or the tests below would prove nothing."""
    with served.daemon():
        said = as_json(["Ended", {"run": THIS_RUN, "outcome": "failed", "reason": "of its own"}])
        served.write("of-worker", [said])
        *_before, last = follow(served.site.path, RunNow(task="hostile", by="somebody"))
        assert isinstance(last, Ended) and last.reason == "of its own"
        served.write("of-fork-server", [as_json(["NotLoaded", {"reason": "of its own", "permanent": False}])])
        answer = ask(served.site.path, Reload(), patience=None)
        assert isinstance(answer, Refused) and "of its own" in answer.reason


@few
@example([as_json(["Progress", {"run": THIS_RUN, "done": 10**400, "total": None, "text": ""}])])
@given(st.lists(packets("Ended", "Progress", "Hello", "Begin", "Pong"), min_size=1, max_size=5))
def test_a_worker_may_say_anything(served: Served, told: list[bytes]) -> None:
    with served.daemon():
        served.write("of-worker", told)
        *_before, last = follow(served.site.path, RunNow(task="hostile", by="somebody"))
        assert isinstance(last, Ended)
        *_before, last = follow(served.site.path, RunNow(task="ping", by="somebody"))
        assert isinstance(last, Ended) and last.outcome == Outcome.SUCCEEDED


@very_few
@given(st.lists(packets("Tasks", "Loaded", "NotLoaded", "Forked", "NotForked", "Pong"), min_size=1, max_size=5))
def test_a_fork_server_may_say_anything(served: Served, told: list[bytes]) -> None:
    with served.daemon() as daemon:
        served.write("of-fork-server", told)
        answer = ask(served.site.path, Reload(), patience=None)
        assert isinstance(answer, Done | Refused)
        restore(served)
        assert ask(served.site.path, RunNow(task="ping", by="somebody"))
        until(lambda: len(descendants(daemon.pid)) < 50)


def restore(served: Served) -> None:
    """Have the tasks that the site declares, whatever others have said before."""
    (served.site.path / "of-fork-server").unlink(missing_ok=True)
    until(lambda: isinstance(ask(served.site.path, Reload(), patience=None), Done))
    ask(served.site.path, Resume(task=""))
    for task in ("ping", "hostile"):
        ask(served.site.path, Resume(task=task))
