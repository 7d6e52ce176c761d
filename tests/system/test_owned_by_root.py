"""What root owns in a site: it is found and given away without ever leaving the site's directory."""

import os
import shutil
from pathlib import Path

import pytest

from linod.ctl import owned
from linod.ctl.accounts import find_account
from linod.ctl.owned import owned_by_root


@pytest.fixture
def nobody():
    return find_account("nobody")


def of_root(site, account):
    return sorted(str(one.path) for one in owned_by_root(site, account))


@pytest.fixture
def mixed(tmp_path, nobody):
    """A site of nobody's where a job has run as root."""
    site = tmp_path / "site"
    for directory in ("media", "var", "env/lib", "__pycache__"):
        (site / directory).mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    for file in (
        *("manage.py", "default.db", "media/a.pdf", "var/shared", "env/pyvenv.cfg", "env/lib/x.txt", "linod.sh"),
        *("__pycache__/x.pyc", "group.log", "theirs"),
    ):
        (site / file).write_text("x")
    (outside / "secret").write_text("x")
    (site / "var/link").symlink_to(outside / "secret")
    (site / "var/out").symlink_to(outside)
    (outside / "hard").write_text("x")
    os.link(outside / "hard", site / "var/hard")
    os.mkfifo(site / "var/fifo")
    os.chown(site / "theirs", nobody.uid, nobody.gid)
    os.chown(site / "group.log", 0, nobody.gid)
    (site / "group.log").chmod(0o664)
    return site


def test_only_what_tasks_would_have_to_write_is_found(mixed, nobody):
    assert of_root(mixed, nobody) == ["default.db", "media", "media/a.pdf", "var", "var/hard", "var/shared"]
    [shared] = [one for one in owned_by_root(mixed, nobody) if one.shared]
    assert shared.path == Path("var/hard")


@pytest.mark.claim("S4")
def test_it_is_given_without_leaving_the_directory(mixed, nobody):
    outside = mixed.parent / "outside"
    assert owned.give(mixed, nobody) == 5
    assert of_root(mixed, nobody) == ["var/hard"]
    assert (mixed / "media/a.pdf").owner() == "nobody"
    for path in (outside, outside / "secret", outside / "hard", mixed / "manage.py", mixed / "env/lib/x.txt"):
        assert path.owner() == "root"
    assert os.lstat(mixed / "var/link").st_uid == 0
    assert owned.give(mixed, nobody) == 0


@pytest.mark.claim("S4")
def test_a_directory_that_becomes_a_link_meanwhile_leads_nowhere(mixed, nobody):
    outside = mixed.parent / "outside"
    for found in owned.walk(mixed):
        if found.path == Path("media"):
            shutil.rmtree(mixed / "media")
            (mixed / "media").symlink_to(outside)
        assert not os.path.samefile(f"/proc/self/fd/{found.fd}", outside)
        assert found.path.name not in ("secret", "hard") or found.path.parent == Path("var")
