"""Repositories and their commits."""

import re

from django.db import models

from noi1e.checkdata.checkers import checker
from noi1e.tickets.models import Ticket


class Repository(models.Model):
    name = models.CharField(max_length=100, unique=True)
    path = models.CharField(max_length=255, help_text="Absolute, or relative to the site's var directory.")
    # The commit up to which the history is in the database.
    tip = models.CharField(max_length=64, blank=True, editable=False)

    class Meta:
        verbose_name_plural = "repositories"

    def __str__(self):
        return self.name


class Commit(models.Model):
    repository = models.ForeignKey(Repository, models.CASCADE, related_name="commits")
    sha = models.CharField(max_length=64)
    committed = models.DateTimeField()
    author = models.CharField(max_length=200)
    summary = models.CharField(max_length=200)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["repository", "sha"], name="commit_only_once")]

    def __str__(self):
        return f"{self.sha[:8]} {self.summary}"


@checker(Commit)
def commit_for_unknown_ticket(commit):
    for number in re.findall(r"#(\d{1,9})\b", commit.summary):
        if not Ticket.objects.filter(pk=number).exists():
            yield f"Names ticket #{number}, which doesn't exist."
