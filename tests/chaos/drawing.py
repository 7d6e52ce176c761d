"""Random tasks for a world, as plain values: see bodies.py."""

from datetime import timedelta

from tests.support.site import ZONE

from .bodies import BODIES, naps, waits

LOCKS = ("ledger", "printer")


def draw_tasks(random, now):
    """A dozen tasks or two, each with a schedule, policies and a body of its own."""
    return [draw_task(random, now, number) for number in range(random.randint(15, 25))]


def draw_task(random, now, number):
    body = random.choice((*BODIES, naps, waits)).__name__
    return {
        "name": f"{body}-{number}",
        "body": body,
        "declared": {**draw_schedule(random, now), **draw_policies(random)},
    }


def draw_schedule(random, now):
    """When it is due. No two drawn intervals have a due time in common."""
    kind = random.choices(["often", "sometimes", "jittered", "cron", "at"], [12, 3, 1, 1, 1])[0]
    match kind:
        case "often":
            return {"every": round(random.uniform(0.3, 4), 3)}
        case "sometimes":
            return {"every": round(random.uniform(10, 90), 3)}
        case "jittered":
            return {"every": random.randint(10, 30), "jitter": 5}
        case "cron":
            return {"cron": random.choice(["* * * * *", "*/2 * * * *", "*/5 * * * *"])}
        case "at":
            times = [now + timedelta(seconds=random.uniform(30, 600)) for _ in range(3)]
            return {"at": [f"{time.astimezone(ZONE):%H:%M:%S}" for time in times]}


def draw_policies(random):
    """How its runs are treated."""
    return {
        "timeout": round(random.uniform(1, 4), 2),
        "grace": round(random.uniform(0.2, 1), 2),
        "overlap": random.choice(["skip", "skip", "queue", "allow", "replace"]),
        "catch_up": random.choice(["once", "once", "none", "all"]),
        "retries": random.choice([0, 0, 1, 2]),
        "retry_delay": round(random.uniform(0.2, 3), 2),
        "lock": random.choice([None, None, *LOCKS]),
        "rerun_lost": random.random() < 0.4,
        "fresh": random.random() < 0.2,
    }
