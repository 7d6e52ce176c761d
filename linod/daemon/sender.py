"""Send records to systemd's journal, and never wait for it.

The journal's own protocol is a few lines (https://systemd.io/JOURNAL_NATIVE_PROTOCOL). It is spoken here rather than by
python3-systemd, whose send waits for as long as the journal is stopped or busy: its queue takes eleven records.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import termios
from collections import deque
from contextlib import suppress

from .clock import monotonic

MOST_WAITING = 1 << 20  # bytes of records that wait until the journal takes them
PATIENCE = 0.002  # seconds that one turn of the loop may wait for the journal; a busy one takes 0.05 ms a record
TRY_AGAIN = 0.25  # seconds, where the journal took nothing
LAST_WORDS = 1.0  # seconds that the journal gets at the end
# What passes: the journal is busy, is being started, or the kernel is short of something.
PASSING = (
    *(errno.EAGAIN, errno.ENOENT, errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE),
    *(errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EINTR),
)


class Sender:
    """Sends records to the journal in their order, keeps a bounded number while it takes none, and never blocks."""

    def __init__(self, path: str) -> None:
        self.let_go = 0  # records that were too many
        self._path = path
        self._socket: socket.socket | None = None
        self._waiting: deque[bytes] = deque()
        self._size = 0  # bytes of those
        self._patience = PATIENCE  # what is left of it in this turn
        self._taken = 0  # records in this turn

    def send(self, packet: bytes) -> None:
        """Send one record, after those that wait."""
        if self._size + len(packet) > MOST_WAITING and self._waiting:
            self.let_go += 1
            return
        self._waiting.append(packet)
        self._size += len(packet)
        if len(self._waiting) == 1 or self._patience > 0:
            self._work()

    def flush(self) -> bool:
        """Begin another turn. True where nothing waits any more."""
        # A journal that took nothing in the last turn is stopped or gone, and not worth waiting for.
        self._patience = PATIENCE if self._taken or not self._waiting else 0.0
        self._taken = 0
        self._work()
        return not self._waiting

    def next_flush(self) -> float | None:
        if not self._waiting:
            return None
        return 0.0 if self._taken else TRY_AGAIN

    def close(self, patience: float) -> None:
        """Wait until the journal has read all that was sent, for so many seconds at most."""
        deadline = monotonic() + patience
        while (self._waiting or self._unread()) and (rest := deadline - monotonic()) > 0:
            self._patience = rest
            self._work()
            select.select((), (), (), min(rest, 0.001))
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _work(self) -> None:
        """Send what waits, as far as the journal takes it."""
        while self._waiting:
            if not self._sent(self._waiting[0]):
                return
            self._size -= len(self._waiting.popleft())
            self._taken += 1

    def _sent(self, packet: bytes) -> bool:
        """Whether a record is dealt with: taken, or hopeless."""
        while True:
            try:
                self._send_now(packet)
            except OSError as error:
                if error.errno not in PASSING:
                    self.let_go += 1
                    return True
                if error.errno == errno.EAGAIN:
                    if self._has_room():
                        continue
                elif self._reconnected(error.errno):
                    continue
                return False
            return True

    def _send_now(self, packet: bytes) -> None:
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        try:
            self._socket.send(packet)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            send_as_file(self._socket, packet)

    def _connect(self) -> None:
        """Connected, because only then the kernel can tell when the journal has room again."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        end.setblocking(False)
        try:
            end.connect(self._path)
        except OSError:
            end.close()
            raise
        self._socket = end

    def _reconnected(self, number: int) -> bool:
        """The journal's socket was made anew, as when systemd-journald.socket was restarted: leave the old one."""
        if self._socket is None or number not in (errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE):
            return False
        self._socket.close()
        self._socket = None
        return True

    def _has_room(self) -> bool:
        """Whether the journal takes more within this turn's patience."""
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        begun = monotonic()
        room = bool(poll.poll(max(0.0, self._patience) * 1000))
        self._patience -= monotonic() - begun
        return room

    def _unread(self) -> bool:
        """Whether the journal has still to read something."""
        if self._socket is None:
            return False
        size = array.array("i", [0])
        with suppress(OSError):
            fcntl.ioctl(self._socket, termios.TIOCOUTQ, size)
        return size[0] > 0


def send_as_file(end: socket.socket, packet: bytes) -> None:
    """A record that is too large for a packet comes in a sealed file in memory."""
    fd = os.memfd_create("linod-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(packet)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        end.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    finally:
        os.close(fd)
