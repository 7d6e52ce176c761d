"""Try what nobody thought of, on each target for so many minutes: `python -m tests.fuzz --minutes 10`.

Each round of a target has another seed, which is printed: `--seed` repeats one. What has failed is kept by hypothesis
in `.hypothesis`, is tried first from then on, and belongs into the test as an `@example`.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TARGETS = sorted(path.stem.removeprefix("test_any_") for path in HERE.glob("test_any_*.py"))
LONGEST_SEED = 2**32


def main() -> int:
    options = read_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = [target for target in options.targets or TARGETS if not holds(target, 60 * options.minutes, options.seed)]
    for target in failed:
        print(f"FAILED: {target}")
    return bool(failed)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", metavar="TARGET", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--minutes", type=float, default=10, help="for each target (10)")
    parser.add_argument("--seed", type=int, help="one round with this seed")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    return options


def holds(target: str, seconds: float, seed: int | None) -> bool:
    """Whether a target has stood all that was tried."""
    deadline = time.monotonic() + seconds
    number = 0
    while number == 0 or (seed is None and time.monotonic() < deadline):
        number += 1
        chosen = random.randrange(LONGEST_SEED) if seed is None else seed
        print(f"{target}: round {number}, seed {chosen}", flush=True)
        if not round_holds(target, chosen):
            print(f"{target}: failed in round {number}. Again: python -m tests.fuzz {target} --seed {chosen}")
            return False
    return True


def round_holds(target: str, seed: int) -> bool:
    command = ["-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
    profile = ["--hypothesis-profile=fuzz", f"--hypothesis-seed={seed}"]
    done = subprocess.run(
        [sys.executable, *command, *profile, str(HERE / f"test_any_{target}.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        print(done.stdout)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
