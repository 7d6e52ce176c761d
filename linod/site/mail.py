"""How the site tells people: what the daemon must know of it, also for when the site no longer works."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from .secrets import masked

if TYPE_CHECKING:
    from .load import Site

SMTP = "django.core.mail.backends.smtp.EmailBackend"


def mail_settings(settings: Any) -> dict[str, Any]:
    """ADMINS, SERVER_EMAIL and the mail server, with the names of linod.alert.memory.Mail.

    There is a server only where the site uses one: a site that writes mails to files must not begin to send them. Never
    raises, for a mistake in there is no reason not to run tasks, or to tell nobody.
    """
    return readable(server, settings, "its mail server's settings") | readable(people, settings, "its ADMINS")


def readable(part: Callable[[Any], dict[str, Any]], settings: Any, what: str) -> dict[str, Any]:
    """A part of the mail settings; instead of one that cannot be read, why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Django 6.1 warns of each of the older settings
            return part(settings)
    except ConfigurationError as error:
        return {"lacking": error.message}
    except Exception as error:
        return {"lacking": masked(f"{what} cannot be read ({type(error).__name__}: {error})")}


def people(settings: Any) -> dict[str, Any]:
    return {
        "to": addresses(settings.ADMINS),
        "sender": settings.SERVER_EMAIL,
        "prefix": settings.EMAIL_SUBJECT_PREFIX,
    }


def addresses(admins: Iterable[Any]) -> list[str]:
    """ADMINS are addresses, or pairs of a name and an address; raises ConfigurationError for one pair that is alone."""
    match admins:
        case tuple((str(name), str(address))) if "@" in address and "@" not in name:
            raise ConfigurationError("its ADMINS are one pair, not a list of pairs: a comma is missing")
    return [str(admin if isinstance(admin, str) else admin[1]) for admin in admins]


def server(settings: Any) -> dict[str, Any]:
    if mailers := getattr(settings, "MAILERS", None):
        return server_of_mailer(mailers.get("default", {}))
    if settings.EMAIL_BACKEND != SMTP:
        return no_server(settings.EMAIL_BACKEND)
    return {
        "host": settings.EMAIL_HOST,
        "port": settings.EMAIL_PORT,
        "user": settings.EMAIL_HOST_USER or "",
        "password": settings.EMAIL_HOST_PASSWORD or "",
        "starttls": bool(settings.EMAIL_USE_TLS),
        "ssl": bool(settings.EMAIL_USE_SSL),
        **patience(settings.EMAIL_TIMEOUT),
    }


def server_of_mailer(mailer: Mapping[str, Any]) -> dict[str, Any]:
    """MAILERS of Django 6.1 and newer."""
    backend, options = mailer.get("BACKEND", ""), mailer.get("OPTIONS") or {}
    if backend != SMTP:
        return no_server(backend)
    starttls, ssl = bool(options.get("use_tls")), bool(options.get("use_ssl"))
    return {
        "host": options.get("host", ""),
        "port": options.get("port") or (465 if ssl else 587 if starttls else 25),
        "user": options.get("username") or "",
        "password": options.get("password") or "",
        "starttls": starttls,
        "ssl": ssl,
        **patience(options.get("timeout")),
    }


def no_server(backend: str) -> dict[str, Any]:
    return {"lacking": f"the site sends mail with {backend or 'nothing'}, not through a mail server"}


def patience(seconds: float | None) -> dict[str, Any]:
    return {"timeout": float(seconds)} if seconds else {}


def channels_of(site: Site) -> list[str]:
    """By which ways anybody is to be told of the site's tasks."""
    from ..signals import task_alert

    if not site.settings.alert_tasks:
        return []
    wanted = {"mail": recipients(site), "url": site.settings.alert_url, "signal": task_alert.receivers}
    return [name for name, wants in wanted.items() if wants]


def recipients(site: Site) -> list[str]:
    """Whom a mail goes to: the administrator's choice, else ADMINS."""
    given = site.overrides.alert.to
    return list(given) if given is not None else administrators().get("to", [])


def administrators() -> dict[str, Any]:
    """ADMINS of this process's site, or why they cannot be read."""
    from django.conf import settings

    return readable(people, settings, "its ADMINS")


def why_nobody() -> str:
    """Why there is nobody among them, in words."""
    return str(administrators().get("lacking", "its ADMINS are empty"))


def nobody_is_told(site: Site) -> list[str]:
    """A hint, where nobody hears of a task that fails though nobody has said that it be so."""
    chosen = site.overrides.alert.to is not None  # also to be nobody
    if chosen or not site.settings.alert_tasks or recipients(site) or site.settings.alert_url:
        return []
    return [
        f"Nobody is told when a task fails, for {why_nobody()}. Name somebody in its settings, or in"
        f' /etc/linod/{site.name}.toml, under [alert]: to = "admin@example.org"'
    ]
