"""`python -m linod`: the same command for a site that doesn't list linod in INSTALLED_APPS.

It goes through the site's own manage.py, so that its path and settings apply.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    manage = Path("manage.py").absolute()
    if not manage.is_file():
        print(f"There is no manage.py in {manage.parent}. Change to the directory of a site.", file=sys.stderr)
        sys.exit(78)
    from .errors import LinodError
    from .overrides import of_directory
    from .site.load import run_without_command, set_up
    from .site.trouble import why_not

    try:
        run_without_command(str(manage))
        set_up(of_directory(manage.parent))
    except (Exception, SystemExit) as error:
        message = why_not(error)
        if not isinstance(error, LinodError):
            print(message.traceback, end="", file=sys.stderr)
        print(f"The site cannot be loaded: {message.reason}", file=sys.stderr)
        sys.exit(78 if message.permanent else 1)
    # From here on it is as if the site's manage.py had been called.
    sys.argv[:1] = [str(manage), "linod"]
    from .management.commands.linod import Command

    Command().run_from_argv(sys.argv)


if __name__ == "__main__":
    main()
