"""Tickets, comments and work sessions."""

from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models import Count, Max, Sum
from django.utils import timezone

from noi1e.checkdata.checkers import checker
from noi1e.summaries.models import Summarized


class TicketQuerySet(models.QuerySet):
    def open(self):
        return self.filter(state__in=[Ticket.State.NEW, Ticket.State.WORKING])


class Ticket(Summarized):
    class State(models.TextChoices):
        NEW = "new", "New"
        WORKING = "working", "Working"
        DONE = "done", "Done"
        REFUSED = "refused", "Refused"

    title = models.CharField(max_length=200)
    state = models.CharField(max_length=10, choices=State.choices, default=State.NEW)
    created = models.DateTimeField(default=timezone.now)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="reported_tickets")
    assigned_to = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="assigned_tickets",
    )

    comment_count = models.PositiveIntegerField(default=0, editable=False)
    last_comment = models.DateTimeField(null=True, editable=False)
    invested_minutes = models.PositiveIntegerField(default=0, editable=False)

    objects = TicketQuerySet.as_manager()

    def __str__(self):
        return f"#{self.pk} {self.title}"

    def compute_summary(self):
        comments = self.comments.aggregate(count=Count("pk"), last=Max("created"))
        return {
            "comment_count": comments["count"],
            "last_comment": comments["last"],
            "invested_minutes": self.work_sessions.aggregate(sum=Sum("minutes"))["sum"] or 0,
        }


class Comment(models.Model):
    ticket = models.ForeignKey(Ticket, models.CASCADE, related_name="comments")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="comments")
    created = models.DateTimeField(default=timezone.now)
    body = models.TextField()


class WorkSession(models.Model):
    """Time that somebody spent on a ticket."""

    ticket = models.ForeignKey(Ticket, models.CASCADE, related_name="work_sessions")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="work_sessions")
    started = models.DateTimeField(default=timezone.now)
    minutes = models.PositiveIntegerField(null=True, help_text="Empty while the session goes on.")

    def __str__(self):
        return f"Session {self.pk} on ticket #{self.ticket_id}"


@checker(Ticket)
def working_ticket_without_worker(ticket):
    if ticket.state == Ticket.State.WORKING and ticket.assigned_to_id is None:
        yield "Is being worked on, but by nobody."


@checker(WorkSession)
def endless_session(session):
    if session.minutes is None and session.started < timezone.now() - timedelta(days=1):
        yield "Was started more than a day ago and never ended."
