"""Any /etc/linod/SITE.toml: it is understood, or refused in a sentence that tells the file and a line of it."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linod import conf, schedules
from linod.ctl import main
from linod.errors import ConfigurationError
from linod.overrides import apply, problems, read
from linod.overrides.checks import ALERT, TASK, TOP
from linod.task import Declaration, Task
from tests.support.ctl import CtlHost
from tests.support.texts import changed_bytes, encodable, numbers, texts

NAMES = ("ping", "tidy", "report", "app.tasks.ping", "app.tasks.none")


def declared(name: str, **when: Any) -> Declaration:
    declaration = schedules.declare(**when)
    text = f"{declaration.text} do {name}()"
    task = Task(id=f"app.tasks.{name}", label=name, text=text, schedule=declaration.schedule)
    return Declaration(task=task, function=lambda: None)


DECLARATIONS = [declared("ping", every=10), declared("tidy", at="20:00"), declared("report", cron="5 4 * * mon")]


@pytest.fixture(scope="module")
def file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory, "site.toml")


# TOML


def written(value: Any) -> str:
    """A value in TOML, with all its tables in one line."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(as_written(character) for character in value) + '"'
        case list():
            return f"[{', '.join(map(written, value))}]"
        case dict():
            return "{" + ", ".join(f"{written(str(key))} = {written(inner)}" for key, inner in value.items()) + "}"
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return str(value) if isinstance(value, float) or abs(value) < 10**4000 else "0"


def as_written(character: str) -> str:
    code = ord(character)
    return character if character.isprintable() and character not in '"\\' else f"\\U{code:08X}"


keys = st.sampled_from(sorted({*TOP, *ALERT, *TASK, "alert", "tasks"})) | encodable.filter(bool)
plain = st.one_of(
    st.booleans(),
    numbers.filter(lambda number: not isinstance(number, int) or abs(number) < 10**300),
    encodable,
    st.times(),
    st.dates(),
    st.datetimes(),
    st.sampled_from(["20:00", "15min", "* * * * *", "Europe/Brussels", "once", "skip", "root", "a@b.c", "/etc/x"]),
)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=4
)


def tables(known: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(sorted(known)) | encodable.filter(bool), values, max_size=4)


documents = st.builds(
    lambda top, alert, tasks: {**top, "alert": alert, "tasks": tasks},
    tables(conf.DEFAULTS | {"python": 1, "settings": 1, "use_linod": 1}),
    tables(ALERT) | values,
    st.dictionaries(st.sampled_from(NAMES) | encodable.filter(bool), tables(TASK) | values, max_size=3) | values,
)
tomls = documents.map(lambda document: "\n".join(f"{written(key)} = {written(document[key])}" for key in document))
GOOD = """# of an administrator
python = "env/bin/python"
use_linod = true
max_parallel = 2

[alert]
to = ["admin@example.org"]
port = 587

[tasks.ping]
every = "15min"    # slower
timeout = 600

[tasks."app.tasks.tidy"]
at = ["03:00", 04:00:00]
tz = 'Europe/Brussels'
jitter = 60

[tasks.report]
cron = "5 4 * * *"
enabled = false
"""
contents = st.one_of(
    st.binary(max_size=200),
    texts.map(lambda text: text.encode(errors="surrogatepass")),
    tomls.map(lambda text: text.encode()),
    changed_bytes(st.just(GOOD.encode())),
    changed_bytes(tomls.map(lambda text: text.encode())),
)


@given(contents)
@example(b"[tasks.ping]\nevery = 1e400")
@example(b"a = " + b"{a=" * 900)
@example(b'"\\u0000" = 1')
@example("'\u2028".encode())
@example(b"[tasks.ping]\ncron = '5-5 * * * *'")
def test_a_file_is_understood_or_refused_with_its_line(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    found = problems(file)
    try:
        overrides = read(file)
    except ConfigurationError as error:
        assert str(error) == str(found[0])
        for problem in found:
            is_a_sentence(file, problem, data)
        return
    assert not found
    try:
        changed, complaints = apply(overrides, DECLARATIONS)
    except ConfigurationError as error:
        is_a_sentence(file, error, data)
        return
    assert [each.task.id for each in changed] == [each.task.id for each in DECLARATIONS]
    assert all(complaint.startswith(f"{file}, line ") and complaint.isprintable() for complaint in complaints)
    for each in changed:
        task = each.placed(zone="Europe/Brussels", site="site").task
        assert Task.from_dict(task.as_dict()) == task


def is_a_sentence(file: Path, error: ConfigurationError, data: bytes) -> None:
    said = str(error)
    assert said.startswith(str(file)) and said.isprintable() and len(said) < 1200, said
    if line := re.match(r", line (\d+)", said.removeprefix(str(file))):
        assert 1 <= int(line[1]) <= data.count(b"\n") + 1
    else:
        assert "this is not TOML" in said or "too many brackets" in said, said


@pytest.fixture(scope="module")
def host() -> Iterator[CtlHost]:
    with CtlHost.open_to_all() as host, pytest.MonkeyPatch.context() as patch:
        host.patch(patch)
        host.add("site")
        yield host


@given(contents)
def test_linodctl_check_tells_it_and_ends(host: CtlHost, data: bytes) -> None:
    file = host.etc / "site.toml"
    file.write_bytes(data)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["check", "site"])
    assert code in (0, 78)
    assert "Traceback" not in out.getvalue() + err.getvalue()
    for problem in problems(file):
        assert str(problem) in out.getvalue()
