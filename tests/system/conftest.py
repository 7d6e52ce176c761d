"""Two servers for each release of Debian, each booted once for half of the tests; on failure, what its sites say."""

from zlib import crc32

import pytest

from tests.support.roots import RELEASES
from tests.support.server import Server


@pytest.fixture(scope="session", params=RELEASES)
def server(request):
    """A booted server with linod, and no site."""
    with Server(request.param) as server:
        yield server


@pytest.fixture
def add_site(server):
    """`server.add_site`, for sites that are gone after the test, with the server's mails."""
    before = set(server.sites)
    yield server.add_site
    if not server.is_on():
        server.boot()  # the test failed before it did so
    for name in set(server.sites) - before:
        server.sites[name].remove()
    server.forget_mails()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where tests run at the same time: those of a module and a release stay together, with half of the modules."""
    from xdist.scheduler import LoadScopeScheduling

    class ByServer(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            half = crc32(nodeid.partition("::")[0].encode()) % 2
            return next((f"{suite} {half}" for suite in RELEASES if f"[{suite}" in nodeid), nodeid)

    return ByServer(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    server = getattr(item, "funcargs", {}).get("server")
    if report.failed and server is not None and server.is_on():
        report.sections.append(("systemctl status, journalctl", server.report()))
    return report
