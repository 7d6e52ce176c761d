"""The channels companion: delivers what the web server of a site with `use_channels` puts into its channel layer.

Lino's own command does that in a thread beside its tasks. This one runs none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time

from ...linux import name_process
from ...wire import Hello, send
from ..load import Site

RETRY = 1.0  # seconds until the channel layer is tried again

logger = logging.getLogger(__name__)


def deliver(channel: socket.socket, site: Site) -> None:
    """Deliver, until the daemon hangs up; what is wrong with the channel layer is told once."""
    name_process("linod-channels", f"linod@{site.name}: channels")
    send(channel, Hello(pid=os.getpid(), memory=0))
    threading.Thread(target=leave_with, args=(channel,), daemon=True).start()
    told = ""
    while True:
        try:
            asyncio.run(serve())
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
            if trouble != told:
                logger.warning("The site's channels cannot be served: %s", trouble)
            told = trouble
        time.sleep(RETRY)


def leave_with(channel: socket.socket) -> None:
    """End this process when the daemon hangs up."""
    channel.recv(1)
    os._exit(0)


async def serve() -> None:
    """What `manage.py runworker` does, but that an error of the channel layer ends it."""
    from channels.layers import get_channel_layer
    from channels.routing import get_default_application
    from channels.worker import Worker
    from lino.modlib.linod.utils import CHANNEL_NAME

    worker = Worker(get_default_application(), [CHANNEL_NAME], get_channel_layer())
    await asyncio.gather(worker.handle(), worker.application_checker())
