"""Users, with how they want their messages and what is summed up about their work."""

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Sum

from noi1e.checkdata.checkers import checker
from noi1e.summaries.models import Summarized


class User(Summarized, AbstractUser):
    class MailMode(models.TextChoices):
        OFTEN = "often", "Mail me at once"
        DAILY = "daily", "One mail a day"
        SILENT = "silent", "No mails"

    mail_mode = models.CharField(max_length=10, choices=MailMode.choices, default=MailMode.OFTEN)

    open_tickets = models.PositiveIntegerField(default=0, editable=False)
    invested_minutes = models.PositiveIntegerField(default=0, editable=False)

    def compute_summary(self):
        return {
            "open_tickets": self.assigned_tickets.open().count(),
            "invested_minutes": self.work_sessions.aggregate(sum=Sum("minutes"))["sum"] or 0,
        }


@checker(User)
def user_without_address(user):
    if user.is_active and not user.email and user.mail_mode != User.MailMode.SILENT:
        yield "Wants mails but has no address."
