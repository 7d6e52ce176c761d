"""The service manager's side of sd_notify: all that a daemon says, by whom and when."""

import os
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

CREDENTIALS = struct.Struct("3i")  # pid, user, group
WAKE_UP = b"the end"


@dataclass(frozen=True)
class Notice:
    """One message: a field and its value, as in READY=1."""

    at: float  # monotonic
    pid: int
    name: str
    value: str


class Notices:
    """A socket for NOTIFY_SOCKET, and what came in."""

    def __init__(self, path):
        self.path = str(path)
        self.all = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(self.path)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def of(self, pid, *names):
        """What a process has said, of these fields."""
        return [notice for notice in list(self.all) if notice.pid == pid and notice.name in names]

    def close(self):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(WAKE_UP, self.path)
        self._thread.join(5)
        self._socket.close()

    def _listen(self):
        while True:
            data, ancillary, _flags, _address = self._socket.recvmsg(65536, socket.CMSG_SPACE(CREDENTIALS.size))
            pid = CREDENTIALS.unpack(ancillary[0][2])[0]
            if data == WAKE_UP and pid == os.getpid():
                return
            now = time.monotonic()
            for line in data.decode(errors="replace").splitlines():
                name, _equals, value = line.partition("=")
                self.all.append(Notice(now, pid, name, value))
