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
from typing import Any

from ...linux import name_process
from ...wire import Hello, send
from ..load import Site
from ..secrets import masked

RETRY = 1.0  # seconds until the channel layer is tried again
RUN_TASKS = "run.background.tasks"  # what Lino's own command asks the consumer for

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
            trouble = masked(f"{type(error).__name__}: {error}")
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

    worker = Worker(without_tasks(get_default_application()), [CHANNEL_NAME], get_channel_layer())
    await asyncio.gather(worker.handle(), worker.application_checker())


def without_tasks(application: Any) -> Any:
    """The same application, but that it is not told to run the tasks: they would run twice from then on."""

    async def application_without_tasks(scope: Any, receive: Any, send: Any) -> None:
        async def receive_others() -> Any:
            while (message := await receive())["type"] == RUN_TASKS:
                logger.warning("Lino's own command was started for this site. Stop it, or each task runs twice.")
            return message

        await application(scope, receive_others, send)

    return application_without_tasks
