"""All that `linodctl metrics` can tell, by name; docs/metrics.md explains it."""

from __future__ import annotations

from ..totals import Spread
from .exposition import Family, Number

FAMILIES = {
    "linod_build": ("info", "The linod that has collected this."),
    "linod_collected_timestamp_seconds": ("gauge", "When this was collected."),
    "linod_site_up": ("gauge", "Whether the tasks of the site are run, or it has none. 0: see linodctl status."),
    "linod_site_state": ("gauge", "How the site is: 1 for one of the states."),
    "linod_site_enabled": ("gauge", "Whether systemd starts the daemon of the site, or its timer, at boot."),
    "linod_site_paused": ("gauge", "Whether the whole site is paused."),
    "linod_site_start_timestamp_seconds": ("gauge", "Since when one process has run the tasks of the site."),
    "linod_site_workers": ("gauge", "Worker processes of the daemon."),
    "linod_site_memory_bytes": ("gauge", "Memory of all processes of the site."),
    "linod_site_history_readable": ("gauge", "Whether its history could be read. 0: there is nothing about its tasks."),
    "linod_site_history_writable": ("gauge", "Whether the daemon can write its history."),
    "linod_site_history_bytes": ("gauge", "Size of its history."),
    "linod_site_tasks": ("gauge", "Tasks that the site has declared."),
    "linod_site_running": ("gauge", "Runs that are going on."),
    "linod_site_stuck": ("gauge", "Runs that go on though their timeout and their grace are over."),
    "linod_site_lateness_seconds": ("histogram", "From due times to the starts of scheduled runs, when they are over."),
    "linod_task_runs": ("counter", "Runs that are over, by outcome."),
    "linod_task_duration_seconds": ("histogram", "How long runs took."),
    "linod_task_running": ("gauge", "Runs of the task that are going on."),
    "linod_task_next_due_timestamp_seconds": ("gauge", "When it is due next, unless it is paused or disabled."),
    "linod_task_overdue_seconds": ("gauge", "For how long a due time has been waiting for a start. 0: none is."),
    "linod_task_last_run_timestamp_seconds": ("gauge", "When its last run started."),
    "linod_task_last_success_timestamp_seconds": ("gauge", "When its last run that succeeded ended."),
    "linod_task_failures_in_a_row": ("gauge", "How many of its last runs went wrong, one after the other."),
    "linod_task_failing_since_timestamp_seconds": ("gauge", "When the first of these started."),
    "linod_task_paused": ("gauge", "Whether it is paused, by itself or with the whole site."),
    "linod_task_enabled": ("gauge", "Whether it is enabled."),
}


class Metrics:
    """All families, with what was added to each."""

    def __init__(self) -> None:
        self.families = {name: Family(name, kind, help) for name, (kind, help) in FAMILIES.items()}

    def add(self, name: str, value: Number | Spread | None, **labels: str) -> None:
        self.families[name].add(value, **labels)
