"""The program that runs in a site's interpreter: `python -P linod/site forkserver|worker PLACE`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    try:
        import linod  # noqa: F401
    except ImportError:
        sys.path.append(str(Path(__file__).parents[2]))  # appended, so that a site's own linod comes first
    from linod.site.main import main

    main(sys.argv[1], sys.argv[2])
