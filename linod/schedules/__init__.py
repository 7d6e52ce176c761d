"""When a task is due: pure functions of a schedule, an instant and a zone; nothing here looks at a clock.

A task's author says when (`grammar.declare`), which gives a value that knows its due times (`base.Schedule`):

    declaration = declare(every="3 days", at="20:00")
    schedule = declaration.schedule.placed("Europe/Brussels", "site myprj.blog.tidy")
    due = schedule.next(now)

`elapsed.py` has the schedules that count elapsed time, `local.py`, `cron.py` and `calendar.py` those that follow the
clock on the wall (with `zones.py` for its changes), `adjusted.py` those that change another one. Site and daemon both
use them; they travel between the two as dictionaries.
"""

from .adjusted import Jittered, OnDays, Since, Until
from .base import Schedule, from_dict
from .calendar import Calendar, Never
from .cron import Cron
from .elapsed import ClockGrid, Interval
from .grammar import Declaration, call_text, declare, from_job, take_registered_jobs
from .local import WallClock

__all__ = [
    "Calendar",
    "ClockGrid",
    "Cron",
    "Declaration",
    "Interval",
    "Jittered",
    "Never",
    "OnDays",
    "Schedule",
    "Since",
    "Until",
    "WallClock",
    "call_text",
    "declare",
    "from_dict",
    "from_job",
    "take_registered_jobs",
]
