"""How and to whom to send mail: the administrator's word in [alert], else what the site had in its settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import overrides
from ..errors import ConfigurationError, LinodError
from ..overrides import Alert
from ..sites import HostSite
from .memory import Mail, recall

NEVER_LOADED = Mail(lacking="it was never loaded, so that its mail settings are not known")


def find_mail(site: HostSite, state: Path) -> Mail:
    """Raises ConfigurationError where a file with a password cannot be read."""
    return with_alert(recall(state) or NEVER_LOADED, read_alert(site))


def read_alert(site: HostSite) -> Alert:
    """What SITE.toml says of alerts. A mistake in that file may be what people must be told of."""
    try:
        return overrides.read(site.overrides).alert
    except LinodError:
        return Alert()


def with_alert(mail: Mail, alert: Alert) -> Mail:
    if alert.host is not None:
        # Another server: what the site would have told its own, like a password, is not for this one.
        mail = Mail(to=mail.to, sender=mail.sender, prefix=mail.prefix, port=usual_port(alert))
    elif alert.to is not None and not mail.host:
        mail = replace(mail, host="localhost")  # an administrator who wants mail means that of this host
    password = None if alert.password_file is None else read_password(alert.password_file)
    given: dict[str, Any] = {
        "to": alert.to,
        "sender": alert.sender,
        "host": alert.host,
        "port": alert.port,
        "user": alert.user,
        "password": password,
        "starttls": alert.starttls,
        "ssl": alert.ssl,
    }
    return replace(mail, **{name: value for name, value in given.items() if value is not None})


def usual_port(alert: Alert) -> int:
    return 465 if alert.ssl else 587 if alert.starttls else 25


def read_password(path: str) -> str:
    try:
        return Path(path).read_text().rstrip("\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(
            f"The password in {path} cannot be read: {reason}.",
            f"Let the user of the site read it, and no other: chown www-data {path}, chmod 400 {path}",
        ) from None
