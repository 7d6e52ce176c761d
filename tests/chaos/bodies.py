"""The tasks of a world, as its site declares them: what they do is as random as what happens to them.

    declare("tasks.json")

The file has a list of tasks: name, the arguments of `linod.task`, and which of the bodies below it is.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import linod
from tests.chaos.ledger import Ledger

LEFT_BEHIND = "sleep"  # the program that a task leaves behind

# Each gets a generator of its own, and draws from it whether it behaves.


def quick(random):
    pass


def naps(random):
    time.sleep(random.uniform(0, 1.5))


def raises(random):
    if random.random() < 0.5:
        raise ValueError("as it happens")


def leaves(random):
    sys.exit(random.choice([0, 0, 3]))


def dies(random):
    time.sleep(random.uniform(0, 0.2))
    match random.randrange(6):
        case 0:
            os._exit(3)
        case 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        case 2:
            os.kill(os.getpid(), signal.SIGKILL)


def hangs(random):
    if random.random() < 0.3:
        time.sleep(60)


def ignores_term(random):
    if random.random() < 0.3:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(1)


def loud(random):
    for number in range(random.choice([3, 300, 10_000])):
        print("line", number)


def leaves_a_process(random):
    subprocess.Popen([LEFT_BEHIND, "4"], start_new_session=random.random() < 0.5)


async def waits(random):
    await asyncio.sleep(random.uniform(0, 1))


BODIES = (quick, naps, raises, leaves, dies, hangs, ignores_term, loud, leaves_a_process, waits)


def declare(file):
    """Declare the tasks of a file."""
    for task in json.loads(Path(file).read_text()):
        linod.task(name=task["name"], **task["declared"])(function_of(task))


def function_of(task):
    body = next(body for body in BODIES if body.__name__ == task["body"])
    ledger = Ledger(os.environ["CHAOS_LEDGER"])
    promise = {
        "alone": task["declared"].get("overlap", "skip") != "allow",
        "lock": task["declared"].get("lock"),
    }

    def drawing():
        return Random(f"{os.environ['CHAOS_SEED']} {os.environ['LINOD_RUN']}")

    def run():
        with ledger.run_of(task["name"], **promise):
            body(drawing())

    async def run_async():
        with ledger.run_of(task["name"], **promise):
            await body(drawing())

    function = run_async if asyncio.iscoroutinefunction(body) else run
    function.__name__ = task["name"]
    return function
