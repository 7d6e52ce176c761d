"""Starting by the name of a site: what must be there, and what is said where it isn't."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from linod import sites
from linod.daemon.service import find_place, launch_site
from linod.errors import EXIT_CONFIGURATION, ConfigurationError
from linod.launch import Place
from linod.state import user_name

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of our own, with nothing on it."""
    etc = tmp_path / "etc"
    (etc / "sites").mkdir(parents=True)
    monkeypatch.setattr(sites, "ETC", etc)
    monkeypatch.setattr(sites, "SITES", etc / "sites")
    monkeypatch.setattr(sites, "STATES", tmp_path / "var")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return etc


@pytest.fixture
def directory(etc: Path, tmp_path: Path) -> Path:
    """The directory of a site that can be started, linked as `shop`."""
    directory = tmp_path / "srv" / "shop"
    (directory / "env" / "bin").mkdir(parents=True)
    (directory / "manage.py").touch()
    (directory / "env" / "bin" / "python").symlink_to(sys.executable)
    (etc / "sites" / "shop").symlink_to(directory)
    return directory


def complaint(name: str = "shop") -> str:
    with pytest.raises(ConfigurationError) as caught:
        find_place(sites.find(name))
    return str(caught.value)


def test_a_site_is_run_by_the_interpreter_of_its_own_environment(directory: Path) -> None:
    python = f"{directory}/env/bin/python"
    assert find_place(sites.find("shop")) == Place(
        directory=str(directory), python=python, manage=f"{directory}/manage.py", settings=None
    )


@pytest.mark.parametrize("folder", [".venv", "venv"])
def test_the_environment_may_have_another_name(directory: Path, folder: str) -> None:
    (directory / "env").rename(directory / folder)
    assert find_place(sites.find("shop")).python == f"{directory}/{folder}/bin/python"


def test_a_site_without_an_environment_is_run_by_the_system_python(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "env").rename(directory / "elsewhere")
    monkeypatch.setattr(sites, "SYSTEM_PYTHON", sys.executable)
    assert find_place(sites.find("shop")).python == sys.executable


def test_the_administrator_says_which_interpreter_and_which_settings(directory: Path, etc: Path) -> None:
    (directory / "env").rename(directory / "py3")
    (etc / "shop.toml").write_text('python = "py3/bin/python"\nsettings = "shop.production"\n')
    place = find_place(sites.find("shop"))
    assert (place.python, place.settings) == (f"{directory}/py3/bin/python", "shop.production")


def test_links_on_the_way_to_a_site_stay_links(directory: Path, etc: Path, tmp_path: Path) -> None:
    """A deployment swaps them, and its processes must not be found in an old release."""
    (tmp_path / "current").symlink_to(directory)
    (etc / "sites" / "shop").unlink()
    (etc / "sites" / "shop").symlink_to(tmp_path / "current")
    assert find_place(sites.find("shop")).directory == str(tmp_path / "current")


def test_a_site_that_was_not_added(etc: Path, directory: Path) -> None:
    assert complaint("blog") == "There is no site 'blog' on this host. Add it: linodctl add blog DIRECTORY"
    assert complaint("shpo") == "There is no site 'shpo' on this host. Did you mean shop?"


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a b", "é", "x" * 101, "a\nb", "a@b"])
def test_a_name_that_cannot_be_one(etc: Path, name: str) -> None:
    assert complaint(name).startswith(f"{name!r} is no name for a site. Use letters ")


@pytest.mark.parametrize("name", ["a", "my-prj", "my.prj_2", "9lives"])
def test_a_name_that_can_be_one(etc: Path, name: str) -> None:
    sites.check_name(name)


def test_a_directory_that_is_not_there(directory: Path, etc: Path) -> None:
    directory.rename(directory.parent / "shop.old")
    assert complaint() == (
        f"{etc}/sites/shop leads to {directory}, and there is no such directory."
        f" Make it, or let the link lead to the site: ln -sfn DIRECTORY {etc}/sites/shop"
    )


def test_a_link_to_a_file(directory: Path, etc: Path) -> None:
    (etc / "sites" / "blog").symlink_to(directory / "manage.py")
    assert complaint("blog").startswith(f"{etc}/sites/blog leads to {directory}/manage.py, which is no directory.")


def test_a_directory_without_a_manage_py(directory: Path) -> None:
    (directory / "manage.py").unlink()
    assert complaint().startswith(f"There is no manage.py in {directory}.")


def test_an_interpreter_that_is_not_there(directory: Path, etc: Path) -> None:
    (etc / "shop.toml").write_text('python = "py3/bin/python"\n')
    assert complaint() == (
        f"There is no {directory}/py3/bin/python."
        f" Make the site's virtual environment again, or name its Python in {etc}/shop.toml."
    )


def test_an_interpreter_that_an_upgrade_of_the_system_took_away(directory: Path) -> None:
    python = directory / "env" / "bin" / "python"
    python.unlink()
    python.symlink_to("/usr/bin/python3.0")
    assert complaint().startswith(
        f"{python} leads to /usr/bin/python3.0, which is not there, or which {user_name()} cannot reach. "
    )


def test_an_interpreter_that_is_no_program(directory: Path) -> None:
    python = directory / "env" / "bin" / "python"
    python.unlink()
    python.touch(mode=0o644)
    assert complaint().startswith(f"{python} is no program that ")


def test_overrides_that_make_no_sense(directory: Path, etc: Path) -> None:
    (etc / "shop.toml").write_text("\npyhton = 3\n")
    assert complaint().startswith(f"{etc}/shop.toml, line 2: ")


# As another user: root would be refused nothing.
AS_NOBODY = """
import os, sys
from pathlib import Path
from linod import sites
from linod.daemon.service import find_place
sites.ETC, sites.SITES = Path(sys.argv[1]), Path(sys.argv[1]) / "sites"
os.setgid({nobody}), os.setuid({nobody})
try:
    find_place(sites.find("shop"))
except Exception as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""


def complaint_where_closed(closed: Path, etc: Path) -> str:
    """What a user hears who may not enter a directory."""
    if os.geteuid() != 0:
        closed.chmod(0)
        try:
            return complaint()
        finally:
            closed.chmod(0o755)
    closed.chmod(0o700)
    for parent in etc.parents:  # pytest's own directories are closed as well
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    command = [sys.executable, "-c", AS_NOBODY.format(nobody=NOBODY), str(etc)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=ROOT, check=True)
    assert not answer.stderr
    return answer.stdout


def test_an_interpreter_in_a_directory_that_is_closed_to_the_user_may_be_there(
    directory: Path, etc: Path, tmp_path: Path
) -> None:
    (tmp_path / "pyenv").mkdir()
    (tmp_path / "pyenv" / "python").symlink_to(sys.executable)
    python = directory / "env" / "bin" / "python"
    python.unlink()
    python.symlink_to(tmp_path / "pyenv" / "python")
    text = complaint_where_closed(tmp_path / "pyenv", etc)
    assert f"{python} leads to {tmp_path}/pyenv/python, which is not there, or which " in text


def test_a_directory_that_is_closed_to_the_user_says_where(directory: Path, etc: Path) -> None:
    text = complaint_where_closed(directory.parent, etc)
    assert f"{directory} cannot be reached by " in text
    assert f"{directory.parent} belongs to " in text and f"chmod o+x {directory.parent}" in text


def test_nothing_is_run_as_root() -> None:
    """Root would own what tasks write, and run what the site's user can change."""
    if os.geteuid() == 0:
        with pytest.raises(ConfigurationError, match="are not run as root") as caught:
            launch_site("shop", once=False)
        assert caught.value.exit_code == EXIT_CONFIGURATION
    else:  # in a namespace in which this user is called root
        command = ["unshare", "-Ur", sys.executable, "-I", "-m", "linod.daemon", "shop"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert answer.returncode == EXIT_CONFIGURATION and "are not run as root" in answer.stdout
