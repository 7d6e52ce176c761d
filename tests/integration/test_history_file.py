"""The file of history: who can read it, and what happens when it cannot be written or read.

Other users are real ones, by number; without root, sudo makes us those.
"""

import pytest

from tests.support.disk import Disk, as_root
from tests.support.people import GROUP, MEMBER, OWNER, STRANGER, TASKS, People, make_library
from tests.support.site import Site, until

# It takes long, and has little to do with the version of Django.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return make_library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def people(tmp_path, library):
    return People(tmp_path, library)


@pytest.mark.claim("S20")
def test_members_of_the_group_read_history_whether_the_daemon_is_up_stopped_or_killed(people):
    def is_shown_to_members():
        return people.read(MEMBER, GROUP).endswith(" runs") and not people.read(MEMBER, GROUP).startswith("0 ")

    with people.daemon() as end:
        assert is_shown_to_members()
        end("TERM")
    assert is_shown_to_members()
    with people.daemon() as end:
        assert is_shown_to_members()
        end("KILL")
    assert is_shown_to_members()


@pytest.mark.claim("S20")
def test_others_are_told_why_they_cannot_read_history(people):
    with people.daemon():
        told = people.read(STRANGER)
        assert f"can be read by root, its owner and members of the group {GROUP}, not by {STRANGER}." in told
        assert "Traceback" not in told


def test_a_member_lists_the_tasks_with_their_last_runs(people):
    with people.daemon():
        code, output = people.linod(MEMBER, "--list", group=GROUP)
        assert code == 0
        assert "do ping()" in output and "[never]" not in output


def test_a_directory_that_cannot_be_written_is_a_clear_sentence(people):
    as_root("chmod", "555", people.site.path)
    code, output = people.linod(OWNER, group=GROUP)
    assert code == 1
    assert f"The state directory {people.site.state} cannot be made: Permission denied." in output
    assert "STATE_DIRECTORY" in output and "Traceback" not in output


def test_somebody_elses_state_directory_is_a_clear_sentence(people):
    with people.daemon() as end:
        end("TERM")
    code, output = people.linod(STRANGER)
    assert code == 1
    assert f"cannot be written by {STRANGER}" in output
    assert "Traceback" not in output


def test_a_file_that_is_no_database_is_put_aside(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with site.daemon() as daemon:
        site.wait_for_runs("ping")
        daemon.kill()
    for path in site.state.glob("history.sqlite3*"):
        path.write_bytes(b"rubbish" * 5000)
    with site.daemon() as daemon:
        daemon.wait_for("ping succeeded")
        site.wait_for_runs("ping")
        assert daemon.terminate() == 0
    assert list(site.state.glob("history.sqlite3.damaged-*"))


@pytest.mark.claim("H1", "H2")
def test_a_damaged_page_stops_no_task(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with site.daemon() as daemon:
        site.wait_for_runs("ping", 3)
        assert daemon.terminate() == 0
    path = site.state / "history.sqlite3"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with site.daemon() as daemon:
        daemon.wait_for(f"{path} was damaged (")
        daemon.wait_for("what was paused is paused no more, and nothing is caught up")
        site.wait_for_runs("ping")
        assert daemon.terminate() == 0


@pytest.mark.claim("P24")
def test_a_full_disk_stops_no_task_and_records_are_written_later(tmp_path):
    with Disk(tmp_path / "disk", mebibytes=1, kind="tmpfs") as disk:
        site = Site(tmp_path / "site", tasks=TASKS, STATE_DIRECTORY=str(disk.path))
        with site.daemon() as daemon:
            site.wait_for_runs("ping")
            disk.fill()
            daemon.wait_for("History cannot be written")
            shown = daemon.output().count("ping: pong")
            daemon.wait_for(lambda: daemon.output().count("ping: pong") > shown + 3)
            disk.make_room()
            daemon.wait_for("History can be written again", timeout=40)
            shown = daemon.output().count("ping: pong")
            assert daemon.terminate() == 0
            assert sum(run.outcome == "succeeded" for run in site.ended("ping")) >= shown
            assert daemon.output().count("History cannot be written") == 1


def test_a_state_directory_named_by_the_service_is_found_by_others(tmp_path):
    site = Site(tmp_path / "site", tasks=TASKS)
    state = tmp_path / "state"
    state.mkdir()
    with site.daemon(STATE_DIRECTORY=str(state)):
        until(lambda: site.state.exists() and site.ended("ping"))
        assert (site.path / ".linod").resolve() == state
        listed = site.manage("linod", "--list")
        assert "[never]" not in listed.stdout
        assert site.manage("linod").returncode == 75
