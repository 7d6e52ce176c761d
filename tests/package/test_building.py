"""What is built is correct in the eyes of Debian, and the same each time."""

import hashlib
import re

import pytest

from tests.package.conftest import LATER
from tests.support import workshop

COMPLAINT = re.compile(r"^[EWIPX]: .*", re.MULTILINE)
# Debian 12 has no newer one.
OLD = "I: linod source: out-of-date-standards-version "


def test_lintian_has_nothing_to_say_that_was_not_answered(packages):
    report = workshop.examine(packages)
    assert "O: linod: " in report
    assert COMPLAINT.findall(report) == []


def test_two_builds_are_identical(source, packages, tmp_path):
    workshop.build(source, tmp_path)
    assert checksums(tmp_path) == checksums(packages)


@pytest.mark.slow
def test_it_is_built_on_the_next_release_as_well(source, packages, tmp_path):
    workshop.build(source, tmp_path, suite="trixie")
    assert checksums(tmp_path).keys() == checksums(packages).keys()
    complaints = COMPLAINT.findall(workshop.examine(tmp_path, suite="trixie"))
    assert [complaint for complaint in complaints if not complaint.startswith(OLD)] == []


def test_the_packages_have_the_version_of_linod(source, packages, later_packages):
    module = (source / "linod/linod/__init__.py").read_text()
    version = re.search(r'__version__ = "(.*)"', module)[1].replace(".dev", "~dev")
    assert versions(packages) == {version}
    assert versions(later_packages) == {LATER}


def checksums(directory):
    return {package.name: hashlib.sha256(package.read_bytes()).hexdigest() for package in directory.glob("*.deb")}


def versions(directory):
    return {package.name.split("_")[1] for package in directory.glob("*.deb")}
