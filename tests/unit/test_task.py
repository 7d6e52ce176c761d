"""Declaring a task: what is refused and in which words, what every process then knows of it."""

import functools
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import schedule
from hypothesis import given, settings
from hypothesis import strategies as st

import linod
from linod import DeclarationError, dd, schedules, task
from linod.task import LONGEST_RETRY_DELAY, Policies, Task, declarations, declare_job


@pytest.fixture(autouse=True)
def no_declarations() -> Iterator[None]:
    declarations.clear()
    yield
    declarations.clear()


def work() -> str:
    return "done"


def declared() -> list[str]:
    return [declaration.task.id for declaration in declarations]


# What is refused

REFUSED = [
    ({"every": 0}, "shortest interval is 0.1 seconds", "every=10"),
    ({"every": -5}, "cannot run every -5 seconds", "every=10"),
    ({"every": 0.01}, "shortest interval", "every=10"),
    ({"every": float("nan")}, "nan seconds", "every=10"),
    ({"every": float("inf")}, "inf seconds", "every=10"),
    ({"every": True}, "every=True is not a length of time", "every=10"),
    ({"every": "often"}, "every='often' is not a length of time", '"15min"'),
    ({"every": "5 fortnights"}, "is not a length of time", '"3 days"'),
    ({"every": timedelta(seconds=-1)}, "cannot run every -1 seconds", "every=10"),
    ({"at": "25:00"}, "at='25:00' is not a time of day", 'at="20:00"'),
    ({"at": "8 o'clock"}, "is not a time of day", 'at="20:00"'),
    ({"at": "20:60"}, "is not a time of day", 'at="20:00"'),
    ({"at": []}, "is not a time of day", 'at="20:00"'),
    ({"at": ["08:00", 9]}, "at=9 is not a time of day", 'at="20:00"'),
    ({"every": 90, "at": "20:00"}, "not a whole number of days", 'every="3 days"'),
    ({"at": "20:00", "tz": "Europe/Brusels"}, "no time zone 'Europe/Brusels'", "Did you mean Europe/Brussels"),
    ({"at": "20:00", "tz": 7}, "7 is not the name of a time zone", 'tz="Europe/Brussels"'),
    ({"cron": "5 4 * *"}, "has 4 fields, not five", "minute, hour, day, month and weekday"),
    ({"cron": "61 4 * * *"}, "is not an expression of cron", "minute, hour, day, month and weekday"),
    ({"cron": "0 0 31 2 *"}, "matches no date at all", "minute, hour, day, month and weekday"),
    ({"cron": 5}, "cron=5 is not a text", "minute, hour, day, month and weekday"),
    ({}, "isn't said when", "every=10"),
    ({"every": 10, "cron": "* * * * *"}, "every and cron don't go together", "every=10"),
    ({"every": 10, "until": datetime(2030, 1, 1)}, "needs its time zone", "tzinfo=UTC"),
    ({"every": 10, "until": "tomorrow"}, "until='tomorrow'", "tzinfo=UTC"),
    ({"every": 10, "until": datetime(1900, 1, 1, tzinfo=UTC)}, "between the years 1970 and 9999", "until="),
    ({"every": 10, "jitter": 10}, "doesn't fit a task that runs every 10 seconds", "shorter than the time between"),
    ({"every": 10, "jitter": -1}, "jitter of -1", "longer than 0"),
    ({"every": 10, "name": ""}, "name='' is not a name", 'name="nightly"'),
    ({"every": 10, "name": " x"}, "name=' x' is not a name", 'name="nightly"'),
    ({"every": 10, "name": "a\nb"}, "is not a name", 'name="nightly"'),
    ({"every": 10, "name": 7}, "name=7 is not a name", 'name="nightly"'),
    ({"every": 10, "timeout": 0}, "timeout=0 is not a duration", "timeout=60"),
    ({"every": 10, "timeout": "1h"}, "timeout='1h' is not a duration", "timeout=60"),
    ({"every": 10, "timeout": float("inf")}, "timeout=inf is not a duration", "timeout=60"),
    ({"every": 10, "timeout": 10**10}, "timeout=10000000000 is not a duration", "timeout=60"),
    ({"every": 10, "grace": -1}, "grace=-1 is not a duration", "grace=60"),
    ({"every": 10, "grace": float("nan")}, "grace=nan is not a duration", "grace=60"),
    ({"every": 10, "retry_delay": None}, "retry_delay=None is not a duration", "retry_delay=60"),
    ({"every": 10, "overlap": "maybe"}, "overlap='maybe' is unknown", "'skip', 'queue', 'allow', 'replace'"),
    ({"every": 10, "catch_up": True}, "catch_up=True is unknown", "'once', 'none', 'all'"),
    ({"every": 10, "retries": -1}, "retries=-1 is not a count", "retries=3"),
    ({"every": 10, "retries": 1.5}, "retries=1.5 is not a count", "retries=3"),
    ({"every": 10, "retries": True}, "retries=True is not a count", "retries=3"),
    ({"every": 10, "fresh": "yes"}, "fresh='yes' is neither True nor False", ""),
    ({"every": 10, "rerun_lost": 1}, "rerun_lost=1 is neither True nor False", ""),
    ({"every": 10, "enabled": None}, "enabled=None is neither True nor False", ""),
    ({"every": 10, "lock": ""}, "lock='' is not a name", "lock="),
    ({"every": 10, "renamed_from": 3}, "renamed_from=3 is not a name", "renamed_from="),
]


@pytest.mark.parametrize(("keywords", "what", "hint"), REFUSED)
def test_a_bad_declaration_raises_at_its_line_and_says_what_to_write(
    keywords: dict[str, Any], what: str, hint: str
) -> None:
    with pytest.raises(DeclarationError) as caught:
        task(**keywords)  # before there is a function at all
    assert what in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 78
    assert isinstance(caught.value, ValueError)
    assert not declared()


@pytest.mark.parametrize(
    ("job", "what"),
    [
        (lambda: schedule.every(10), "has no unit"),
        (lambda: schedule.every(0).seconds, "every 0 seconds"),
        (lambda: schedule.every(5).to(2).days, "goes backward"),
        (lambda: 7, "7 is not a job of the schedule package"),
    ],
)
def test_a_bad_job_of_schedule_raises(job: Callable[[], Any], what: str) -> None:
    with pytest.raises(DeclarationError, match=what):
        task(job())
    schedule.clear()


def needs_one(a: int, b: int = 2, *, c: int) -> None: ...
def generates() -> Iterator[int]:
    yield 1


class Sender:
    def __init__(self, to: str = "all") -> None:
        self.to = to

    def __call__(self) -> str:
        return self.to

    def method(self) -> str:
        return f"to {self.to}"


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (needs_one, r"needs_one\(\) needs arguments \(a, c\)"),
        (Sender.method, r"method\(\) needs arguments \(self\)"),
        (functools.partial(needs_one, 1), r"needs_one\(\) needs arguments \(c\)"),
        (generates, r"generates\(\) contains yield"),
        (functools.partial(generates), r"generates\(\) contains yield"),
        (5, "5 is not a function"),
        (classmethod(work), "is not a function"),
    ],
)
def test_a_function_that_cannot_be_a_task_is_refused(function: Any, what: str) -> None:
    with pytest.raises(DeclarationError, match=what):
        task(every=10)(function)
    assert not declared()


@pytest.mark.parametrize("decorator", [task, dd.schedule_often, dd.schedule_daily])
def test_a_decorator_without_parentheses_is_refused(decorator: Any) -> None:
    with pytest.raises(DeclarationError, match="needs"):
        decorator(work)


@pytest.mark.parametrize(
    "call",
    [
        lambda: dd.schedule_often(0),
        lambda: dd.schedule_often(every=-1),
        lambda: dd.schedule_daily("24:00"),
        lambda: dd.schedule_daily(at="20:00", tz="Mars"),
        lambda: dd.schedule_often(every=10, timeout=-1),
    ],
)
def test_what_lino_developers_write_is_checked_as_well(call: Callable[[], Any]) -> None:
    with pytest.raises(DeclarationError):
        call()


def test_a_misspelt_policy_raises_at_its_line() -> None:
    with pytest.raises(TypeError, match="tiemout"):
        dd.schedule_often(every=10, tiemout=5)


# What is declared


def test_the_function_comes_back_unchanged() -> None:
    assert task(every=10)(work) is work
    assert dd.schedule_often(every=10)(work) is work
    assert dd.schedule_daily(at="20:00")(work) is work
    assert work() == "done"


def test_the_words_of_a_task() -> None:
    dd.schedule_often(every=10)(work)
    dd.schedule_daily(at="20:00")(work)
    task(cron="5 4 * * mon")(work)
    task(schedule.every().monday.at("09:00").tag("mails", "b"))(work)
    schedule.clear()
    assert [d.task.text for d in declarations] == [
        "Every 10 seconds do work()",
        "Every 1 day at 20:00:00 do work()",
        'Cron "5 4 * * mon" do work()',
        "Every 1 week at 09:00:00 do work()",
    ]
    assert [d.task.tags for d in declarations] == [(), (), (), ("b", "mails")]


def test_schedule_often_and_daily_have_the_defaults_of_lino() -> None:
    dd.schedule_often()(work)
    dd.schedule_daily()(work)
    assert [d.task.text for d in declarations] == ["Every 10 seconds do work()", "Every 1 day at 20:00:00 do work()"]


def test_the_id_is_module_and_function() -> None:
    task(every=10)(work)
    assert declared() == [f"{__name__}.work"]
    [declaration] = declarations
    assert declaration.task.label == "work"
    assert declaration.task.source == f"{__file__}:{work.__code__.co_firstlineno}"


def test_a_function_that_is_scheduled_twice_gets_a_number() -> None:
    for every in (10, 20, 30):
        task(every=every)(work)
    assert declared() == [f"{__name__}.work", f"{__name__}.work#2", f"{__name__}.work#3"]


def test_the_same_declaration_twice_is_two_tasks() -> None:
    task(every=10)(work)
    task(every=10)(work)
    assert declared() == [f"{__name__}.work", f"{__name__}.work#2"]


def test_functions_that_a_loop_makes_are_a_task_each() -> None:
    for number in range(3):

        @task(every=10)
        def in_a_loop(number: int = number) -> int:
            return number

    assert [declaration.function() for declaration in declarations] == [0, 1, 2]


def test_objects_that_can_be_called_are_a_task_each() -> None:
    task(every=10)(Sender("eva"))
    task(every=10)(Sender("bob"))
    assert declared() == [f"{__name__}.Sender", f"{__name__}.Sender#2"]
    assert [declaration.function() for declaration in declarations] == ["eva", "bob"]


def test_a_name_replaces_the_id_but_not_the_label() -> None:
    task(every=10, name="nightly")(work)
    [declaration] = declarations
    assert (declaration.task.id, declaration.task.label) == ("nightly", "work")


def test_a_name_that_is_taken_is_refused_with_the_place_of_the_other() -> None:
    task(every=10, name="nightly")(work)
    with pytest.raises(DeclarationError, match=f"already taken by the task declared at {__file__}:"):
        task(every=20, name="nightly")(lambda: None)
    with pytest.raises(DeclarationError, match="already taken"):
        task(every=10, name="nightly")(work)
    assert declared() == ["nightly"]


def test_a_name_that_is_the_id_of_another_is_refused() -> None:
    task(every=10)(work)
    with pytest.raises(DeclarationError, match="already taken"):
        task(every=20, name=f"{__name__}.work")(lambda: None)


async def asynchronous() -> None: ...


@pytest.mark.parametrize(
    ("function", "label"),
    [
        (functools.partial(needs_one, 1, c=3), "needs_one"),
        (functools.partial(functools.partial(needs_one, 1), c=3), "needs_one"),
        (Sender(), "Sender"),
        (Sender().method, "method"),
        (Sender, "Sender"),
        (asynchronous, "asynchronous"),
        (print, "print"),
        (dict, "dict"),
        (lambda: None, "<lambda>"),
        (staticmethod(work), "work"),
        (functools.lru_cache(work), "work"),
    ],
)
def test_anything_that_can_be_called_without_arguments_is_a_task(function: Any, label: str) -> None:
    assert task(every=10)(function) is function
    [declaration] = declarations
    assert declaration.task.label == label
    assert declaration.function is function


def test_a_function_that_is_not_written_in_python_has_no_source() -> None:
    task(every=10)(print)
    [declaration] = declarations
    assert (declaration.task.id, declaration.task.source) == ("builtins.print", "")


MODULE = """
from linod import dd, task

@dd.schedule_often(every={often})
@dd.schedule_daily(at="20:00")
def sweep(): return {value}

@task(every=5, name="named")
def other(): pass

class Sender:
    def __call__(self): pass

task(every=7)(Sender())
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Write, then load or reload, a module with tasks."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(**values: object) -> ModuleType:
        (tmp_path / "module_with_tasks.py").write_text(MODULE.format(**values))
        importlib.invalidate_caches()
        loaded = sys.modules.get("module_with_tasks")
        return importlib.reload(loaded) if loaded else importlib.import_module("module_with_tasks")

    yield load
    sys.modules.pop("module_with_tasks", None)


def test_a_module_that_is_reloaded_does_not_double_its_tasks(module: Callable[..., ModuleType]) -> None:
    ids = ["module_with_tasks.sweep", "module_with_tasks.sweep#2", "named", "module_with_tasks.Sender"]
    module(often=10, value=1)
    assert declared() == ids
    loaded = module(often=10, value=2)
    assert declared() == ids
    assert declarations["module_with_tasks.sweep"].function is loaded.sweep
    assert declarations["module_with_tasks.sweep"].function() == 2


# Jobs of the schedule package


def test_a_job_is_taken_over_with_its_arguments() -> None:
    got: list[tuple[int, bool]] = []

    def remind(days: int, urgent: bool) -> None:
        got.append((days, urgent))

    declaration = declare_job(schedule.every(10).minutes.do(remind, 7, urgent=True).tag("x"))
    schedule.clear()
    assert declaration.task.text == "Every 10 minutes do remind(7, urgent=True)"
    assert declaration.task.id == f"{__name__}.remind"
    assert declaration.task.tags == ("x",)
    declaration.function()
    assert got == [(7, True)]


def test_jobs_that_do_the_same_with_other_arguments_are_a_task_each() -> None:
    def remind(days: int) -> int:
        return days

    for days in (1, 2, 2):
        declare_job(schedule.every().day.do(remind, days))
    schedule.clear()
    assert declared() == [f"{__name__}.remind", f"{__name__}.remind#2", f"{__name__}.remind#3"]
    assert [declaration.function() for declaration in declarations] == [1, 2, 2]


def test_a_job_without_a_function_is_refused() -> None:
    with pytest.raises(DeclarationError, match="does nothing"):
        declare_job(schedule.every(10).seconds)
    schedule.clear()


# As data


@settings(max_examples=40)
@given(
    keywords=st.fixed_dictionaries(
        {},
        optional={
            "timeout": st.floats(0.1, 1e6),
            "grace": st.floats(0, 1e6) | st.integers(0, 100),
            "overlap": st.sampled_from(["skip", "queue", "allow", "replace"]),
            "catch_up": st.sampled_from(["once", "none", "all"]),
            "retries": st.integers(0, 100),
            "retry_delay": st.floats(0, 1e6),
            "lock": st.none() | st.just("Schloß"),
            "rerun_lost": st.booleans(),
            "fresh": st.booleans(),
            "enabled": st.booleans(),
            "renamed_from": st.none() | st.just("old.name"),
        },
    ),
    when=st.sampled_from(
        [
            {"every": 10},
            {"every": "1h30min", "jitter": 60},
            {"at": ["08:00", "20:00:30"], "tz": "Europe/Brussels"},
            {"cron": "5 4 * * mon", "until": datetime(2030, 1, 1, tzinfo=UTC)},
        ]
    ),
)
def test_a_task_comes_back_from_its_dictionary(keywords: dict[str, Any], when: dict[str, Any]) -> None:
    declarations.clear()
    task(**when, **keywords)(work)
    [declaration] = declarations
    placed = declaration.placed(zone="America/New_York", site="myprj").task
    for each in (declaration.task, placed):
        assert Task.from_dict(json.loads(json.dumps(each.as_dict()))) == each
    for name, value in keywords.items():
        assert getattr(placed.policies, name) == value


def test_a_task_comes_back_from_a_dictionary_of_before_there_were_overrides() -> None:
    task(every=10)(work)
    [declaration] = declarations
    plain = declaration.task.as_dict()
    assert (plain.pop("overridden"), plain.pop("declared")) == ([], "")
    assert Task.from_dict(json.loads(json.dumps(plain))) == declaration.task


def test_what_is_overridden_comes_back_from_its_dictionary() -> None:
    task(every=10)(work)
    [declaration] = declarations
    overridden = replace(declaration.task, overridden=("at: /etc/linod/myprj.toml:12",), declared="Every 10 seconds")
    assert Task.from_dict(json.loads(json.dumps(overridden.as_dict()))) == overridden


def test_a_task_cannot_be_changed() -> None:
    task(every=10)(work)
    [declaration] = declarations
    with pytest.raises(AttributeError):
        declaration.task.label = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        declaration.task.policies.timeout = 1  # type: ignore[misc]


def test_two_sites_have_other_phases_and_the_same_site_always_has_the_same() -> None:
    task(every=10)(work)
    [declaration] = declarations
    one, again, other = (declaration.placed(zone="UTC", site=site).task.schedule for site in ("a", "a", "b"))
    assert one == again != other


@pytest.mark.parametrize(
    ("policies", "delays"),
    [
        (Policies(), [None]),
        (Policies(retries=3), [60, 120, 240, None]),
        (Policies(retries=2, retry_delay=0), [0, 0, None]),
        (Policies(retries=1, retry_delay=1e6), [LONGEST_RETRY_DELAY, None]),
    ],
)
def test_the_delay_before_a_retry_doubles(policies: Policies, delays: list[float | None]) -> None:
    assert [policies.retry_after(attempt) for attempt in range(1, len(delays) + 1)] == delays


def test_even_a_thousandth_retry_has_a_delay() -> None:
    assert Policies(retries=5000).retry_after(5000) == LONGEST_RETRY_DELAY


# Outside a run


def test_progress_does_nothing_where_nobody_listens() -> None:
    linod.progress(1, 2, "half")


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": []},
        {"id": ""},
        {"id": "\ud800"},
        {"label": 5},
        {"label": "a\nb"},
        {"text": None},
        {"source": {}},
        {"tags": [[]]},
        {"overridden": [5]},
        {"declared": 1.5},
        {"schedule": {"kind": "interval", "seconds": 10, "phase": None}},
    ],
)
def test_values_that_no_task_on_a_site_has_are_refused(change: dict[str, Any]) -> None:
    plain = Task(id="a.f", label="f", text="", schedule=schedules.Interval(10, 1.0)).as_dict()
    assert Task.plannable(plain)
    with pytest.raises((KeyError, TypeError, ValueError)):
        Task.plannable(plain | change)


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "turned\N{RIGHT-TO-LEFT OVERRIDE}"])
def test_a_function_of_any_name_is_a_task_that_can_be_shown(name: str) -> None:
    def work() -> None:
        pass

    work.__name__ = name
    dd.schedule_often(every=10)(work)
    [declared] = declarations
    placed = declared.placed(zone="UTC", site="site").task
    assert Task.plannable(placed.as_dict()).label == name.encode("unicode_escape").decode()
