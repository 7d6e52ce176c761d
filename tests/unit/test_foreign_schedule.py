"""Not every module named `schedule` is the package of that name: a site may have an app that is called so."""

import sys
from types import ModuleType

import linod
from linod.schedules import take_registered_jobs


def test_another_module_of_that_name_has_no_jobs_and_disturbs_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "schedule", ModuleType("schedule"))
    assert take_registered_jobs() == []

    @linod.task(every=10)
    def tidy():
        pass

    assert callable(tidy)
