"""linod runs the background tasks of Django and Lino sites as a native systemd service.

This is what an application imports:

    from linod import dd, task

    @dd.schedule_often(every=10)
    def send_pending_emails(): ...

    @task(cron="5 4 * * mon", retries=3)
    def weekly_report(): ...
"""

from . import dd
from .dd import schedule_daily, schedule_often
from .errors import DeclarationError
from .progress import progress
from .task import task

__all__ = ["DeclarationError", "__version__", "dd", "progress", "schedule_daily", "schedule_often", "task"]
__version__ = "1.0.0.dev0"
