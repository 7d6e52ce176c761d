"""`linod.progress`: how a running task tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[[float, float | None, str], None]

_listener: Listener | None = None


def progress(done: float, total: float | None = None, text: str = "") -> None:
    """Tell how far the running task is: `done` of `total` (None: unknown), with a few words.

    Cheap enough to be called for every row. Does nothing where nobody listens: outside a run, in tests, in a web view.
    """
    if _listener is not None:
        _listener(done, total, text)


def listen(listener: Listener | None) -> None:
    """Let a worker or a terminal receive what tasks report; None ends it."""
    global _listener
    _listener = listener
