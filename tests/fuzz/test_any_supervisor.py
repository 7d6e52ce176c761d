"""Any file of supervisor's: programs or troubles are found in it, and it is divided without a loss or not at all."""

from __future__ import annotations

import configparser
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linod.ctl import moving
from linod.ctl.screen import Screen
from linod.ctl.scripts import Start, commands_in, understand
from linod.ctl.supervisor import (
    ASIDE,
    Configuration,
    Unusable,
    divide,
    expand,
    included,
    pairs,
    parse,
    programs_in,
    read_directory,
    take_file,
)
from linod.ctl.supervisorctl import Supervisorctl
from linod.errors import LinodError
from tests.support.ctl import CtlHost
from tests.support.texts import changed_bytes, encodable

# The files of supervisor

names = st.sampled_from(["a", "b", "linod_x", "site", "x y", "a:b", ""]) | encodable
expansions = st.sampled_from(
    [
        *("%(program_name)s", "%(here)s", "%(process_num)02d", "%(ENV_HOME)s", "%(host_node_name)s", "%(here)d", "%%"),
        *("%", "%(", "%()s", "%(x)", "%(here)s/%(program_name)s.log", "%(process_num)9s", "%(ENV_X)0d"),
    ]
)
words = st.one_of(
    encodable,
    expansions,
    st.sampled_from(
        [
            *("python manage.py linod", "/srv/a/env/bin/python /srv/a/manage.py linod", "bash -c 'cd /srv/a; ./m'"),
            *("sh linod.sh", "/srv/a/linod_run.sh", "exec python manage.py linod", "'", '"', "\\", "x='y", "; note"),
            *("# note", "A=1,B='2'", 'A="%(here)s",B=x', "A=1,B", ",,", "=", "/", "..", "root", "www-data", "nobody"),
        ]
    ),
)
values = st.lists(words, max_size=3).map(" ".join)
keys = st.sampled_from(["command", "directory", "user", "username", "environment", "numprocs", "process_name"]) | names
lines = st.one_of(
    st.builds("{}{}{}".format, keys, st.sampled_from(["=", " = ", ":", ": ", "\t=\t"]), values),
    st.builds("[program:{}]".format, names),
    st.builds("[{}:{}]".format, st.sampled_from(["group", "eventlistener", "fcgi-program", "x"]), names),
    st.sampled_from(
        ["[include]", "[supervisord]", "[DEFAULT]", "files = *.conf %(here)s/x", "", ";", "# x", "  more", "["]
    ),
    st.builds("    {}".format, values),
    st.builds("programs={},{}".format, names, names),
    values,
)
GOOD = """[program:linod_a]
command=/srv/a/env/bin/python manage.py linod   ; the daemon
directory=/srv/a
user=www-data
environment=LANG="de_DE.UTF-8",X='%(program_name)s'

[program:other]
command=/bin/sleep 10
"""
contents = st.one_of(
    st.lists(lines, max_size=12).map("\n".join),
    changed_bytes(st.just(GOOD.encode())).map(lambda data: data.decode(errors="replace")),
    encodable,
).filter(lambda text: "\0" not in text)  # such a file is refused before


@given(contents)
@example("[program:linod]\ncommand=python manage.py linod\ndirectory=srv/a")
@example("[program:a]\ncommand")
@example("[program:linod]\ncommand=%(ENV_HOME)s")
@example("[DEFAULT]\nx=1\n[program:linod]\ncommand=linod")
def test_a_file_has_programs_or_troubles(text: str) -> None:
    found = Configuration()
    take_file(found, Path("/etc/supervisor/conf.d/x.conf"), text)
    for job in found.jobs:
        assert job.directory.is_absolute()
        assert job.program.name and not job.program.name.isspace()
    assert all(trouble.text for trouble in found.troubles)


@given(contents, st.lists(names, max_size=2), st.data())
def test_a_file_is_divided_without_a_loss_or_not_at_all(text: str, some: list[str], data: st.DataObject) -> None:
    try:
        there = programs_in(text)
    except configparser.Error:
        there = []
    chosen = [name for name in some if name.strip()] or ([data.draw(st.sampled_from(there))] if there else [])
    try:
        kept, removed = divide(text, chosen)
    except Unusable as error:
        assert str(error)
        return
    assert sorted(kept + removed) == sorted(text)
    assert not set(programs_in(kept)) & set(chosen)
    assert {*programs_in(kept), *programs_in(removed)} == set(there)
    together = parse(kept + "\n" + removed)
    assert {name: dict(together[name]) for name in together} == {name: dict(parse(text)[name]) for name in parse(text)}


@given(values, contents)
def test_its_small_languages_are_read_or_refused(value: str, text: str) -> None:
    for read in (pairs, lambda text: expand(text, {"here": "/etc", "process_num": "0"})):
        try:
            read(value)
        except Unusable as error:
            assert str(error)
    try:
        assert all(pattern.startswith("/") for pattern in included(text, Path("/etc")))
    except configparser.Error:
        pass


# Scripts

statements = st.one_of(
    values,
    st.builds("cd {}".format, values),
    st.builds("{}={}".format, st.sampled_from(["A", "B", "PATH"]), st.sampled_from(["$A$A", "${B}$A", "x"]) | values),
    st.builds(". {}/bin/activate".format, values),
    st.builds("export {}".format, values),
    st.sampled_from(["python manage.py linod", "cd $(dirname $0)", "set -e", "exec $A manage.py linod", "if x; then"]),
)


@given(st.lists(statements, max_size=12).map("\n".join), st.sampled_from([None, "/srv/a/linod.sh", "/srv/'/x y.sh"]))
@example("A=xxxxxxxxxx\n" + "A=$A$A\n" * 60 + "$A", None)
@example("exec " * 3000 + "x", None)
def test_a_script_is_understood_or_not(text: str, script: str | None) -> None:
    assert all(isinstance(word, str) for words in commands_in(text) for word in words)
    start = understand(text, "/srv/a", script)
    assert start is None or isinstance(start, Start)
    if start is not None:
        assert os.path.isabs(start.directory)


# All together


@pytest.fixture
def host() -> Iterator[CtlHost]:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        host = CtlHost(directory)
        host.patch(patch)
        host.add("a")
        (host.path / "conf.d").mkdir()
        yield host


@given(contents, contents, st.sampled_from([".conf", f".conf{ASIDE}", ".ini"]))
def test_a_plan_is_made_of_anything(host: CtlHost, one: str, other: str, suffix: str) -> None:
    directory = host.path / "conf.d"
    for path in directory.iterdir():
        path.unlink()
    (directory / "one.conf").write_text(one.replace("/srv/a", str(host.directory("a"))))
    (directory / f"other{suffix}").write_text(other)
    try:
        plan = moving.make_plan(directory, Supervisorctl.of(directory))
    except LinodError as error:
        assert str(error).strip()
        return
    moving.show_plan(Screen(), plan, {moved.name: "" for moved in plan.moved})
    assert set(read_directory(directory).troubles) <= set(plan.troubles)
    for move in plan.moves:
        assert move.as_dict()
        assert list(move.steps(chown=True))
        list(move.remarks())
