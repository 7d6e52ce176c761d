"""What the documentation of the original Lino daemon shows is what linod does, word for word.

Its examples are run as they are there: by doctest, with atelier's Sheller.
"""

import doctest
import os
import re
import sys
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.support.noi1e import ROOT, ServedSite
from tests.support.site import PRIVATE

NOI1E_ZONE = ZoneInfo("Europe/Tallinn")


@pytest.fixture
def shell_environment(tmp_path, monkeypatch):
    """The environment in which Sheller types `python`: that of the tests, a history of its own, and no database."""
    for name in PRIVATE:
        monkeypatch.delenv(name, raising=False)
    python = Path(sys.executable).parent
    assert (python / "python").exists()
    monkeypatch.setenv("PATH", f"{python}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("NOI1E_VAR", str(tmp_path / "var"))
    monkeypatch.chdir(ROOT)


def test_the_examples_of_the_documentation_give_the_same_output_on_the_demo_sites(shell_environment):
    found = doctest.testfile("linod.txt", optionflags=doctest.ELLIPSIS, encoding="utf-8")
    assert found.attempted == 5
    assert found.failed == 0


def test_list_shows_the_next_runs_in_the_time_of_the_site(shell_environment, capsys):
    now = datetime.now(NOI1E_ZONE)
    daily, _, often, *_, hourly = [following for _, _, following in listed("tests/projects/noi1e", capsys)]
    evening = now.replace(hour=20, minute=0, second=0, microsecond=0, tzinfo=None)
    # Around eight in the evening it may have been asked for before or after.
    assert daily in (evening, evening + timedelta(days=1))
    assert timedelta(seconds=-1) <= often - now.replace(tzinfo=None) <= timedelta(seconds=20)
    assert timedelta(seconds=-1) <= hourly - now.replace(tzinfo=None) <= timedelta(seconds=3610)


def test_list_shows_the_last_run_once_the_daemon_has_run_a_task(shell_environment, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.delenv("NOI1E_VAR")
    site = ServedSite(tmp_path / "noi1e")
    site.data.set_up()
    site.use_mail_server(port=1)  # nobody listens there: the run fails, and has been a run all the same
    monkeypatch.setenv("NOI1E_VAR", str(site.data.var))
    with site.daemon() as daemon:
        site.wait_for_runs("send_pending_emails_often")
        while_running = [last for _, last, _ in listed(site.path, capsys)]
        assert daemon.terminate() == 0
    runs = site.runs("send_pending_emails_often")
    starts = [run.started.astimezone(NOI1E_ZONE).replace(microsecond=0, tzinfo=None) for run in runs]
    assert while_running[2] in starts
    afterwards = [last for _, last, _ in listed(site.path, capsys)]
    assert afterwards == [None, None, starts[-1], None, None, None]


def listed(directory, capsys):
    """The rows of `--list`, as Sheller prints them: text of the task, last run, next run."""
    from atelier.sheller import Sheller

    capsys.readouterr()
    Sheller(str(directory))("python manage.py linod --list")
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == f"{len(lines)} scheduled jobs:"
    rows = [re.fullmatch(r"\[\d\] (.+) \(last run: (.+), next run: (.+)\)", line).groups() for line in lines]
    return [(text, instant(last), instant(following)) for text, last, following in rows]


def instant(text):
    return None if text == "[never]" else datetime.strptime(text, "%Y-%m-%d %H:%M:%S")
