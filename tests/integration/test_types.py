"""What an application imports is typed: mypy sees what a declaration does wrong before it is run."""

import subprocess
import sys
from pathlib import Path

import pytest

# It asks mypy, which is only there where the development tools are.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

TYPED = """
from datetime import UTC, datetime, timedelta

import linod
from linod import dd, progress, task


@dd.schedule_often(every=10, timeout=60)
def often() -> int:
    return 1


@linod.schedule_daily(at="20:00", retries=3)
def daily(days: int = 7) -> str:
    return str(days)


@task(every=timedelta(minutes=5), overlap="queue", catch_up="none", until=datetime(2030, 1, 1, tzinfo=UTC))
async def asynchronous() -> None:
    progress(1, 2, "half")


@task(at=["08:00", "20:00"], tz="Europe/Brussels", lock="mails", jitter=60)
def twice() -> None: ...


number: int = often()
text: str = daily(days=3)
number = daily()  # wrong: the decorator keeps the types of its function
task(every=10, overlap="maybe")  # wrong
task(evry=10)  # wrong
dd.schedule_often(every=10, timeout="1h")  # wrong
dd.schedule_daily(at="20:00", retrys=3)  # wrong
"""


def test_the_public_names_are_typed(tmp_path: Path) -> None:
    file = tmp_path / "typed.py"
    file.write_text(TYPED)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={tmp_path}/cache", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    wrong = [number for number, line in enumerate(TYPED.splitlines(), 1) if "# wrong" in line]
    assert [int(line.split(":")[1]) for line in checked.stdout.splitlines() if ": error:" in line] == wrong
