"""What may happen to a history: each harm is a function of the state directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from linod.archive import FILE
from linod.daemon.marks import MARKS

Harm = Callable[[Path], None]


def delete(state: Path) -> None:
    for path in state.glob(f"{FILE}*"):
        path.unlink(missing_ok=True)  # its daemon may be making it anew


def delete_with_starts(state: Path) -> None:
    delete(state)
    (state / MARKS).unlink()


def move_away(state: Path) -> None:
    """With all that is beside it."""
    elsewhere = state.with_name("elsewhere")
    shutil.rmtree(elsewhere, ignore_errors=True)
    state.rename(elsewhere)


def replace_by_text(state: Path) -> None:
    other = state / "other"
    other.write_text("This is no database.")
    other.rename(state / FILE)


def damage(state: Path) -> None:
    """All of it, so that nothing is left to read."""
    for path in (state / FILE, state / f"{FILE}-wal"):
        if path.exists():
            path.write_bytes(Random(0).randbytes(20_000))
