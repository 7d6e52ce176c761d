"""The words of an alert: what has failed, how, what to do, and the last lines of its journal."""

from __future__ import annotations

import re
from email.message import EmailMessage
from email.utils import localtime, make_msgid

from ..errors import EXIT_CONFIGURATION, EXIT_TRY_LATER
from .gather import Failure
from .memory import Mail

LONGEST_LINE = 1000  # characters of one line of the journal; a traceback is many lines
RESULTS = {
    "timeout": "It did not start or stop within its time limit.",
    "watchdog": "It was stuck: it no longer told systemd that it is alive. The journal shows where it was.",
    "oom-kill": "The kernel ran out of memory and killed it.",
    "start-limit-hit": "It was started too often within a short time.",
    "resources": "systemd lacked something to start it: memory, a file, a permission.",
    "protocol": "It ended before it had told systemd that it was ready.",
}


def failure_mail(failure: Failure, mail: Mail) -> EmailMessage:
    """Tell that a site has failed."""
    parts = [
        f"The background tasks of {failure.site} on {failure.host} are not run any more: {failure.unit} has failed.",
        "\n".join([what_happened(failure), *(f"It said last: {said}" for said in filter(None, [failure.said]))]),
        "What to do:\n" + "\n".join(f"  {step}" for step in what_to_do(failure)),
        journal(failure),
        "There is no further mail about this until the site is back.",
    ]
    return message(mail, f"{failure.site} has failed on {failure.host}", parts, failure)


def recovery_mail(failure: Failure, since: str, mail: Mail) -> EmailMessage:
    """Tell that a site runs again."""
    text = f"The background tasks of {failure.site} on {failure.host} are run again since {failure.when}."
    before = f"That they had failed was told on {since}."
    after = f"What was missed is caught up. See what has run: linodctl history {failure.site}"
    return message(mail, f"{failure.site} is back on {failure.host}", [text, before, after], failure)


def test_mail(failure: Failure, mail: Mail) -> EmailMessage:
    """Show that a mail would arrive."""
    text = f"Should the background tasks of {failure.site} on {failure.host} fail, a mail like this one will tell."
    return message(mail, f"{failure.site} on {failure.host}: a test", [text], failure)


def message(mail: Mail, subject: str, parts: list[str], failure: Failure) -> EmailMessage:
    composed = EmailMessage()
    composed["Subject"] = one_line(f"{mail.prefix}linod: {subject}")
    composed["From"] = one_line(mail.sender)
    composed["To"] = ", ".join(map(one_line, mail.to))
    composed["Date"] = localtime()
    composed["Message-ID"] = make_msgid("linod", domain=re.sub(r"[^A-Za-z0-9.-]", "", failure.host) or "localhost")
    composed["Auto-Submitted"] = "auto-generated"  # no holiday notice answers it
    composed["X-Linod-Site"] = one_line(failure.site)
    composed.set_content(unicode("\n\n".join(filter(None, parts)) + "\n"))
    return composed


def what_happened(failure: Failure) -> str:
    """How it ended, in words."""
    if failure.gave_up or failure.result == "start-limit-hit":
        return f"It ended again and again, and systemd has given up restarting it. {how_it_ended(failure)}".strip()
    return RESULTS.get(failure.result) or how_it_ended(failure) or "Nothing more is known of how it ended."


def how_it_ended(failure: Failure) -> str:
    if failure.code in ("killed", "dumped"):
        return f"The last time, a signal ended it: {failure.status}."
    if failure.code != "exited":
        return ""
    if failure.status == str(EXIT_CONFIGURATION):
        return "Something must be mended before it can start (exit code 78)."
    if failure.status == str(EXIT_TRY_LATER):
        return "Another process runs the tasks of this site (exit code 75)."
    return f"The last time, it ended with exit code {failure.status}."


def what_to_do(failure: Failure) -> list[str]:
    steps = [
        f"linodctl check {failure.site}    tells whether it would start, and if not, what to mend",
        f"journalctl -u {failure.unit}    has all that it said",
    ]
    if failure.gave_up or failure.result == "start-limit-hit":
        steps.append(f"systemctl reset-failed {failure.unit}    lets systemd start it again")
    return [*steps, f"systemctl start {failure.unit}    starts it"]


def journal(failure: Failure) -> str:
    if not failure.lines:
        return ""
    return "The last lines of its journal:\n\n" + "\n".join(line[:LONGEST_LINE] for line in failure.lines)


def one_line(text: str) -> str:
    """A header has one line: what follows a line break would be another header."""
    return " ".join(unicode(text).split())


def unicode(text: str) -> str:
    """Python makes surrogates of bytes that it could not decode, and no mail can hold them."""
    return text.encode("utf-8", "replace").decode()
