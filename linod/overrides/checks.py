"""What may stand behind each key. A check takes a key and its value and gives what it means, or raises a LinodError."""

from __future__ import annotations

from collections.abc import Callable
from datetime import time
from typing import Any

from .. import conf
from ..errors import ConfigurationError
from ..schedules.spans import span_of
from ..schedules.zones import zone_name
from ..task import Policies

Check = Callable[[str, Any], Any]

WHEN = ("every", "at", "cron")
POLICIES = (
    "enabled",
    "timeout",
    "grace",
    "overlap",
    "catch_up",
    "retries",
    "retry_delay",
    "late_after",
    "stuck_after",
    "ping",
)
# What [alert] says of tasks, and the settings of linod that it means.
TASK_ALERTS = {"tasks": "alert_tasks", "url": "alert_url", "every": "alert_every", "late_after": "late_after"}
LARGEST = 10**15  # of whatever it is; and Python refuses to print some of the numbers that TOML can write


def wrong(key: str, value: object, what: str, example: str) -> ConfigurationError:
    shown = {dict: "a table", list: "a list", bool: str(value).lower()}.get(type(value)) or repr(value)
    return ConfigurationError(f"`{key}` is {shown}, not {what}.", f"Write for example {example}.")


def table(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"`{key}` is not a table.", f"Begin it with a line of its own: [{key}]")
    return value


def text(what: str, example: str) -> Check:
    def check(key: str, value: Any) -> Any:
        if not isinstance(value, str) or not value or not value.isprintable() or value != value.strip():
            raise wrong(key, value, what, f'{key} = "{example}"')
        return value

    return check


def flag(key: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise wrong(key, value, "true or false", f"{key} = true")
    return value


def plain(key: str, value: Any) -> Any:
    """A number or a text."""
    if not isinstance(value, str | int | float) or (isinstance(value, int) and abs(value) > LARGEST):
        raise wrong(key, value, "a number or a text", f"{key} = 10")
    return value


def setting(key: str, value: Any) -> Any:
    conf.check(key, plain(key, value), key)
    return value


def task_alert(key: str, value: Any) -> Any:
    conf.check(TASK_ALERTS[key], plain(key, value), key)
    return value


def policy(key: str, value: Any) -> Any:
    Policies(**{key: plain(key, value)})
    return value


def times(key: str, value: Any) -> Any:
    """As TOML has them: texts, or its own times of day."""
    if not all(isinstance(each, str | time) for each in (value if isinstance(value, list) else [value])):
        raise wrong(key, value, "a time of day or a list of them", f'{key} = "20:00"')
    return value


def zone(key: str, value: Any) -> Any:
    return zone_name(plain(key, value))


def seconds(key: str, value: Any) -> Any:
    length = span_of(plain(key, value), key).seconds
    if not 0 <= length < float("inf"):
        raise wrong(key, value, "a length of time", f"{key} = 60")
    return length


def port(key: str, value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise wrong(key, value, "the number of a port", f"{key} = 587")
    return value


def absolute_path(key: str, value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        raise wrong(key, value, "an absolute path", f'{key} = "/etc/linod/mail.password"')
    return value


def address(key: str, value: Any) -> Any:
    """One that a mail server may take; `root` is one, too. What could begin another line of a mail is none."""
    if not isinstance(value, str) or not value.isprintable() or not value or set(value) & set(" ,;<>"):
        raise wrong(key, value, "a mail address", f'{key} = "admin@example.org"')
    return value


def addresses(key: str, value: Any) -> Any:
    return tuple(address(key, each) for each in (value if isinstance(value, list) else [value]))


TOP: dict[str, Check] = {
    "python": text("the path of a program", "env/bin/python"),
    "settings": text("the name of a module", "myprj.settings"),
    "use_linod": flag,
    **dict.fromkeys(conf.DEFAULTS, setting),
}
ALERT: dict[str, Check] = {
    "to": addresses,
    "from": address,
    "host": text("the name of a host", "mail.example.org"),
    "port": port,
    "user": text("the name of a user", "linod"),
    "password_file": absolute_path,
    "starttls": flag,
    "ssl": flag,
    **dict.fromkeys(TASK_ALERTS, task_alert),
}
TASK: dict[str, Check] = {
    "every": plain,
    "at": times,
    "cron": plain,
    "tz": zone,
    "jitter": seconds,
    "enabled": flag,
    **{key: policy for key in POLICIES if key != "enabled"},
}
