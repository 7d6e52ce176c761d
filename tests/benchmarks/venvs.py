"""One virtual environment for each peer, made when it is missing or its requirements have changed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / ".cache" / "bench"
DJANGO = "Django==5.2.*"
PATIENCE = 300  # seconds for pip


def python_for(name: str, requirements: list[str]) -> Path:
    """The interpreter of a virtual environment that has Django and these requirements."""
    home = CACHE / name
    stamp, wanted = home / "requirements.txt", "\n".join([DJANGO, *requirements])
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making {home}", file=sys.stderr)
        run(sys.executable, "-m", "venv", "--clear", str(home))
        run(str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", DJANGO, *requirements)
        stamp.write_text(wanted)
    return home / "bin" / "python"


def own_requirements() -> list[str]:
    """What linod itself needs, besides Django."""
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    return [text for text in dependencies if not text.startswith("Django")]


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=PATIENCE)
