"""Tell people of tasks, in the site's own ways: by its mail, by addresses on the web, by a signal.

Each raises NotTold where that was not possible. No address on the web is ever shown but by its host.
"""

from __future__ import annotations

import http.client
import json
import smtplib
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

from .. import __version__, web
from ..alert import letter
from ..alert.find import with_alert
from ..alert.memory import Mail
from ..alert.send import reason, send
from ..alert.task import Event, TaskAlert
from ..errors import LinodError
from ..sites import linked_name
from .call import describe
from .load import Site
from .mail import recipients, why_nobody

WITHIN = 10.0  # seconds for an address on the web
SCHEMA = 1  # of what is sent to alert_url
TEST = "Should a task fail, a message like this one will tell."
MOMENTS = {"start": "start", "success": "", "fail": "fail"}  # what stands behind the address of a ping
Alerts = Sequence[Mapping[str, Any]]


class NotTold(LinodError):
    """Nobody could be told."""


def try_all(site: Site) -> list[dict[str, str]]:
    """What was tried to tell people, and why that was not possible. Pings would be believed, and are left alone."""
    test = TaskAlert(number=0, event=str(Event.TEST), task="", name="", at=datetime.now(UTC).isoformat(), reason=TEST)
    alerts = [test.as_dict()]
    to, url = recipients(site), site.settings.alert_url
    ways: list[tuple[str, Callable[[], None]]] = []
    if to or not url:
        ways.append((f"mail to {', '.join(to) or 'nobody'}", lambda: send_mail(site, alerts, 0)))
    if url:
        ways.append((f"message to {web.shown(url)}", lambda: post(site, alerts, 0)))
    return [{"way": way, "problem": problem_of(tell)} for way, tell in ways]


def problem_of(tell: Callable[[], None]) -> str:
    try:
        tell()
    except LinodError as error:
        return str(error)
    return ""


# Mail


def send_mail(site: Site, alerts: Alerts, more: int) -> None:
    """One mail about all these."""
    linked = linked_name(Path.cwd()) is not None
    text = letter.text(site.name, socket.gethostname(), alerts, more, linked=linked)
    mail(site, letter.subject(site.name, alerts, more), text)


def mail(site: Site, subject: str, text: str) -> None:
    """Send a mail as Django's mail_admins does, or through the server that the administrator has chosen."""
    from django.conf import settings
    from django.core.mail import EmailMessage

    alert, to = site.overrides.alert, recipients(site)
    if not to:
        raise NotTold(f"there is nobody to write to, for {why_nobody()}")
    message = EmailMessage(
        subject=" ".join(f"{settings.EMAIL_SUBJECT_PREFIX}{subject}".split()),
        body=text,
        from_email=alert.sender or settings.SERVER_EMAIL,
        to=to,
        headers={"Auto-Submitted": "auto-generated", "Date": formatdate(localtime=True), "X-Linod-Site": site.name},
    )
    try:
        if alert.host is None:
            message.send()
        else:
            send(message.message(), with_alert(Mail(to=tuple(to), sender=message.from_email), alert))
    except LinodError as error:
        raise NotTold(error.message.removesuffix(".")) from None
    except (OSError, smtplib.SMTPException) as error:
        raise NotTold(f"the site's mail server took no mail: {reason(error)}") from None
    except Exception as error:
        raise NotTold(f"the site's way to send mail has failed: {describe(error)}") from None


# Addresses on the web


def post(site: Site, alerts: Alerts, more: int) -> None:
    """Tell the address of `alert_url`."""
    told = {
        "schema": SCHEMA,
        "site": site.name,
        "host": socket.gethostname(),
        "alerts": [dict(alert) for alert in alerts],
        "more": more,
    }
    call(site.settings.alert_url, json.dumps(told).encode(), "application/json")


def ping(site: Site, task: str, moment: str, text: str) -> None:
    """Call the address of a task, for a moment of its run: start, success or fail."""
    declaration = site.find(task)
    url = declaration and declaration.task.policies.ping
    if not url:
        return  # it has been taken away since
    if end := MOMENTS[moment]:
        url = web.below(url, end)
    call(url, text.encode("utf-8", "replace") if moment == "fail" else None, "text/plain; charset=utf-8")


def call(url: str, body: bytes | None, kind: str) -> None:
    """GET, or POST where there is a body."""
    request = urllib.request.Request(url, data=body, headers={"User-Agent": f"linod/{__version__}"})
    if body is not None:
        request.add_header("Content-Type", kind)
    try:
        with opener(follows=body is None).open(request, timeout=WITHIN) as answer:
            answer.read(1000)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotTold(f"{web.shown(url)} {answer_of(error)}") from None


def opener(*, follows: bool) -> urllib.request.OpenerDirector:
    """What uses proxies and, where it `follows`, redirections, but knows no other kinds of addresses, such as files.

    A POST that is redirected would come as a GET, without its body.
    """
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        director.add_handler(handler)
    if follows:
        director.add_handler(urllib.request.HTTPRedirectHandler())
    return director


def answer_of(error: Exception) -> str:
    """What came of a call. Never the text of the exception: the address may be in it."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(error, urllib.error.HTTPError):
        return f"answers {error.code} ({http.client.responses.get(error.code, 'which is no status of HTTP')})"
    if isinstance(cause, TimeoutError):
        return f"does not answer within {WITHIN:g} s"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"has a certificate that cannot be trusted: {cause.verify_message}"
    if isinstance(cause, OSError) and cause.strerror:
        return f"cannot be reached: {cause.strerror}"
    return f"cannot be called: {type(cause).__name__}"


# The signal


def signal(site: Site, alerts: Alerts) -> None:
    """Send the signal for each alert; one receiver that raises keeps no other from hearing it."""
    from ..signals import task_alert

    problems = []
    for alert in alerts:
        declaration = site.find(alert["task"])
        sender = declaration.function if declaration else None
        for receiver, answer in task_alert.send_robust(sender=sender, alert=dict(alert)):
            if isinstance(answer, Exception):
                problems.append(f"the receiver {name_of(receiver)} raised {describe(answer)}")
    if problems:
        raise NotTold("; ".join(dict.fromkeys(problems)))


def name_of(receiver: Any) -> str:
    return getattr(receiver, "__qualname__", type(receiver).__name__)
