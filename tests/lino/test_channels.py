"""What becomes of the messages that a Lino site with channels sends to its consumer."""

import asyncio

from linod.site.lino.channels import RUN_TASKS, without_tasks


def test_the_consumer_is_not_told_to_run_the_tasks():
    """Lino's own command sends that into the channel when it starts, where ours may be the one who takes it."""
    sent = asyncio.Queue()
    for kind in (RUN_TASKS, "send.panel.update", RUN_TASKS, "send.push"):
        sent.put_nowait({"type": kind})
    taken = []

    async def consumer(scope, receive, send):
        while len(taken) < 2:
            taken.append((await receive())["type"])

    asyncio.run(without_tasks(consumer)(scope={"type": "channel"}, receive=sent.get, send=None))
    assert taken == ["send.panel.update", "send.push"]
