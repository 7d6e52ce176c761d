"""The control socket: real sockets, a real selector, and callers who behave well, badly, or not at all."""

from __future__ import annotations

import os
import resource
import selectors
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linod import caller
from linod.caller import HungUp, NoAnswer, NotRunning, ask, follow
from linod.daemon.agenda import Entry, LiveRun
from linod.daemon.control import MOST_BUSY, MOST_CALLERS, MOST_QUEUED, Caller, Control, Request
from linod.runs import Outcome, Run
from linod.schedules import Interval
from linod.task import Task
from linod.wire import (
    LARGEST,
    Accepted,
    Ask,
    Begin,
    Cancel,
    Done,
    Ended,
    Hello,
    Pause,
    Progress,
    Refused,
    Reload,
    RunNow,
    Visit,
    Wrote,
    decode,
    encode,
)

PATIENCE = 10.0
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TASK = Task(id="app.t", label="t", text="", schedule=Interval(60, 0.0))


def live_run(id: int = 1) -> LiveRun:
    run = Run(id=id, task="app.t", due=NOW, started=NOW)
    return LiveRun(run=run, entry=Entry(task=TASK, position=0, since=NOW, accounted=None), at=NOW)


@dataclass
class Room:
    """A control socket whose loop is turned by the test, and what came of what callers said."""

    state: Path
    requests: list[tuple[Caller, Request]] = field(default_factory=list)
    visits: list[Caller] = field(default_factory=list)
    left: list[LiveRun] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    progressed: list[Progress] = field(default_factory=list)
    answer: Callable[[Caller, Request], None] = lambda caller, _request: caller.tell(Done())

    def __post_init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.control = Control(self.state, self.selector, self, self)

    # What it is told

    def take(self, caller: Caller, request: Request) -> None:
        self.requests.append((caller, request))
        self.answer(caller, request)

    def guest_asks(self, guest: Caller, visit: Visit) -> None:
        self.visits.append(guest)
        guest.runs = live_run()
        guest.tell(Begin(run=1, task=visit.task))
        guest.runs.began = 1.0

    def guest_left(self, live: LiveRun) -> None:
        self.left.append(live)

    def run_ended(self, live: LiveRun, ended: Ended) -> None:
        self.ended.append(ended)

    def run_progressed(self, live: LiveRun, progress: Progress) -> None:
        self.progressed.append(progress)

    # Its loop

    def turn(self, timeout: float = 0.0) -> bool:
        ready = self.selector.select(timeout)
        for key, _events in ready:
            if self.selector.get_map().get(key.fd) is key:
                key.data()
        return bool(ready)

    def settle(self) -> None:
        """Turn until there is nothing to do."""
        deadline = time.monotonic() + PATIENCE
        while self.turn():
            assert time.monotonic() < deadline, "the loop never comes to rest"

    def connect(self) -> socket.socket:
        channel = caller.connect(self.state / "control", PATIENCE)
        self.settle()
        return channel

    def say(self, channel: socket.socket, *messages: object) -> None:
        for message in messages:
            channel.send(encode(message))  # type: ignore[arg-type]
            self.settle()

    def callers(self) -> int:
        return len(self.selector.get_map()) - 1


def heard(channel: socket.socket) -> list[object]:
    """All that a caller was told by now; None at the end stands for a hang-up."""
    found: list[object] = []
    while True:
        try:
            packet = channel.recv(LARGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return found
        except ConnectionResetError:
            continue
        if not packet:
            return [*found, None]
        found.append(decode(packet))


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Let this process open nothing more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        with suppress(OSError):
            while True:
                stack.callback(os.close, os.dup(0))
        yield


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.control.close()
    room.selector.close()


@pytest.fixture
def open_() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def served(room: Room, stack: ExitStack) -> None:
    """Let the loop turn in a thread, for clients that wait."""
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            room.turn(0.02)

    thread = threading.Thread(target=serve)
    thread.start()
    stack.callback(thread.join, PATIENCE)
    stack.callback(stop.set)


# Answers


def test_each_request_reaches_the_desk_and_is_answered(room: Room, open_: ExitStack) -> None:
    channel = open_.enter_context(room.connect())
    requests = [Ask(), Pause(task="", reason="x", by="me"), Cancel(run=1, by="me"), Reload(), RunNow(task="t", by="")]
    room.say(channel, *requests)
    assert [request for _caller, request in room.requests] == requests
    assert heard(channel) == [Done()] * len(requests)


def test_a_caller_is_known_by_its_user(room: Room, open_: ExitStack) -> None:
    room.say(open_.enter_context(room.connect()), Ask())
    assert room.requests[0][0].uid == os.geteuid()
    assert room.requests[0][0].name == caller.name_of(os.geteuid())


def test_a_question_is_asked_in_one_line(room: Room, open_: ExitStack) -> None:
    served(room, open_)
    assert ask(room.state / "control", Ask()) == Done()


def test_a_run_is_followed_to_its_end(room: Room, open_: ExitStack) -> None:
    def run(caller: Caller, request: Request) -> None:
        live = live_run(7)
        caller.hears, live.asker = live, caller
        caller.tell(Accepted(run=7, task="app.t"))
        caller.tell(Begin(run=7, task="app.t"))
        caller.run_wrote(7, "pong\n")
        live.run.outcome, live.run.reason = Outcome.FAILED, "ValueError"
        caller.run_ended(live.run)

    room.answer = run
    served(room, open_)
    messages = list(follow(room.state / "control", RunNow(task="t", by="")))
    assert [type(message) for message in messages] == [Accepted, Begin, Wrote, Ended]
    assert messages[2] == Wrote(run=7, text="pong\n")
    assert messages[3] == Ended(run=7, outcome="failed", reason="ValueError")


def test_a_face_may_ask_in_several_threads(room: Room, open_: ExitStack) -> None:
    room.answer = lambda caller, request: caller.tell(Done(text=str(request.run) * 1000))  # type: ignore[union-attr]
    served(room, open_)
    wrong: list[object] = []

    def ask_often(number: int) -> None:
        for _ in range(100):
            answer = ask(room.state / "control", Cancel(run=number, by=""))
            if answer != Done(text=str(number) * 1000):
                wrong.append(answer)

    threads = [threading.Thread(target=ask_often, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong


def test_following_ends_with_a_refusal(room: Room, open_: ExitStack) -> None:
    room.answer = lambda caller, _request: caller.refuse("no")
    served(room, open_)
    assert list(follow(room.state / "control", RunNow(task="t", by=""))) == [Refused(reason="no")]


# Who is not there, or does not answer


def test_a_socket_that_is_not_there_means_that_no_daemon_runs(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="No daemon runs"):
        ask(tmp_path / "control", Ask())
    with pytest.raises(NotRunning, match="No daemon runs"):
        ask(tmp_path / "gone" / "control", Ask())


def test_a_socket_that_nobody_listens_to_means_that_no_daemon_runs(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(tmp_path / "control"))
    with pytest.raises(NotRunning, match="No daemon runs"):
        ask(tmp_path / "control", Ask())


def test_a_daemon_that_hangs_is_not_waited_for(room: Room) -> None:
    with pytest.raises(NoAnswer, match=rf"process {os.getpid()}, has not answered within 0\.1 s"):
        ask(room.state / "control", Ask(), 0.1)


def test_a_daemon_that_hangs_so_long_that_nobody_gets_in_is_not_waited_for(room: Room, open_: ExitStack) -> None:
    with pytest.raises(NoAnswer, match=r"has not let us in within 0\.1 s"):
        for _ in range(200):
            open_.enter_context(caller.connect(room.state / "control", 0.1))


def test_a_daemon_that_hangs_up_is_told_in_words(room: Room, open_: ExitStack) -> None:
    room.answer = lambda caller, _request: caller.channel.shutdown(socket.SHUT_RDWR)
    served(room, open_)
    with pytest.raises(HungUp, match="has hung up"):
        ask(room.state / "control", Ask())


def test_what_a_daemon_said_before_it_hung_up_is_heard(tmp_path: Path, open_: ExitStack) -> None:
    """The kernel reports first that the other end left something unread."""
    listener = open_.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    listener.bind(str(tmp_path / "control"))
    listener.listen()
    channel = open_.enter_context(caller.connect(tmp_path / "control"))
    caller.say(channel, Ask())
    with listener.accept()[0] as other:
        other.send(encode(Refused(reason="not you")))
    assert caller.hear(channel) == Refused(reason="not you")


def test_a_path_that_is_too_long_for_a_socket_is_no_problem(tmp_path: Path, open_: ExitStack) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    room = Room(deep)
    open_.callback(room.control.close)
    served(room, open_)
    assert ask(deep / "control", Ask()) == Done()


# Where it lies


def test_the_socket_lies_in_the_runtime_directory_and_is_found_from_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_: ExitStack
) -> None:
    state, runtime = tmp_path / "state", tmp_path / "run"
    state.mkdir(), runtime.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{runtime}:{tmp_path / 'other'}")
    room = Room(state)
    with ExitStack() as stack:
        served(room, stack)
        assert ask(runtime / "control", Ask()) == Done()
        assert ask(state / "control", Ask()) == Done()
    assert (runtime / "control").stat().st_mode & 0o777 == 0o660
    room.control.close()
    assert not list(state.iterdir()) and not list(runtime.iterdir())


def test_what_a_killed_daemon_left_behind_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "control").symlink_to(tmp_path / "nowhere")
    room = Room(tmp_path)
    assert (tmp_path / "control").is_socket()
    room.control.close()


# Who behaves badly


@pytest.mark.parametrize(
    "packet",
    [b"\0", b"x" * 70_000, b"[", b"[]", b'["Ask"]', b'["Cancel",{"run":"1","by":""}]', b'["Ask",{"a":1}]', b"[" * 5000],
    ids=["nul", "long", "cut", "empty", "short", "types", "more", "deep"],
)
def test_who_sends_garbage_is_hung_up_on(room: Room, open_: ExitStack, packet: bytes) -> None:
    channel = open_.enter_context(room.connect())
    channel.send(packet)
    room.settle()
    assert heard(channel) == [None]
    assert not room.requests and not room.callers()


@pytest.mark.parametrize("message", [Hello(pid=7, memory=1), Ended(run=1, outcome="failed"), Done()])
def test_who_says_what_a_caller_has_no_business_to_say_is_hung_up_on(
    room: Room, open_: ExitStack, message: object
) -> None:
    channel = open_.enter_context(room.connect())
    room.say(channel, message)
    assert heard(channel) == [None]


@pytest.mark.claim("S22")
@settings(max_examples=50)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_no_bytes_harm_the_others(packets: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as state:
        room = Room(Path(state))
        with room.connect() as channel, room.connect() as other:
            for packet in packets:
                with suppress(BrokenPipeError):
                    channel.send(packet)
                room.settle()
            room.say(other, Ask())
            assert heard(other) == [Done()]
        room.settle()
        assert not room.callers()
        room.control.close()
        room.selector.close()


def test_a_refusal_that_names_what_was_asked_is_never_too_long(room: Room, open_: ExitStack) -> None:
    room.answer = lambda caller, request: caller.refuse(f"There is no {request.task!r}.")  # type: ignore[union-attr]
    with room.connect() as channel:
        channel.send(b'["RunNow",{"task":"%s","by":""}]' % ("\u2028" * 50_000).encode())
        room.settle()
        [refused] = heard(channel)
        assert isinstance(refused, Refused) and refused.reason.startswith("There is no '\\u2028")


def test_who_comes_when_no_descriptor_is_left_is_told_so(room: Room, open_: ExitStack) -> None:
    busy = open_.enter_context(room.connect())
    room.say(busy, Visit(task="app.t", pid=1))
    waiting = open_.enter_context(caller.visit(room.state / "control", PATIENCE))
    with no_descriptors_left():
        room.settle()
    assert [type(message) for message in heard(waiting)] == [Refused, type(None)]
    assert room.callers() == 1
    room.say(open_.enter_context(room.connect()), Ask())
    assert len(room.requests) == 1


@pytest.mark.claim("S22")
def test_descriptors_that_are_sent_along_are_not_kept(room: Room, open_: ExitStack) -> None:
    channel = open_.enter_context(room.connect())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        socket.send_fds(channel, [encode(Ask())], [0, 1, 2])
        room.settle()
    assert len(os.listdir("/proc/self/fd")) == before
    assert heard(channel) == [Done()] * 20


@pytest.mark.claim("S22")
def test_callers_who_say_nothing_make_room_for_others(room: Room, open_: ExitStack) -> None:
    silent = [open_.enter_context(room.connect()) for _ in range(3 * MOST_CALLERS)]
    assert room.callers() == MOST_CALLERS
    channel = open_.enter_context(room.connect())
    room.say(channel, Ask())
    assert heard(channel) == [Done()]
    assert heard(silent[0]) == [None] and heard(silent[-1]) == []


def test_who_waits_for_something_keeps_its_place(room: Room, open_: ExitStack) -> None:
    def owe(caller: Caller, _request: Request) -> None:
        caller.owed += 1

    room.answer = owe
    waiting = open_.enter_context(room.connect())
    room.say(waiting, Reload())
    for _ in range(2 * MOST_CALLERS):
        open_.enter_context(room.connect())
    room.requests[0][0].tell(Done(text="at last"))
    assert heard(waiting) == [Done(text="at last")]


def test_those_who_wait_leave_some_places_free(room: Room, open_: ExitStack) -> None:
    def owe(caller: Caller, _request: Request) -> None:
        caller.owed += 1

    room.answer = owe
    channels = [open_.enter_context(room.connect()) for _ in range(MOST_BUSY + 5)]
    for channel in channels:
        room.say(channel, Reload())
    assert all(heard(channel) == [] for channel in channels[:MOST_BUSY])
    assert all(isinstance(heard(channel)[0], Refused) for channel in channels[MOST_BUSY:])
    room.answer = lambda caller, _request: caller.tell(Done())
    short = open_.enter_context(room.connect())
    room.say(short, Ask())
    assert heard(short) == [Done()]


@pytest.mark.claim("S22")
def test_who_asks_and_never_reads_is_not_heard_before_it_does(room: Room, open_: ExitStack) -> None:
    room.answer = lambda caller, _request: caller.tell(Done(text="x" * 10_000))
    channel = open_.enter_context(room.connect())
    channel.setblocking(False)
    asked = 0
    try:
        while asked < 100_000:
            channel.send(encode(Ask()))
            asked += 1
            room.settle()
    except BlockingIOError:
        pass
    answered = len(room.requests)
    assert answered < asked < 100_000
    other = open_.enter_context(room.connect())
    room.say(other, Ask())
    assert len(heard(other)) == 1
    answers = 0
    while answers < asked:
        more = len(heard(channel))
        room.settle()
        answers += more
        assert more or answers >= asked
    assert answers == asked


# What runs write


def streaming(room: Room, open_: ExitStack) -> tuple[socket.socket, Caller, LiveRun]:
    live = live_run(7)

    def begin(caller: Caller, _request: Request) -> None:
        caller.hears, live.asker = live, caller

    room.answer = begin
    channel = open_.enter_context(room.connect())
    room.say(channel, RunNow(task="t", by=""))
    return channel, room.requests[-1][0], live


def read_all(room: Room, channel: socket.socket) -> list[object]:
    found: list[object] = []
    deadline = time.monotonic() + PATIENCE
    while not found or not isinstance(found[-1], Ended | None):
        found += heard(channel)
        room.settle()
        assert time.monotonic() < deadline
    return found


def test_a_caller_who_reads_slowly_misses_lines_but_never_the_end(room: Room, open_: ExitStack) -> None:
    channel, caller, live = streaming(room, open_)
    lines = 20_000
    for number in range(lines):
        caller.run_wrote(7, f"{number} {'x' * 100}\n")
        caller.run_progressed(Progress(run=7, done=number, total=lines, text=""))
    assert caller._queued < 2 * MOST_QUEUED
    live.run.outcome = Outcome.SUCCEEDED
    caller.run_ended(live.run)
    found = read_all(room, channel)
    texts = [message.text for message in found if isinstance(message, Wrote)]
    [note] = [text for text in texts if "came too fast" in text]
    assert len(texts) - 1 + int(note[1:].split()[0].replace(",", "")) == lines
    assert texts[-1] is note and found[-1] == Ended(run=7, outcome="succeeded")
    assert not caller.behind and not caller.busy


def test_lines_that_were_missed_are_told_in_their_place(room: Room, open_: ExitStack) -> None:
    channel, caller, _live = streaming(room, open_)
    while not caller._missed:
        caller.run_wrote(7, "x" * 1000 + "\n")
    before = heard(channel)
    room.settle()
    while caller.behind:
        before += heard(channel)
        room.settle()
    caller.run_wrote(7, "and on it goes\n")
    after = before + heard(channel)
    assert isinstance(after[-2], Wrote) and "1 lines came too fast" in after[-2].text
    assert after[-1] == Wrote(run=7, text="and on it goes\n")


def test_a_text_of_any_size_and_alphabet_arrives_whole(room: Room, open_: ExitStack) -> None:
    channel, caller, live = streaming(room, open_)
    text = "\N{GRINNING FACE}" * 10_000 + "\udcff\n"
    caller.run_wrote(7, text)
    live.run.outcome = Outcome.SUCCEEDED
    caller.run_ended(live.run)
    found = read_all(room, channel)
    assert "".join(message.text for message in found if isinstance(message, Wrote)) == text


def test_an_end_that_is_too_large_comes_without_its_traceback(room: Room, open_: ExitStack) -> None:
    channel, caller, live = streaming(room, open_)
    live.run.outcome, live.run.reason, live.run.traceback = Outcome.FAILED, "why", "\N{GRINNING FACE}" * 20_000
    caller.run_ended(live.run)
    assert read_all(room, channel) == [Ended(run=7, outcome="failed", reason="why")]


def test_the_end_reaches_a_slow_caller_when_the_daemon_ends(room: Room, open_: ExitStack) -> None:
    channel, caller, live = streaming(room, open_)
    while not caller.behind:
        caller.run_wrote(7, "x" * 1000 + "\n")
    live.run.outcome = Outcome.CANCELLED
    caller.run_ended(live.run)
    found: list[object] = []

    def read() -> None:
        deadline = time.monotonic() + PATIENCE
        while (not found or found[-1] is not None) and time.monotonic() < deadline:
            found.extend(heard(channel))

    thread = threading.Thread(target=read)
    thread.start()
    room.control.close()
    thread.join(PATIENCE)
    assert found[-2:] == [Ended(run=7, outcome="cancelled"), None]


def test_a_caller_who_reads_nothing_does_not_hold_the_end_of_the_daemon_up(room: Room, open_: ExitStack) -> None:
    _channel, caller, live = streaming(room, open_)
    while not caller.behind:
        caller.run_wrote(7, "x" * 1000 + "\n")
    live.run.outcome = Outcome.CANCELLED
    caller.run_ended(live.run)
    began = time.monotonic()
    room.control.close()
    assert time.monotonic() - began < 5


def test_who_hangs_up_is_told_no_more(room: Room, open_: ExitStack) -> None:
    channel, caller, live = streaming(room, open_)
    channel.close()
    room.settle()
    assert live.asker is None
    assert not room.callers() and not room.left
    caller.tell(Done())


def test_who_hangs_up_without_having_read_is_noticed(room: Room, open_: ExitStack) -> None:
    channel, caller, live = streaming(room, open_)
    while not caller.behind:
        caller.run_wrote(7, "x" * 1000 + "\n")
    channel.close()
    room.settle()
    assert live.asker is None and not room.callers()


def test_one_caller_follows_one_run_at_a_time(room: Room, open_: ExitStack) -> None:
    channel, caller, live = streaming(room, open_)
    room.say(channel, RunNow(task="t", by=""))
    assert heard(channel) == [Refused(reason="one thing after the other, please")]
    assert live.asker is caller


# Guests


def test_a_guest_tells_how_its_run_goes(room: Room, open_: ExitStack) -> None:
    channel = open_.enter_context(room.connect())
    progress, ended = Progress(run=1, done=1, total=2, text=""), Ended(run=1, outcome="succeeded")
    room.say(channel, Visit(task="app.t", pid=5), progress, ended)
    assert room.visits[0].pid == 5
    assert (room.progressed, room.ended, room.left) == ([progress], [ended], [])
    channel.close()
    room.settle()
    assert not room.left


@pytest.mark.parametrize("how", ["it ends", "it sends garbage", "the daemon stops"])
def test_a_guest_who_is_lost_sight_of_has_left(room: Room, open_: ExitStack, how: str) -> None:
    channel = open_.enter_context(room.connect())
    room.say(channel, Visit(task="app.t", pid=5))
    if how == "it ends":
        channel.close()
    elif how == "it sends garbage":
        channel.send(b"?")
    else:
        room.control.part_with_guests()
    room.settle()
    assert len(room.left) == 1 and not room.callers()
