"""How far a task is, drawn on the line of a terminal where the cursor is."""

from __future__ import annotations

import math
import shutil
import sys

WIDTH = 20


class Bar:
    """Draws on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._wanted = sys.stderr.isatty()
        self._drawn = False

    def draw(self, done: float, total: float | None, text: str) -> None:
        """Draw it anew."""
        if self._wanted:
            self._drawn = True
            # One column stays free: some terminals begin a new line when the last one is used.
            line = line_of(done, total, text)[: shutil.get_terminal_size().columns - 1]
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for other text."""
        if self._drawn:
            self._drawn = False
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def line_of(done: float, total: float | None, text: str) -> str:
    """The bar in characters, with nothing in it that a terminal would obey."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    if not total or total < 0 or not math.isfinite(done) or not math.isfinite(total):
        return f"{done:g} {printable}"
    share = min(max(done / total, 0.0), 1.0)
    return f"{share:4.0%} [{'#' * round(WIDTH * share):{WIDTH}}] {done:g}/{total:g} {printable}"
