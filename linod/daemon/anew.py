"""What a history is told that had to begin anew while the daemon runs: all that the daemon knows of the present.

That is enough to run nothing twice after the next start. What ran before is lost with the file.
"""

from __future__ import annotations

from .alerting import Alerting
from .history import History
from .plan import Plan
from .running import Running


def tell_all(history: History, plan: Plan, running: Running, alerting: Alerting) -> None:
    """Have history know the tasks, the pauses, what is claimed and what runs, and what people are told."""
    for entry in plan.entries.values():
        history.know(entry.task, entry.position, entry.since, entry.accounted)
    for pause in plan.pauses.values():
        history.pause(pause)
    for live in [*plan.not_begun(set(plan.entries.values())), *running.live.values()]:
        history.save(live.run)
    history.write_together(alerting.statements())
