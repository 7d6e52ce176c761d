"""Any name: of a site it is refused or harmless in paths and units, and of a task it means one or none."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linod import sites
from linod.archive import Archive
from linod.ctl import naming, scanning
from linod.ctl.units import split_environment, units_in
from linod.daemon.pauses import find_pausable
from linod.errors import ConfigurationError, LinodError
from linod.names import UnknownTask, find_task
from linod.sites import HostSite
from tests.support.ctl import CtlHost, run, task
from tests.support.texts import encodable, texts

# What systemd allows in the name of a unit (unit-name.c), and how long it may be with its type.
UNIT = re.compile(r"linod@[0-9A-Za-z:_.\\-]+\.service")
LONGEST_UNIT = 255
names = texts | st.from_regex(r"\A[A-Za-z0-9_.\-]{0,12}\n?\Z") | st.text("ab.-_", max_size=120)
files = encodable.filter(lambda name: name not in ("", ".", "..") and not set(name) & {"/", "\0"} and len(name) < 60)


@given(names)
@example("a\n")
@example("..")
@example("-a")
@example("é")
@example("٣")
def test_the_name_of_a_site_is_refused_or_harmless(name: str) -> None:
    site = HostSite(name=name)
    try:
        sites.check_name(name)
    except ConfigurationError as error:
        assert str(error).isprintable()
        return
    for path, place in ((site.link, sites.SITES), (site.state, sites.STATES), (site.runtime, sites.RUNTIMES)):
        assert Path(os.path.normpath(path)).parent == place and path.name == name
    for path in (site.overrides, site.environment):
        assert Path(os.path.normpath(path)).parent == sites.ETC
    assert UNIT.fullmatch(site.unit) and len(site.unit) < LONGEST_UNIT
    assert site.unit.removeprefix("linod@").removesuffix(".service") == name


@pytest.fixture
def host() -> Iterator[CtlHost]:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        host = CtlHost(directory)
        host.patch(patch)
        yield host


@given(st.lists(files, max_size=4), st.lists(texts, max_size=3))
def test_sites_are_found_among_anything(host: CtlHost, links: list[str], words: list[str]) -> None:
    for path in (host.etc / "sites").iterdir():
        path.unlink()
    for name in {"good", *links}:
        (host.etc / "sites" / name).symlink_to(host.directory("good"))
    known = sites.names()
    assert "good" in known and set(known) <= {"good", *links}
    assert known == sorted(known)
    for name in known:
        sites.check_name(name)
    for word in words:
        try:
            site, rest = naming.take_site([word, *words])
        except LinodError as error:
            assert str(error).strip()
        else:
            assert site.name in known and (rest == words or site.name == known[0])


@given(files | encodable, st.sets(st.sampled_from(["a", "a-2", "site", "x"])))
@example("...", set())
@example("é", {"site"})
@example("a" * 300, {"a" * 100})
def test_a_site_that_is_found_gets_a_name_that_is_allowed_and_free(directory: str, taken: set[str]) -> None:
    name = scanning.propose_name(Path("/srv", directory.replace("\0", "")), set(taken))
    sites.check_name(name)
    assert name not in taken


labels = st.dictionaries(texts, texts, max_size=5) | st.dictionaries(
    st.sampled_from(["a.f", "b.f", "f", "g", "a.f#2"]), st.sampled_from(["f", "g", "a.f"]), max_size=4
)


@given(labels, texts | st.sampled_from(["f", "g", "a.f", "a.f#2"]))
def test_the_name_of_a_task_means_one_or_none(labels: dict[str, str], name: str) -> None:
    called = [id for id, label in labels.items() if label == name]
    try:
        found = find_task(name, labels)
    except UnknownTask as error:
        assert name not in labels and len(called) != 1
        assert error.message
        return
    assert found == name if name in labels else [found] == called
    assert find_pausable(name, labels, {}) == (name if name == "" else found)


@given(texts, st.lists(st.sampled_from(["f", "g", "a.f", "f#2"]) | encodable, max_size=4))
def test_a_task_of_history_is_found_or_not(host: CtlHost, word: str, ran: list[str]) -> None:
    (host.var / "site").mkdir(exist_ok=True)
    for path in (host.var / "site").iterdir():
        path.unlink()
    host.remember("site", [task("f"), task("g")], [run(name) for name in ran if "\0" not in name])
    with Archive(host.var / "site") as archive:
        known = {*archive.tasks_that_ran(), "app.tasks.f", "app.tasks.g"}
        for name in (word, *ran):
            try:
                assert naming.find_task_id(archive, HostSite(name="site"), name) in known
            except UnknownTask as error:
                assert error.message


@given(texts | st.from_regex(r"\A#?[0-9]{1,30}\Z"))
@example("9" * 5000)
@example("#²")
def test_the_number_of_a_run_is_one_or_refused(word: str) -> None:
    try:
        assert 0 < naming.find_run_id(word) < 2**63
    except LinodError as error:
        assert str(error)


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_what_systemctl_says_is_read(text: str, some: list[str]) -> None:
    for unit in units_in(text, some).values():
        assert unit.memory is None or unit.memory >= 0
        assert isinstance(unit.active, bool)
    assert all("=" in word for word in split_environment(text))
