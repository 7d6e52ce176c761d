"""The program that the daemon starts in a site's interpreter, before it becomes a fork server."""

import json
import os
import socket
import subprocess
import sys

import linod
from linod.launch import PACKAGE, Place
from linod.wire import VERSION, NotLoaded, pair, receive

CHANNEL = 3
LATER = "9.9.9"


def start(mode, place, speaks, channel, *libraries):
    command = [sys.executable, "-P", str(PACKAGE / "site"), mode, json.dumps(vars(place)), speaks]
    return subprocess.run(
        ["bash", "-c", f'exec "$@" {CHANNEL}<&{channel.fileno()}', "sh", *command],
        pass_fds=[channel.fileno()],
        cwd=place.directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (PACKAGE.parent, *libraries)))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_daemon_that_speaks_otherwise_is_told_the_command_that_mends_it(tmp_path):
    ours, theirs = pair()
    with ours, theirs:
        place = Place(directory=str(tmp_path), python=sys.executable)
        start("forkserver", place, f"{VERSION + 1} {LATER}", theirs)
        ours.settimeout(10)
        told = receive(ours)
    assert isinstance(told, NotLoaded)
    assert told.permanent
    assert told.reason.endswith(f": {sys.executable} -m pip install -U linod=={LATER}")


def test_so_is_who_only_checks(tmp_path):
    with socket.socket() as nobody:
        place = Place(directory=str(tmp_path), python=sys.executable)
        done = start("check", place, f"{VERSION + 1} {LATER}", nobody)
    assert done.returncode == 0
    assert json.loads(done.stdout)["problem"].endswith(f"-m pip install -U linod=={LATER}")


def test_a_place_tells_what_the_daemon_speaks(tmp_path):
    command = Place(directory=str(tmp_path), python=sys.executable).command("forkserver")
    assert command[-1] == f"{VERSION} {linod.__version__}"


def test_no_module_of_ours_hides_one_that_the_site_uses(tmp_path):
    for name in ("lino", "mail", "load"):
        (tmp_path / "library" / name).mkdir(parents=True)
        (tmp_path / "library" / name / "__init__.py").write_text("WHOSE = 'theirs'")
    (tmp_path / "settings.py").write_text(
        "from lino import WHOSE\nfrom mail import WHOSE\nfrom load import WHOSE\nSECRET_KEY = 'x'\n"
    )
    place = Place(directory=str(tmp_path), python=sys.executable, settings="settings")
    with socket.socket() as nobody:
        done = start("check", place, f"{VERSION} {linod.__version__}", nobody, tmp_path / "library")
    assert json.loads(done.stdout) == {"uses_linod": False, "tasks": [], "complaints": []}
