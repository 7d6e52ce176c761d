"""The program of linod-alert@.service: `python3 -I -m linod.alert failed SITE`."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
