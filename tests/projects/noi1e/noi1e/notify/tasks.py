"""The tasks `send_pending_emails_often`, `send_pending_emails_daily` and `clear_seen_messages`."""

import logging
from datetime import timedelta

from django.utils import timezone

from linod import dd
from noi1e.notify.mails import send_pending_mails
from noi1e.notify.models import Message
from noi1e.users.models import User

logger = logging.getLogger(__name__)

KEEP_SEEN_MESSAGES = timedelta(hours=24)


@dd.schedule_often(every=10, rerun_lost=True)
def send_pending_emails_often():
    """Mail their new messages to those who want them at once."""
    send_pending_mails(User.MailMode.OFTEN)


@dd.schedule_daily(at="20:00", rerun_lost=True)
def send_pending_emails_daily():
    """Mail their new messages to those who want one mail a day."""
    send_pending_mails(User.MailMode.DAILY)


@dd.schedule_daily(at="20:00", rerun_lost=True)
def clear_seen_messages():
    """Delete the messages that were seen and are older than a day."""
    old = timezone.now() - KEEP_SEEN_MESSAGES
    deleted, _ = Message.objects.filter(seen__isnull=False, created__lt=old).delete()
    logger.info("Deleted %d seen messages.", deleted)
