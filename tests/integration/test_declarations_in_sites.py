"""Where a site may declare its tasks, and what decides whether they run at all."""

import json
import subprocess
import sys
import time

import pytest

from tests.support.site import Site, until

PING = """
import linod

@linod.task(every=0.5)
def ping():
    print("pong")
"""


def test_tasks_of_models_and_tasks_and_schedule_itself_are_found(tmp_path):
    tasks = """
    import functools, linod, schedule
    from linod import dd

    @dd.schedule_often(every=1)
    @dd.schedule_often(every=2)
    def twice():
        pass

    def greet(name, *, how="Hello"):
        print(how, name)

    schedule.every(1).seconds.do(greet, "Robin", how="Tere")
    schedule.every(1).seconds.do(functools.partial(greet, "Luc"))
    """
    site = Site(tmp_path, tasks=tasks)
    site.write("app/models.py", PING.replace("ping", "modelled"))
    with site.daemon():
        site.wait_for_runs("app.models.modelled")
        for id, output in (("greet", "Tere Robin"), ("greet#2", "Hello Luc"), ("twice", ""), ("twice#2", "")):
            [run, *_] = site.wait_for_runs(id)
            assert (run.outcome, run.output) == ("succeeded", output)


@pytest.mark.parametrize("name", ["Ümlaut & Co.", "a/b\\c", "100%", "'; DROP TABLE runs; --", "{x} $HOME", "x" * 200])
def test_odd_names_are_names(tmp_path, name):
    site = Site(tmp_path, tasks=PING.replace("every=0.5", f"every=0.5, name={name!r}"))
    with site.daemon() as daemon:
        [run, *_] = site.wait_for_runs(name)
        assert run.output == "pong"
        assert daemon.terminate() == 0
    listed = site.manage("linod", "--list", "--json")
    assert listed.returncode == 0
    assert [task["id"] for task in json.loads(listed.stdout)["tasks"]] == [name]


# Whether they run


@pytest.mark.parametrize(
    ("setting", "environment", "runs"),
    [
        ("USE_LINOD = True", {}, True),
        ("USE_LINOD = False", {}, False),
        ("del USE_LINOD", {}, False),
        ("del USE_LINOD\nclass SITE:\n    use_linod = True", {}, True),
        ("USE_LINOD = True", {"LINOD_USE": "no"}, False),
        ("USE_LINOD = False", {"LINOD_USE": "yes"}, True),
    ],
)
def test_settings_and_administrator_decide_whether_tasks_run(tmp_path, setting, environment, runs):
    site = Site(tmp_path, tasks=PING, settings=setting, **environment)
    if runs:
        with site.daemon():
            site.wait_for_runs("ping")
    else:
        result = site.manage("linod")
        assert (result.returncode, result.stdout, result.stderr) == (0, "This site does not use linod.\n", "")
        assert not site.state.exists()


def test_a_site_without_tasks_says_so(tmp_path):
    result = Site(tmp_path).manage("linod")
    assert (result.returncode, result.stdout) == (0, "This site has no scheduled jobs.\n")


@pytest.mark.parametrize("word", ["maybe", "2"])
def test_an_administrator_who_mumbles_is_asked_again(tmp_path, word):
    result = Site(tmp_path, tasks=PING, LINOD_USE=word).manage("linod")
    assert result.returncode == 78
    assert f"LINOD_USE='{word}' is neither yes nor no" in result.stderr


def test_a_wrong_setting_is_a_matter_of_configuration(tmp_path):
    result = Site(tmp_path, tasks=PING, settings="LINOD = {'max_paralel': 3}").manage("linod")
    assert result.returncode == 78
    assert "LINOD has no setting 'max_paralel'" in result.stderr


def test_a_bad_declaration_is_a_matter_of_configuration(tmp_path):
    result = Site(tmp_path, tasks=PING.replace("0.5", "0")).manage("linod")
    assert result.returncode == 78
    assert "0" in result.stderr and "Traceback" not in result.stderr


# Once


def test_once_runs_what_is_due_and_ends(tmp_path):
    site = Site(tmp_path, tasks=PING.replace("0.5", "1"))
    assert site.manage("linod", "--once").returncode == 0  # the first time nothing was missed
    before = len(site.ended("ping"))
    until(lambda: missed(site))
    result = site.manage("linod", "--once")
    assert result.returncode == 0
    runs = site.ended("ping")[before:]
    assert len(runs) == 1
    assert (runs[0].outcome, runs[0].trigger) == ("succeeded", "catch-up")


def missed(site):
    """Whether more than two seconds have passed since history learned of the task."""
    with site.history() as archive:
        return archive.tasks()[0]["since"] < (time.time() - 2) * 1e6


def test_call_command_comes_back(tmp_path):
    site = Site(tmp_path, tasks=PING)
    script = """
    import os, sys
    os.environ["DJANGO_SETTINGS_MODULE"] = "proj.settings"
    import django
    django.setup()
    from django.core.management import call_command
    call_command("linod", once=True)
    print("back again in", os.getpid())
    """
    site.write("script.py", script)
    process = subprocess.Popen(
        [sys.executable, "script.py"], cwd=site.path, env=site.environment, stdout=subprocess.PIPE, text=True
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.endswith(f"back again in {process.pid}\n")
    assert site.state.is_dir()


# A broken neighbour of the tasks


def test_a_failing_import_in_tasks_is_told_with_its_place(tmp_path):
    result = Site(tmp_path, tasks="import linod\n1 / 0\n").manage("linod")
    assert result.returncode not in (0, None)
    assert "ZeroDivisionError" in result.stderr


def test_the_daemon_runs_in_the_directory_of_the_site(tmp_path):
    site = Site(tmp_path, tasks=PING.replace('"pong"', "__import__('os').getcwd()"))
    process = subprocess.Popen(
        site.command("linod"), cwd="/", env=site.environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        [run, *_] = site.wait_for_runs("ping")
        assert run.output == str(site.path)
    finally:
        process.terminate()
        process.wait(20)
