"""The program that runs in a site's interpreter: `python -P linod/site forkserver|worker|check|… PLACE SPEAKS`.

`python -P linod/site manage ARGUMENTS` is `manage.py linod` for a site whose environment has no linod.

It is of the daemon's linod, and goes on with the linod of the site where the site has one of its own. So here, before
either hears the other, is the place to see whether they understand each other.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

CHANNEL = 3  # the socket to the daemon


def require_same_language(mode: str, speaks: str) -> None:
    """Leave, and tell the daemon why, where the site's own linod has other messages than the daemon, which `speaks`."""
    from linod.wire import VERSION

    version, release = speaks.split()
    if int(version) == VERSION:
        return
    reason = (
        f"The site's own linod speaks version {VERSION} of linod's messages, and the daemon of linod {release} version"
        f" {version}. Give the site the daemon's: {sys.executable} -m pip install -U linod=={release}"
    )
    asked_by_linodctl = mode in ("check", "alert-test")
    if asked_by_linodctl:
        print(json.dumps({"problem": reason}))
    else:
        os.write(CHANNEL, json.dumps(["NotLoaded", {"reason": reason, "permanent": True}]).encode())
    sys.exit(0 if asked_by_linodctl else 1)


if __name__ == "__main__":
    # Python puts the directory of its program there, in spite of -P: our lino or mail would hide the site's.
    del sys.path[0]
    if not (find_spec("linod") and find_spec("schedule")):
        # What the site lacks is beside the package of this file. Appended, so that what it has comes first.
        sys.path.append(str(Path(__file__).parents[2]))
    if sys.argv[1] == "manage":
        from linod.__main__ import main as manage

        del sys.argv[1]
        manage()
        sys.exit(0)
    mode, place, speaks = sys.argv[1:]
    require_same_language(mode, speaks)
    from linod.site.main import main

    main(mode, place)
