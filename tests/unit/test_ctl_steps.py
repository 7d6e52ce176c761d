"""Moving a site, step by step: whatever interrupts it, and wherever, everything is as it was before."""

import errno
import os
import signal

import pytest

from linod.ctl import adding, aside, steps, supervisorctl
from linod.ctl.steps import Steps, all_or_nothing, interrupted_once
from linod.ctl.supervisorctl import Supervisorctl
from linod.errors import LinodError
from tests.support.ctl import CtlHost

ONE = "[program:linod-a]\ncommand = x\n"


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = CtlHost(tmp_path)
    host.patch(monkeypatch)
    return host


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "a.conf"
    path.write_text(ONE)
    return path


def interrupt(*_arguments):
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_while_a_file_is_written_leaves_it_where_it_was(conf, monkeypatch):
    nobody = Supervisorctl(configuration=conf.parent / "supervisord.conf", installed=False)
    monkeypatch.setattr(aside, "sync", interrupt)  # as when somebody has no patience with a slow disk
    with pytest.raises(KeyboardInterrupt), interrupted_once(), all_or_nothing("linod-a") as done:
        steps.take_out(conf, "linod-a", nobody, done)
    assert os.listdir(conf.parent) == ["a.conf"] and conf.read_text() == ONE


@pytest.mark.parametrize("trouble", [LinodError("no"), OSError(errno.EIO, "no")])
def test_undoing_goes_on_whatever_happens(trouble):
    undone = []

    def fails():
        interrupt()
        raise trouble

    with pytest.raises((LinodError, KeyboardInterrupt)), interrupted_once(), all_or_nothing("x") as done:
        done.done(lambda: undone.append("first"))
        done.done(fails)
        done.done(lambda: undone.append("last"))
        raise LinodError("This is why it is undone.")
    assert undone == ["last", "first"]


def test_what_cannot_be_undone_is_told():
    done = Steps()
    done.done(lambda: os.rmdir("/nowhere"))
    [text] = done.back()
    assert "/nowhere" in text


def test_a_site_that_can_be_removed_by_half_only_stays_a_site(host, monkeypatch):
    site = host.add("shop")
    host.etc.joinpath("shop.toml").write_text(f'{adding.OURS}python = "x"\n')

    def fails(_path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(site.overrides))

    monkeypatch.setattr(adding, "is_unchanged", fails)  # asked when the link is gone already
    with pytest.raises(LinodError, match="Everything is as it was before"), all_or_nothing("shop") as done:
        steps.remove(site, done)
    assert site.link.is_symlink() and site.overrides.exists()


def test_a_supervisor_that_says_nothing_is_not_waited_for_without_end(tmp_path, monkeypatch):
    program = tmp_path / "supervisorctl"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(supervisorctl, "ANSWERS_WITHIN", 0.2)
    with pytest.raises(LinodError, match="supervisorctl does not answer"):
        Supervisorctl.of(tmp_path / "conf.d").overview()


@pytest.mark.parametrize(
    ("state", "words"),
    [("RUNNING", "linod-a runs in supervisor"), ("BACKOFF", "linod-a is BACKOFF in supervisor; see how that goes on")],
)
def test_how_a_program_is_after_its_start_is_told(tmp_path, monkeypatch, state, words):
    program = tmp_path / "supervisorctl"
    program.write_text(f"#!/bin/sh\necho 'linod-a   {state}   pid 7, uptime 0:00:02'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert Supervisorctl.of(tmp_path / "conf.d").in_words("linod-a").startswith(words)
