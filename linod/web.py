"""Addresses on the web that linod calls. Their paths are secrets, so that only the host is ever shown."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

LONGEST = 2000  # characters


def is_url(value: object) -> bool:
    """Whether linod can call it: http or https, with a host, in ASCII."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or not value.isascii() or not value.isprintable():
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and " " not in value
    except ValueError:  # a port or a bracket that is none
        return False


def shown(url: str) -> str:
    """Its scheme and its host, for everybody to read: `https://hc.example/...`. Itself an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/..."


def below(url: str, name: str) -> str:
    """The address one step deeper; what follows a question mark stays at its end."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))
