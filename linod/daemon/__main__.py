"""The program of the daemon: `python3 -I -m linod.daemon SITE`, or `python -P linod/daemon LAUNCH`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    try:
        import linod  # noqa: F401
    except ImportError:
        sys.path.append(str(Path(__file__).parents[2]))
    from linod.daemon.main import main

    sys.exit(main(sys.argv[1:]))
