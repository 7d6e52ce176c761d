"""Run a row, by Lino's own `start_task`, so that Lino's own columns, signals and logs are as its users know them.

Three things are otherwise. An exception doesn't disable the row for ever: it is hidden from Lino, and told to linod,
which knows retries and pauses. Only Lino's own columns are written, so that what a user changes meanwhile stays. And
whoever ends the run, the row doesn't stay `running`.
"""

from __future__ import annotations

import inspect
import threading
import traceback
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync
from django.utils import timezone

from ..call import describe, format_traceback

LOOP_ENDS_WITHIN = 1.0  # seconds
FAILED = "<pre>Failed: "  # how the message of a row begins whose last run went wrong
AT_START = ("last_start_time", "last_end_time", "requested_at", "message")
# Not requested_at: somebody may have asked for one more run meanwhile.
AT_END = ("last_start_time", "last_end_time", "message")


def run_row(model: Any, pk: Any) -> None:
    """Run a row, and raise what its procedure has raised."""
    row = model.objects.get(pk=pk)
    Attempt(row).make()


class Attempt:
    """One run of a row."""

    def __init__(self, row: Any) -> None:
        self.row = row
        self.failed_before = row.message.startswith(FAILED)
        self.error: Exception | None = None

    def make(self) -> None:
        row = self.row
        # linod runs none twice at the same time: where it says that it is running, its process was killed.
        row.last_start_time = row.last_end_time = None
        row.run_task, row.save = self.run_task, self.save
        threads = set(threading.enumerate())
        try:
            async_to_sync(row.start_task)(request())
        except BaseException as error:
            what = describe(error) if isinstance(error, Exception) else "it was ended before it was done"
            heal(row, f"{what}\n{format_traceback(error)}")
            raise
        finally:
            # The thread of the event loop may need a moment to end, and a worker with a thread too many is replaced.
            for thread in set(threading.enumerate()) - threads:
                thread.join(LOOP_ENDS_WITHIN)
        if self.error is not None:
            if not self.failed_before:
                notify(row)
            raise self.error

    def run_task(self, ar: Any) -> Any:
        """What Lino calls, instead of the model's method."""
        try:
            result = type(self.row).run_task(self.row, ar)
            return async_to_sync(partial(finish, result))() if inspect.isawaitable(result) else result
        except Warning:
            raise  # a procedure's own word for that there was nothing to do
        except Exception as error:
            self.error = error
            ar.logger.warning("%s failed: %s", self.row, describe(error))
            raise Warning from error

    def save(self, *_arguments: Any, **_options: Any) -> None:
        """What Lino calls to write the row, at the start and at the end."""
        row = self.row
        if row.last_end_time is None:
            type(row).save(row, update_fields=AT_START)
            return
        if self.error is not None:
            logged = row.message.removeprefix("<pre>").removesuffix("</pre>")
            row.message = f"{FAILED}{describe(self.error)}\n{logged}\n{format_traceback(self.error)}</pre>"
        type(row).save(row, update_fields=AT_END)


async def finish(awaitable: Any) -> Any:
    return await awaitable


def request() -> Any:
    """What a procedure is given: a request of the user who is the daemon."""
    from django.conf import settings
    from lino.core.requests import BaseRequest

    users = settings.SITE.user_model.objects.filter(username=settings.SITE.plugins.linod.daemon_user)
    return BaseRequest(user=users.first())


def heal(row: Any, reason: str) -> bool:
    """Say in a row that its run has ended, unless it has meanwhile been run again."""
    running = type(row).objects.filter(pk=row.pk, last_start_time=row.last_start_time, last_end_time=None)
    return bool(running.update(last_end_time=timezone.now(), message=f"{FAILED}{reason}</pre>"))


def notify(row: Any) -> None:
    """Tell the site's administrators, in the words and by the ways of Lino, that a task has failed."""
    from lino.api import _, dd, rt

    if not dd.is_installed("notify"):
        return
    ar = row.get_default_table().create_request(parent=request())
    message = (_("Task {} failed").format(row), _("A system task has failed and needs your attention."))
    kind = rt.models.notify.MessageTypes.system
    try:
        rt.models.notify.Message.emit_notification(ar, row, kind, lambda _user: message, dd.SiteAdmin.users_for_role())
    except Exception:
        traceback.print_exc()  # a mistake here must not hide why the task has failed
