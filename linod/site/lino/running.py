"""Run a row, by Lino's own `start_task`, so that Lino's own columns, signals and logs are as its users know them.

Three things are otherwise. An exception doesn't disable the row for ever: it is hidden from Lino, and told to linod,
which knows retries and pauses. Only Lino's own columns are written, so that what a user changes meanwhile stays. And
whoever ends the run, the row doesn't stay `running`.
"""

from __future__ import annotations

import inspect
import logging
import threading
import traceback
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync
from django.utils import timezone

from ..call import describe, format_traceback, wait_for

LOOP_ENDS_WITHIN = 1.0  # seconds
FAILED = "<pre>Failed: "  # how the message of a row begins whose last run went wrong
# A run that is asked to end doesn't know why; the watcher puts the reason in the place of this.
ENDED_EARLY = "it was ended before it was done"
AT_START = ("last_start_time", "last_end_time", "requested_at", "message")
# Not requested_at: somebody may have asked for one more run meanwhile.
AT_END = ("last_start_time", "last_end_time", "message")

logger = logging.getLogger(__name__)


def run_row(model: Any, pk: Any) -> None:
    """Run a row, and raise what its procedure has raised."""
    row = model.objects.filter(pk=pk).first()
    if row is None:
        logger.info("It is not run: its row %s has been deleted.", pk)
    else:
        Attempt(row).make()


class Attempt:
    """One run of a row."""

    def __init__(self, row: Any) -> None:
        self.row = row
        self.failed_before = row.message.startswith(FAILED)
        self.begun = False  # its row says so
        self.error: Exception | None = None

    def make(self) -> None:
        row = self.row
        # linod runs none twice at the same time: where it says that it is running, its process was killed.
        row.last_start_time = row.last_end_time = None
        row.run_task, row.save = self.run_task, self.save
        threads = set(threading.enumerate())
        try:
            async_to_sync(row.start_task)(request())
        except Exception as error:  # raised by Lino, as where it finds that the row is not valid
            self.error = self.error or error
            self.end(describe(self.error), self.error)
        except BaseException as error:
            if self.begun:
                self.end(ENDED_EARLY, error)
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
            return async_to_sync(partial(wait_for, result))() if inspect.isawaitable(result) else result
        except Warning:
            raise  # a procedure's own word for that there was nothing to do
        except Exception as error:
            self.error = error
            ar.logger.warning("%s failed: %s", self.row, describe(error))
            raise Warning from error

    def save(self, *_arguments: Any, **_options: Any) -> None:
        """What Lino calls to write the row, at the start and at the end."""
        row = self.row
        if not exists(row):
            return  # somebody has deleted it meanwhile
        if row.last_end_time is None:
            type(row).save(row, update_fields=AT_START)
            self.begun = True
            return
        if self.error is not None:
            logged = row.message.removeprefix("<pre>").removesuffix("</pre>")
            row.message = f"{FAILED}{describe(self.error)}\n{logged}\n{format_traceback(self.error)}</pre>"
        type(row).save(row, update_fields=AT_END)

    def end(self, what: str, error: BaseException) -> None:
        """Write into the row that the run has ended, where Lino itself did not come to that."""
        row = self.row
        row.last_end_time = None
        if not self.begun:
            row.last_start_time = timezone.now()
            begun = {"last_start_time": row.last_start_time, "last_end_time": None, "requested_at": None}
            type(row).objects.filter(pk=row.pk).update(**begun)
        heal(row, f"{what}\n{format_traceback(error)}")


def exists(row: Any) -> bool:
    return bool(type(row).objects.filter(pk=row.pk).exists())


def request() -> Any:
    """What a procedure is given: a request of the user who is the daemon."""
    from django.conf import settings
    from lino.core.requests import BaseRequest

    users = settings.SITE.user_model.objects.filter(username=settings.SITE.plugins.linod.daemon_user)
    return BaseRequest(user=users.first())


def heal(row: Any, reason: str) -> bool:
    """Say in a row why its run has ended, unless somebody has written otherwise since it was read."""
    same = type(row).objects.filter(pk=row.pk, last_start_time=row.last_start_time, last_end_time=row.last_end_time)
    ended = row.last_end_time or timezone.now()
    return bool(same.update(last_end_time=ended, message=f"{FAILED}{reason}</pre>"))


def notify(row: Any) -> None:
    """Tell the site's administrators, in the words and by the ways of Lino, that a task has failed."""
    from lino.api import dd

    try:
        if dd.is_installed("notify") and exists(row):
            emit_notification(row)
    except Exception:
        traceback.print_exc()  # a mistake here must not hide why the task has failed


def emit_notification(row: Any) -> None:
    from lino.api import _, dd, rt

    ar = row.get_default_table().create_request(parent=request())
    message = (_("Task {} failed").format(row), _("A system task has failed and needs your attention."))
    kind = rt.models.notify.MessageTypes.system
    rt.models.notify.Message.emit_notification(ar, row, kind, lambda _user: message, dd.SiteAdmin.users_for_role())
