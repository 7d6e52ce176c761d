"""The messages between linod's processes, over real sockets."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linod import wire
from linod.errors import WireError
from linod.runs import Outcome
from linod.site.call import describe, format_traceback
from linod.site.trouble import why_not
from linod.wire import (
    LARGEST,
    Begin,
    Ended,
    Fork,
    Forked,
    Hello,
    Message,
    NotLoaded,
    Progress,
    Tasks,
    receive,
    receive_with_fds,
    send,
)

TEXT = st.text(max_size=50)
NUMBER = st.integers(-(2**62), 2**62)
VALUES = {
    "int": NUMBER,
    "str": TEXT,
    "bool": st.booleans(),
    "float": st.floats(allow_nan=False),
    "float | None": st.none() | st.floats(allow_nan=False),
    "list[str]": st.lists(TEXT, max_size=3),
    "dict[str, Any]": st.dictionaries(TEXT, NUMBER | TEXT | st.none(), max_size=3),
    "list[dict[str, Any]]": st.lists(st.dictionaries(TEXT, NUMBER, max_size=3), max_size=3),
}


def messages() -> st.SearchStrategy[Any]:
    """Every kind of message with any values of the right types."""

    def of(kind: type[Any]) -> st.SearchStrategy[Any]:
        fields = {name: VALUES[type_] for name, type_ in kind.__annotations__.items()}
        if kind is Ended:
            fields["outcome"] = st.sampled_from(list(Outcome))
            fields |= {"cpu": st.floats(0, 1e9), "peak_memory": st.integers(0, 2**40), "memory": st.integers(0, 2**40)}
        if kind in (Hello, Forked):
            fields["pid"] = st.integers(2, 2**31)
        return st.builds(kind, **fields)

    return st.one_of(*map(of, get_args(Message)))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = wire.pair()
    with one, other:
        yield one, other


ONE, OTHER = wire.pair()


@settings(max_examples=40)
@given(messages())
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    send(ONE, message)
    assert receive(OTHER) == message


@settings(max_examples=40)
@given(messages(), messages())
def test_messages_stay_apart_and_in_order(first: Message, second: Message) -> None:
    send(ONE, first)
    send(ONE, second)
    assert [receive_with_fds(OTHER)[0], receive(OTHER)] == [first, second]


@settings(max_examples=40)
@given(messages())
def test_every_message_of_a_usual_size_fits(message: Message) -> None:
    assert len(wire.encode(message)) < LARGEST


def test_the_largest_message_passes_an_empty_socket(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    one.setblocking(False)
    message = Begin(run=1, task="x" * (LARGEST - 100))
    send(one, message)
    assert receive(other) == message


def test_a_message_that_is_too_large_is_refused_where_it_is_sent(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    with pytest.raises(WireError, match=r"A Tasks message of 160,0.. bytes is too large"):
        send(one, Tasks(tasks=[{"text": "x" * LARGEST}]))
    send(one, Fork(serial=1))
    assert receive(other) == Fork(serial=1)


def test_nothing_to_read_yet_is_no_end(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    other.setblocking(False)
    with pytest.raises(BlockingIOError):
        receive(other)
    one.close()
    assert receive(other) is None


def test_the_end_comes_after_the_last_message(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    send(one, Fork(serial=1))
    one.close()
    assert receive(other) == Fork(serial=1)
    assert receive(other) is None
    assert receive_with_fds(other) == (None, [])


def test_an_end_that_died_with_unread_messages_is_an_end(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    send(other, Fork(serial=1))
    one.close()  # the kernel tells the other end ECONNRESET
    assert receive(other) is None


def test_sending_to_nobody_raises(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    other.close()
    with pytest.raises(OSError):
        send(one, Fork(serial=1))


def test_a_full_socket_raises_rather_than_waits(ends: tuple[socket.socket, socket.socket]) -> None:
    one, _other = ends
    one.setblocking(False)
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            send(one, Progress(run=1, done=1.0, total=None, text="x" * 1000))


# Garbage

GARBAGE = [
    b"hello",
    b"[]",
    b"{}",
    b"null",
    b"[1, 2]",
    b'["Fork"]',
    b'["Fork", {}]',
    b'["Fork", []]',
    b'["Fork", {"serial": 1, "more": 2}]',
    b'["Fork", {"serial": "1"}]',
    b'["Fork", {"serial": null}]',
    b'["Unknown", {}]',
    b'[["Fork"], {"serial": 1}]',
    b'["Ended", {"run": 1, "outcome": "wonderful"}]',
    b'["Ended", {"run": 1, "outcome": "failed", "reason": 5}]',
    b'["Ended", {"run": 1, "outcome": "failed", "cpu": "much"}]',
    b'["Tasks", {"tasks": {}}]',
    b"\xff\xfe\x00",
    b"\x80abc",
    b"[" * 100_000,
    b'["Fork", {"serial": ' + b"9" * 5000 + b"}]",
]


@pytest.mark.parametrize("packet", GARBAGE, ids=lambda packet: repr(packet[:50]))
def test_garbage_is_an_error_of_the_wire(packet: bytes, ends: tuple[socket.socket, socket.socket]) -> None:
    """Whatever a task writes into the socket, the daemon must not fall over it."""
    one, other = ends
    one.send(packet)
    with pytest.raises(WireError, match="no message of linod"):
        receive(other)


@pytest.mark.parametrize(
    "measured", [{"cpu": float("inf")}, {"cpu": float("nan")}, {"cpu": -1.0}, {"peak_memory": 10**30}, {"memory": -1}]
)
def test_what_is_measured_can_be_kept(measured: dict[str, float]) -> None:
    """History would be taken for damaged, and put aside at the next start."""
    with pytest.raises(WireError, match="no message of linod"):
        wire.decode(json.dumps(["Ended", {"run": 1, "outcome": "failed"} | measured]).encode())


@pytest.mark.parametrize("told", [{"done": 10**400, "total": None}, {"done": 1, "total": 10**400}])
def test_a_progress_that_no_float_can_hold_is_none(told: dict[str, int | None]) -> None:
    """To tell it in words would end the daemon."""
    with pytest.raises(WireError, match="no message of linod"):
        wire.decode(json.dumps(["Progress", {"run": 1, "text": ""} | told]).encode())


def test_what_is_in_a_list_is_of_its_kind() -> None:
    for said in (["Amend", {"tasks": [], "gone": [[]]}], ["Tasks", {"tasks": ["x"]}]):
        with pytest.raises(WireError, match="no message of linod"):
            wire.decode(json.dumps(said).encode())


@pytest.mark.parametrize("pid", [1, 0, -1])
def test_no_worker_is_what_a_signal_takes_for_many(pid: int) -> None:
    """A kill of the group 1 would be one of all processes."""
    for said in (["Hello", {"pid": pid, "memory": 1}], ["Forked", {"serial": 1, "pid": pid}]):
        with pytest.raises(WireError, match="no message of linod"):
            wire.decode(json.dumps(said).encode())


def test_a_packet_that_is_cut_off_is_garbage(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    one.send(json.dumps(["Begin", {"run": 1, "task": "x" * LARGEST}]).encode())
    with pytest.raises(WireError):
        receive(other)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | NUMBER | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
KINDS = st.sampled_from([kind.__name__ for kind in get_args(Message)])
NAMES = st.sampled_from([name for kind in get_args(Message) for name in kind.__annotations__])


@settings(max_examples=40)
@given(st.binary() | st.tuples(KINDS, st.dictionaries(NAMES, JSON)).map(lambda pair: json.dumps(pair).encode()))
def test_any_bytes_are_a_message_or_an_error_of_the_wire(packet: bytes) -> None:
    try:
        message = wire.decode(packet)
    except WireError:
        return
    assert isinstance(message, Message)
    for name, type_ in type(message).__annotations__.items():
        assert isinstance(getattr(message, name), int | float) == (type_ in ("int", "float", "bool")) or "|" in type_


# Descriptors


def test_descriptors_come_along_and_are_not_inherited(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    send(one, Fork(serial=7), [writing, reading, writing])
    message, fds = receive_with_fds(other)
    try:
        assert message == Fork(serial=7)
        assert len(fds) == 3 and not {reading, writing} & set(fds)
        assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in fds)
        os.write(fds[0], b"through")
        assert os.read(fds[1], 100) == b"through"
    finally:
        for fd in (reading, writing, *fds):
            os.close(fd)


def test_descriptors_that_nobody_asked_for_are_closed(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    reading, writing = os.pipe()
    send(one, Hello(pid=7, memory=1), [writing])
    os.close(writing)
    assert receive(other) == Hello(pid=7, memory=1)
    assert os.read(reading, 1) == b"", "no copy of the writing end is left"
    os.close(reading)


def test_no_end_is_inherited_by_a_program_that_is_executed(ends: tuple[socket.socket, socket.socket]) -> None:
    assert not any(end.get_inheritable() for end in ends)


@pytest.mark.parametrize("letter", ["x", "\N{GRINNING FACE}", "\x01", "\udc80"])
def test_what_went_wrong_fits_into_a_message_however_it_is_written(letter: str) -> None:
    one, other = wire.pair()
    error = ValueError(letter * 50_000)
    send(one, Ended(run=1, outcome=Outcome.FAILED, reason=describe(error), traceback=format_traceback(error)))
    send(one, why_not(error))
    assert isinstance(receive(other), Ended)
    assert isinstance(receive(other), NotLoaded)
