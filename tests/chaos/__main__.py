"""Let all go wrong that can, for as long as you like, and see whether linod keeps its promises.

    .venv/bin/python -m tests.chaos --minutes 30 --seed 4711 [--faults kill-daemon reload-storm …]

The same seed draws the same tasks and the same faults; when exactly each of them strikes is the machine's to say.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from .faults import FAULTS
from .storm import Storm

BY_NAME = {fault.name: fault for fault in FAULTS}


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", default=str(SystemRandom().randrange(10**6)))
    parser.add_argument("--faults", nargs="+", metavar="NAME", choices=sorted(BY_NAME), default=sorted(BY_NAME))
    given = parser.parse_args()
    path = Path(tempfile.mkdtemp(prefix="linod-chaos-"))
    print(f"SEED={given.seed}, {given.minutes:g} minutes, in {path}", flush=True)
    storm = Storm(path, given.seed, [BY_NAME[name] for name in given.faults], say=lambda text: print(text, flush=True))
    broken = storm.rage(given.minutes * 60)
    print(
        f"SEED={given.seed}: {len(broken)} broken promises, what there was is in {path}" if broken else "All is well."
    )
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
