"""Hand a mail over to the site's mail server, within a time limit."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage

from ..errors import ConfigurationError, LinodError
from .memory import Mail

LONGEST = 30.0  # seconds for each answer, however patient the site's own settings are


class NotSent(LinodError):
    """A mail could not be handed over."""


def send(message: EmailMessage, mail: Mail) -> list[str]:
    """Send a mail. Returns the addresses that the server has refused; raises NotSent where it took none."""
    server = f"{mail.host} port {mail.port}"
    try:
        with connect(mail) as connection:
            if mail.user:
                connection.login(mail.user, mail.password)
            return list(connection.send_message(message, mail.sender, list(mail.to)))
    except smtplib.SMTPRecipientsRefused as error:
        raise NotSent(f"The mail server {server} takes no mail for {', '.join(error.recipients)}.", HINT) from None
    except smtplib.SMTPAuthenticationError as error:
        raise NotSent(
            f"The mail server {server} refuses the password of {mail.user} ({error.smtp_code}).", HINT
        ) from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        # Never more of an exception than this: what was sent to the server may be in it.
        raise NotSent(f"The mail server {server} took no mail: {reason(error)}.", HINT) from None


HINT = "The next failure tries again. Another server or address can be named under [alert] in /etc/linod/SITE.toml."


def connect(mail: Mail) -> smtplib.SMTP:
    timeout = min(mail.timeout, LONGEST) if mail.timeout > 0 else LONGEST
    if mail.ssl:
        return smtplib.SMTP_SSL(mail.host, mail.port, timeout=timeout, context=ssl.create_default_context())
    connection = smtplib.SMTP(mail.host, mail.port, timeout=timeout)
    if mail.starttls:
        try:
            connection.starttls(context=ssl.create_default_context())
        except BaseException:
            connection.close()
            raise
    return connection


def reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        return f"{error.smtp_code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}" if isinstance(error, smtplib.SMTPException) else type(error).__name__


def require(mail: Mail, site: str) -> None:
    """Raises ConfigurationError where nobody could be told."""
    where = f"Write [alert] in /etc/linod/{site}.toml, with the addresses and the mail server."
    if not mail.to:
        raise ConfigurationError(f"Nobody is told about {site}: {mail.lacking or 'its ADMINS are empty'}.", where)
    if not mail.host:
        raise ConfigurationError(
            f"No mail about {site} can be sent: {mail.lacking or 'it names no mail server'}.", where
        )
