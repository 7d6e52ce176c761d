"""Packages that were built from this checkout, and booted servers without a network on which they are installed."""

import shutil
import sys

import pytest

from tests.support import workshop
from tests.support.bare import BareServer
from tests.support.roots import RELEASES

EARLIER, LATER = "0.0.1", "99.0.0"
# Lino sites are made with this Python, for the release that has the same one.
collect_ignore = [] if sys.version_info[:2] in ((3, 11), (3, 13)) else ["test_lino_sites.py"]
SUITES = [pytest.param(suite, marks=pytest.mark.xdist_group(suite)) for suite in RELEASES]


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A directory with a copy of this checkout, in which nothing changes while it is tested."""
    place = tmp_path_factory.mktemp("source")
    workshop.copy_checkout(place / "linod")
    return place


@pytest.fixture(scope="session")
def packages(source):
    """A directory with the packages of this checkout."""
    return workshop.built(source)


@pytest.fixture(scope="session")
def later_packages(source, tmp_path_factory):
    """The same in a later version of linod."""
    return packages_of_version(LATER, source, tmp_path_factory)


@pytest.fixture(scope="session")
def earlier_packages(source, tmp_path_factory):
    """The same in an earlier version of linod."""
    return packages_of_version(EARLIER, source, tmp_path_factory)


def packages_of_version(version, source, tmp_path_factory):
    """A directory with packages of the same source, but for their version."""
    place = tmp_path_factory.mktemp("version") / "source"
    shutil.copytree(source, place, symlinks=True)
    workshop.rename_version(place / "linod", version)
    return workshop.built(place)


@pytest.fixture(params=SUITES)
def bare(request, packages):
    """A server of the test's own, on which linod may be installed."""
    with BareServer(request.param, packages) as server:
        yield server


@pytest.fixture
def installed(bare):
    """A server of the test's own with linod, and no site."""
    bare.apt("install linod")
    return bare


@pytest.fixture(scope="session", params=SUITES)
def shared(request, packages):
    with BareServer(request.param, packages) as server:
        server.apt("install linod")
        yield server


@pytest.fixture
def server(shared):
    """A server with linod that many tests use, each with sites that are gone afterwards."""
    yield shared
    for site in list(shared.sites.values()):
        site.remove()
    shared.forget_mails()


def pytest_terminal_summary(terminalreporter):
    """Show what tests have measured."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    for name in ("bare", "shared"):
        server = getattr(item, "funcargs", {}).get(name)
        if report.failed and server is not None and server.is_on():
            report.sections.append(("systemctl status, journalctl", server.report()))
    return report
