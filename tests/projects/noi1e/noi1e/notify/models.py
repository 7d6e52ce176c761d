"""Messages to users."""

from django.conf import settings
from django.db import models
from django.utils import timezone


class Message(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="messages")
    created = models.DateTimeField(default=timezone.now)
    subject = models.CharField(max_length=200)
    body = models.TextField(blank=True)
    seen = models.DateTimeField(null=True, blank=True)

    # Written before the mail server is asked: the Message-ID of the mail that carries this message.
    # A mail whose end nobody saw is sent again with the same messages, hence with the same Message-ID.
    mail = models.CharField(max_length=255, blank=True, editable=False)
    # Written after the mail server took that mail.
    sent = models.DateTimeField(null=True, blank=True, db_index=True)

    def __str__(self):
        return self.subject
