"""How hypothesis is used: a busy machine is no failure. And histories, opened as a daemon does."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from linod.conf import Settings
from linod.daemon.history import SqliteHistory

PATIENCE = 10.0  # seconds

settings.register_profile("linod", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("linod")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory."""
    return tmp_path


@pytest.fixture
def open_history(state: Path) -> Iterator[Callable[[], SqliteHistory]]:
    """Open the history of the state directory, as a daemon does; all are closed at the end."""
    opened: list[SqliteHistory] = []

    def open_() -> SqliteHistory:
        history = SqliteHistory(state, Settings())
        opened.append(history)
        return history

    yield open_
    for history in opened:
        history.close(PATIENCE)
