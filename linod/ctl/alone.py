"""Before a start of the unit: `python3 -m linod.ctl.alone SITE` fails while another command runs the site's tasks.

Called by root, for the daemon itself sees only processes of its own user.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import sites
from ..errors import EXIT_TRY_LATER, LinodError
from .checking import other_runners


def main(arguments: Sequence[str]) -> int:
    try:
        site = sites.find(*arguments)
    except LinodError:
        return 0  # the daemon tells it better
    for problem in other_runners(site):
        print(problem, file=sys.stderr)
        return EXIT_TRY_LATER
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
