"""`python3 -m linod.ctl` is linodctl."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
