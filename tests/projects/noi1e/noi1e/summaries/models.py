"""What a summarized row is, and the task `checksummaries`."""

import logging

from django.apps import apps
from django.db import models

import linod
from linod import dd

logger = logging.getLogger(__name__)


class Summarized(models.Model):
    """A row with fields that store what is computed from other rows."""

    class Meta:
        abstract = True

    def compute_summary(self):
        """Return what the summary fields should be, as a dict by field name."""
        raise NotImplementedError


@dd.schedule_daily(at="20:00", rerun_lost=True)
def checksummaries():
    """Recompute the summary fields of all rows and save those that differ."""
    # The ids are fetched beforehand: an open cursor on SQLite would keep other writers out.
    rows = [
        (model, pk)
        for model in apps.get_models()
        if issubclass(model, Summarized)
        for pk in model._default_manager.order_by("pk").values_list("pk", flat=True)
    ]
    saved = 0
    for done, (model, pk) in enumerate(rows, 1):
        saved += refresh(model, pk)
        linod.progress(done, len(rows), str(model._meta.verbose_name_plural))
    logger.info("Recomputed %d summaries, %d were out of date.", len(rows), saved)


def refresh(model, pk):
    """Bring one row's summary up to date; tell whether that changed anything."""
    row = model._default_manager.filter(pk=pk).first()
    if row is None:  # deleted since we fetched its id
        return False
    changed = {field: value for field, value in row.compute_summary().items() if getattr(row, field) != value}
    if changed:
        # Only these fields, so that what somebody else saves meanwhile is kept.
        model._default_manager.filter(pk=pk).update(**changed)
    return bool(changed)
