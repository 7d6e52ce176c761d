"""From messages to mails: which mails are due, what they look like, and what happens when the server says no."""

import hashlib
import logging
import smtplib
from dataclasses import dataclass, replace
from itertools import groupby

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.utils import timezone
from django.utils.html import format_html, format_html_join

import linod
from noi1e.notify.models import Message

logger = logging.getLogger(__name__)

# What is wrong with this mail only; the next one may be fine.
REFUSALS = (
    smtplib.SMTPSenderRefused,
    smtplib.SMTPRecipientsRefused,
    smtplib.SMTPDataError,
    smtplib.SMTPNotSupportedError,
    ValueError,  # an address or header that can't be written
)

# So many mails in a row whose connection fails, and the server counts as down.
FAILED_CONNECTIONS_LIMIT = 3


class MailsNotSent(Exception):
    """Some mails could not be sent; their messages stay pending."""


@dataclass(frozen=True)
class PendingMail:
    user_id: int
    message_pks: tuple
    message_id: str
    begun: bool  # an earlier run may have sent it


def send_pending_mails(mail_mode):
    """Send one mail to each user of this mail mode who has unsent messages.

    Raises MailsNotSent when all other mails are out.
    """
    mails = pending_mails(mail_mode)
    if not mails:
        return
    sent = failed_connections = 0
    connection = get_connection()
    try:
        for done, mail in enumerate(mails, 1):
            try:
                deliver(mail, connection)
                sent += 1
                failed_connections = 0
            except REFUSALS as error:
                logger.warning("The mail to user %s was refused: %s", mail.user_id, error)
                failed_connections = 0
                # It may be amid a conversation that broke off on our side.
                connection.close()
            except OSError as error:
                logger.warning("The mail to user %s could not be sent: %s", mail.user_id, error)
                failed_connections += 1
                connection.close()
                if failed_connections == FAILED_CONNECTIONS_LIMIT:
                    break
            linod.progress(done, len(mails), "mails")
    finally:
        connection.close()
    logger.info("Sent %d of %d mails.", sent, len(mails))
    if sent < len(mails):
        raise MailsNotSent(f"{len(mails) - sent} of {len(mails)} mails could not be sent; their messages stay pending.")


def pending_mails(mail_mode):
    """Return a snapshot of the mails to send: those that were begun first, else one a user."""
    unsent = (
        Message.objects.filter(sent=None, user__mail_mode=mail_mode, user__is_active=True)
        .exclude(user__email="")
        .order_by("user_id", "-mail", "pk")
        .values_list("user_id", "mail", "pk")
    )
    mails = []
    for (user_id, begun), rows in groupby(unsent, key=lambda row: row[:2]):
        pks = tuple(pk for *_, pk in rows)
        mails.append(PendingMail(user_id, pks, begun or make_message_id(pks), bool(begun)))
    return mails


def make_message_id(message_pks):
    """Return the Message-ID of a mail that carries these messages, always the same."""
    digest = hashlib.sha256(",".join(map(str, message_pks)).encode()).hexdigest()
    return f"<{digest[:32]}@{settings.MAIL_DOMAIN}>"


def deliver(mail, connection):
    """Send one mail and record that. Each step is committed on its own, so that a kill in between loses nothing."""
    messages = Message.objects.filter(pk__in=mail.message_pks)
    contents = list(messages.select_related("user").order_by("pk"))
    if not contents:  # deleted since the snapshot
        return
    email = compose(mail, contents)
    is_new = connection.open()
    if not mail.begun:
        messages.update(mail=mail.message_id)
    try:
        connection.send_messages([email])
    except smtplib.SMTPServerDisconnected:
        connection.close()
        if is_new:
            raise
        # It hung up, perhaps right after the last mail, perhaps after it took this one.
        deliver(replace(mail, begun=True), connection)
        return
    except REFUSALS:
        if not mail.begun:
            # The server certainly doesn't have it: the next mail may carry newer messages as well.
            messages.update(mail="")
        raise
    messages.update(sent=timezone.now())


def compose(mail, messages):
    subjects = [message.subject for message in messages]
    subject = subjects[0] if len(subjects) == 1 else f"{len(subjects)} messages"
    email = EmailMultiAlternatives(
        # A subject typed with a line break would be refused as a forged header.
        settings.EMAIL_SUBJECT_PREFIX + " ".join(subject.split()),
        "\n\n".join(f"* {message.subject}\n\n{message.body}" for message in messages),
        settings.SERVER_EMAIL,
        [messages[0].user.email],
        headers={"Message-ID": mail.message_id},
    )
    items = format_html_join("\n", "<li><b>{}</b><p>{}</p></li>", ((each.subject, each.body) for each in messages))
    email.attach_alternative(format_html("<ul>\n{}\n</ul>\n", items), "text/html")
    return email
