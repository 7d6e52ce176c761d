"""The stored problems, and the task `checkdata`."""

import logging

from django.db import models, transaction

import linod
from linod import dd
from noi1e.checkdata.checkers import CHECKERS

logger = logging.getLogger(__name__)


class Problem(models.Model):
    """Something that a checker found in a row the last time it looked."""

    checker = models.CharField(max_length=100, db_index=True)
    row_id = models.CharField(max_length=50)
    row_text = models.CharField(max_length=200)
    message = models.CharField(max_length=200)

    def __str__(self):
        return f"{self.row_text}: {self.message}"


@dd.schedule_daily(at="20:00", rerun_lost=True)
def checkdata():
    """Run all checkers and replace the stored problems by those that they find now."""
    Problem.objects.exclude(checker__in=[each.name for each in CHECKERS]).delete()
    found = 0
    for done, each in enumerate(CHECKERS, 1):
        problems = find_problems(each)
        with transaction.atomic():
            Problem.objects.filter(checker=each.name).delete()
            Problem.objects.bulk_create(problems)
        found += len(problems)
        linod.progress(done, len(CHECKERS), each.name)
    checked = sum(model._default_manager.count() for model in {each.model for each in CHECKERS})
    logger.info("Checked %d rows with %d checkers: %d problems found.", checked, len(CHECKERS), found)


def find_problems(checker):
    """Return the problems that `checker` finds now, not yet saved."""
    return [
        Problem(checker=checker.name, row_id=row.pk, row_text=str(row)[:200], message=message)
        for row in checker.model._default_manager.order_by("pk")
        for message in checker.check(row)
    ]
