"""What Debian's own tests of packages say: autopkgtest runs debian/tests, piuparts installs, upgrades and purges."""

import shutil

import pytest

from tests.package.conftest import SUITES
from tests.support.bare import BareServer
from tests.support.package_roots import add_to_list, minimal_root
from tests.support.workshop import work_in_workshop

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("suite", SUITES)]

# In a machine that is thrown away afterwards, which is what the restriction asks for.
AUTOPKGTEST = "autopkgtest --ignore-restrictions=isolation-container /root/packages/*.deb /root/source -- null"
# In a copy of /mnt, whose apt finds an earlier version in an archive of its own. There is systemd already, because that
# leaves something behind.
PIUPARTS = r"""
piuparts --existing-chroot=/mnt --keep-sources-list --bindmount=/build/earlier --scriptsdir=/build/scripts \
    --fake-essential-packages=systemd --install-remove-install --fail-if-inadequate \
    --tmpdir=/tmp --log-file=piuparts.txt /build/packages/*.deb >piuparts.out 2>&1 || { cat piuparts.out; exit 1; }
"""
FIND_EARLIER_VERSION = """#!/bin/sh
echo 'deb [trusted=yes] file:/build/earlier ./' >>/etc/apt/sources.list
"""


def test_autopkgtest_passes(suite, source, packages, tmp_path):
    with BareServer(suite, packages=tmp_path) as server:
        server.apt("install autopkgtest")
        shutil.copytree(packages, server.root / "root/packages")
        shutil.copytree(source / "linod/debian/tests", server.root / "root/source/debian/tests")
        told = server.run(f"{AUTOPKGTEST} 2>&1", timeout=300).stdout
        assert "one-run              PASS" in told


def test_piuparts_has_nothing_to_complain_of(suite, packages, earlier_packages, tmp_path):
    place, result = tmp_path / "place", tmp_path / "result"
    shutil.copytree(packages, place / "packages")
    shutil.copytree(earlier_packages, place / "earlier")
    add_to_list(place / "earlier", (place / "earlier").glob("*.deb"))
    script = place / "scripts/post_chroot_unpack"
    script.parent.mkdir()
    script.write_text(FIND_EARLIER_VERSION)
    script.chmod(0o755)
    result.mkdir()
    with minimal_root(suite) as root:
        work_in_workshop(suite, place, result, PIUPARTS, lent=root)
    report = (result / "piuparts.txt").read_text()
    assert "Running adequate" in report
    assert "PASS: Installation and purging test." in report
    assert "PASS: Installation, upgrade and purging tests." in report
