"""The sender: a process of the site that runs no task, but tells people and other programs of them.

The daemon gives it one errand at a time, and ends it when that takes too long.
"""

from __future__ import annotations

import os
import socket

from ..errors import LinodError
from ..linux import name_process
from ..wire import Call, Hello, Tell, Told, receive, send
from . import hygiene, output, telling
from .call import describe
from .load import Site

LONGEST_PROBLEM = 1000  # characters


def send_for(channel: socket.socket, site: Site) -> None:
    """Do what the daemon asks for until it hangs up."""
    name_process("linod-sender", f"linod@{site.name}: sender")
    output.catch_log_records()
    send(channel, Hello(pid=os.getpid(), memory=0))
    while isinstance(errand := receive(channel), Tell | Call):
        hygiene.meet_connections()
        told = Told(errand=errand.errand, problem=do(errand, site))
        hygiene.leave_connections()
        output.flush()
        send(channel, told)


def do(errand: Tell | Call, site: Site) -> str:
    """Do one errand. Returns why it could not be done, in words; never raises."""
    try:
        match errand:
            case Call():
                telling.ping(site, errand.task, errand.moment, errand.text)
            case Tell(channel="mail"):
                telling.send_mail(site, errand.alerts, errand.more)
            case Tell(channel="url"):
                telling.post(site, errand.alerts, errand.more)
            case Tell():
                telling.signal(site, errand.alerts)
    except LinodError as error:
        return str(error)[:LONGEST_PROBLEM]
    except Exception as error:
        return f"an error of its own: {describe(error)}"[:LONGEST_PROBLEM]
    return ""
