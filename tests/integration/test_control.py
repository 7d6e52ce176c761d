"""A daemon and those who ask it for something: run now, pause, resume, cancel, and who is not heard."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import pytest

from linod.archive import Archive
from linod.caller import NoAnswer, NotRunning, ask, connect, follow, hear, say
from linod.daemon import offline
from linod.errors import SiteLocked
from linod.wire import (
    Accepted,
    Ask,
    Begin,
    Cancel,
    Done,
    Ended,
    Pause,
    Progress,
    Refused,
    Reload,
    Resume,
    RunNow,
    Standing,
    Wrote,
)
from tests.support.site import ROOT, Site, until

pytestmark = pytest.mark.slow

TASKS = """
    import logging, os, time
    import linod
    from linod import progress

    @linod.task(every="1 day")
    def quick():
        print("pong")

    @linod.task(every="1 day")
    def talks():
        for number in range(3):
            print(f"line {number}", flush=True)
            progress(number + 1, 3, "steps")
        logging.getLogger("app").warning("careful")

    @linod.task(every="1 day", retries=3, retry_delay=0.1)
    def fails():
        raise ValueError("no")

    @linod.task(every="1 day", grace=20)
    def slow():
        print("here I am", flush=True)
        time.sleep(60)

    @linod.task(every="1 day", overlap="queue")
    def queued():
        while not os.path.exists("go"):
            time.sleep(0.02)

    @linod.task(every="1 day", enabled=False)
    def disabled():
        pass

    @linod.task(every=1)
    def often():
        pass
"""


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path, tasks=TASKS)


@pytest.fixture
def daemon(site):
    with site.daemon() as daemon:
        daemon.wait_for("7 tasks")
        yield daemon


def run_now(site, task):
    return list(follow(site.path, RunNow(task=task, by="luc")))


class Following(threading.Thread):
    """Follows a run in the background."""

    def __init__(self, site, task):
        super().__init__(daemon=True)
        self.site, self.task, self.messages, self.error = site, task, [], None
        self.start()

    def run(self):
        try:
            for message in follow(self.site.path, RunNow(task=self.task, by="luc")):
                self.messages.append(message)
        except Exception as error:
            self.error = error

    def wait_for(self, kind):
        """The message of that kind; AssertionError if it doesn't come."""

        def find():
            over = not self.is_alive()  # asked first: what came at last is seen below
            found = next((message for message in self.messages if isinstance(message, kind)), None)
            assert found or not over, f"no {kind.__name__}, but {self.messages} and {self.error!r}"
            return found

        return until(find, what=kind.__name__)


# Run now


def test_a_task_that_is_run_now_is_followed_to_its_end(site, daemon):
    accepted, begin, *told, ended = run_now(site, "talks")
    assert accepted == Accepted(run=begin.run, task="app.tasks.talks")
    assert begin == Begin(run=accepted.run, task="app.tasks.talks")
    text = "".join(message.text for message in told if isinstance(message, Wrote))
    assert text == "line 0\nline 1\nline 2\nWARNING app: careful\n"
    assert Progress(run=begin.run, done=3.0, total=3.0, text="steps") in told
    assert (ended.run, ended.outcome) == (begin.run, "succeeded")
    [run] = site.wait_for_runs("talks")
    assert (run.id, run.trigger, run.outcome) == (begin.run, "manual", "succeeded")
    daemon.wait_for("talks is run now, asked for by luc")


@pytest.mark.claim("P20")
def test_a_task_that_fails_says_why_and_is_not_tried_again(site, daemon):
    ended = run_now(site, "app.tasks.fails")[-1]
    assert (ended.outcome, ended.reason) == ("failed", "ValueError: no")
    assert "in fails" in ended.traceback
    run_now(site, "quick")
    assert "is tried again" not in daemon.output()
    assert len(site.runs("fails")) == 1


def test_what_cannot_be_run_is_told_in_words(site, daemon):
    [refused] = run_now(site, "quik")
    assert refused.reason == "This site has no task 'quik'. Did you mean quick?"
    slow = Following(site, "slow")
    slow.wait_for(Begin)
    [refused] = run_now(site, "slow")
    assert refused.reason == "slow is not run: the previous run is still going on"


def test_a_disabled_task_can_be_run(site, daemon):
    assert run_now(site, "disabled")[-1].outcome == "succeeded"


def test_a_run_that_waits_for_another_begins_after_it(site, daemon):
    first, second = Following(site, "queued"), None
    first.wait_for(Begin)
    second = Following(site, "queued")
    assert second.wait_for(Accepted).waits_for == "the previous run is still going on"
    assert not [m for m in second.messages if isinstance(m, Begin)]
    site.write("go")
    assert first.wait_for(Ended).outcome == second.wait_for(Ended).outcome == "succeeded"


def test_a_run_goes_on_when_nobody_follows_it_any_more(site, daemon):
    with connect(site.path) as channel:
        say(channel, RunNow(task="queued", by="luc"))
        hear(channel)
    until(lambda: [run for run in site.runs("queued") if run.started], what="its start")
    site.write("go")
    [run] = site.wait_for_runs("queued")
    assert run.outcome == "succeeded"


def test_who_follows_a_run_hears_its_end_when_the_daemon_stops(tmp_path):
    site = Site(tmp_path, tasks=TASKS, settings="LINOD = {'drain_timeout': 0.2}")
    with site.daemon() as daemon:
        daemon.wait_for("7 tasks")
        slow = Following(site, "slow")
        slow.wait_for(Begin)
        assert daemon.terminate() == 0
        ended = slow.wait_for(Ended)
        assert (ended.outcome, ended.reason) == ("cancelled", "the daemon stops")


def test_many_tasks_that_are_run_at_once_all_end(tmp_path):
    site = Site(
        tmp_path,
        tasks="""
        import time, linod
        def work():
            time.sleep(0.05)
        for number in range(30):
            linod.task(every="1 day", name=f"work{number}")(work)
        """,
    )
    with site.daemon() as daemon:
        daemon.wait_for("30 tasks")
        all_of_them = [Following(site, f"work{number}") for number in range(30)]
        assert {one.wait_for(Ended).outcome for one in all_of_them} == {"succeeded"}


def test_a_run_that_waits_when_the_daemon_stops_is_refused(site, daemon):
    first = Following(site, "queued")
    first.wait_for(Begin)
    second = Following(site, "queued")
    second.wait_for(Accepted)
    daemon.signal(signal.SIGTERM)
    assert second.wait_for(Refused).reason == "the daemon is about to stop"
    site.write("go")
    assert first.wait_for(Ended).outcome == "succeeded"
    assert daemon.wait() == 0


# Cancel


def test_a_run_is_cancelled_by_its_number(site, daemon):
    slow = Following(site, "slow")
    run = slow.wait_for(Begin).run
    slow.wait_for(Wrote)
    answer = ask(site.path, Cancel(run=run, by="luc"))
    assert answer == Done(text=f"slow, run {run}, is asked to end; if it has not within 20 s, it is killed.")
    again = ask(site.path, Cancel(run=run, by="luc"))
    assert isinstance(again, Refused)
    ended = slow.wait_for(Ended)
    assert (ended.outcome, ended.reason) == ("cancelled", "cancelled by luc")
    [recorded] = site.wait_for_runs("slow")
    assert (recorded.outcome, recorded.reason) == ("cancelled", "cancelled by luc")
    assert ask(site.path, Cancel(run=run, by="luc")) == Refused(reason=f"no run {run} is going on")


def test_a_run_that_has_not_begun_is_cancelled_and_recorded_as_skipped(site, daemon):
    first = Following(site, "queued")
    first.wait_for(Begin)
    second = Following(site, "queued")
    run = second.wait_for(Accepted).run
    until(lambda: [r for r in unfinished(site) if r.id == run], what="its claim")
    answer = ask(site.path, Cancel(run=run, by="luc"))
    assert answer == Done(text=f"queued, run {run}, had not begun yet and will not.")
    assert second.wait_for(Refused).reason == "cancelled by luc"
    skipped = until(lambda: [r for r in site.runs("queued") if r.outcome == "skipped"], what="the record")
    assert [(r.id, r.reason) for r in skipped] == [(run, "cancelled by luc")]
    site.write("go")
    assert first.wait_for(Ended).outcome == "succeeded"


LOCKED = """
    import os, time
    import linod

    @linod.task(every="1 day", lock="ledger")
    def holds():
        while not os.path.exists("go"):
            time.sleep(0.02)

    @linod.task(every=2, lock="ledger", overlap="queue")
    def queued():
        pass

    @linod.task(every="1 day")
    def quick():
        pass
"""


def test_after_the_first_of_those_who_wait_is_cancelled_the_next_one_begins(tmp_path):
    site = Site(tmp_path, tasks=LOCKED.replace("every=2", "every='1 day'"))
    with site.daemon() as daemon:
        daemon.wait_for("3 tasks")
        holds = Following(site, "holds")
        holds.wait_for(Begin)
        first = Following(site, "queued").wait_for(Accepted).run
        second = Following(site, "queued")
        second.wait_for(Accepted)
        pause(site, "quick")  # is answered when both are written, and have fallen due
        assert isinstance(ask(site.path, Cancel(run=first, by="luc")), Done)
        site.write("go")
        assert second.wait_for(Ended).outcome == "succeeded"
        assert run_now(site, "queued")[-1].outcome == "succeeded"


def test_a_person_who_waits_behind_what_a_pause_withdraws_is_served(tmp_path):
    site = Site(tmp_path, tasks=LOCKED)
    with site.daemon() as daemon:
        daemon.wait_for("3 tasks")
        holds = Following(site, "holds")
        holds.wait_for(Begin)
        until(lambda: [run for run in unfinished(site) if run.task.endswith("queued") and run.due < utcnow()])
        asked = Following(site, "queued")
        asked.wait_for(Accepted)
        pause(site, "quick")
        pause(site, "queued")
        site.write("go")
        assert asked.wait_for(Ended).outcome == "succeeded"


def test_a_run_of_a_command_is_not_cancelled(tmp_path):
    site = Site(tmp_path, tasks=TASKS)
    with site.daemon() as daemon:
        daemon.wait_for("7 tasks")
        command = subprocess.Popen(
            site.command("linod", "--run", "slow"), cwd=site.path, env=site.environment, stdout=subprocess.PIPE
        )
        try:
            [run] = until(lambda: [r for r in site.runs("slow") if r.started], what="its start")
            answer = ask(site.path, Cancel(run=run.id, by="luc"))
            assert answer.reason.endswith(f"is run by a command itself, process {command.pid}; end that one")
        finally:
            command.kill()
            command.communicate()
        [run] = site.wait_for_runs("slow")
        assert run.outcome == "crashed"


# Pauses


def pause(site, task="", reason="we move house"):
    return ask(site.path, Pause(task=task, reason=reason, by="luc"))


def test_a_paused_task_is_run_no_more_until_it_is_resumed(site, daemon):
    site.wait_for_runs("often")
    assert pause(site, "often") == Done(text="often is paused.")
    number = settled(site, "often")
    assert run_now(site, "often")[-1].outcome == "succeeded"
    daemon.wait_for("often is paused by luc: we move house")
    assert ask(site.path, Resume(task="often", by="luc")) == Done(text="often is resumed.")
    assert ask(site.path, Resume(task="often", by="luc")) == Done(text="often is not paused.")
    daemon.wait_for("often is resumed by luc")
    runs = site.wait_for_runs("often", number + 3)
    assert [run.trigger for run in runs[number:]] == ["manual", "schedule", "schedule"]
    assert not [run for run in site.runs("often") if run.outcome == "skipped" and run.due > runs[number].due]


def test_a_retry_is_withdrawn_by_a_pause_for_good(tmp_path):
    site = Site(
        tmp_path,
        tasks="""
        import linod
        @linod.task(every=2, retries=5, retry_delay=1.5)
        def fails():
            raise ValueError("no")
        """,
    )
    with site.daemon() as daemon:
        daemon.wait_for("is tried again in")
        pause(site)
        number = settled(site, "fails")
        ask(site.path, Resume(task=""))
        following = site.wait_for_runs("fails", number + 1)[number]
        assert (following.trigger, following.attempt) == ("schedule", 1)


def test_what_runs_goes_on_in_a_pause(site, daemon):
    first = Following(site, "queued")
    first.wait_for(Begin)
    assert pause(site) == Done(text="The whole site is paused.")
    site.write("go")
    assert first.wait_for(Ended).outcome == "succeeded"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_pause_survives_its_daemon(site, how):
    with site.daemon() as daemon:
        site.wait_for_runs("often")
        pause(site, "often")
        if how == "killed":
            daemon.kill()
        else:
            assert daemon.terminate() == 0
    [record] = [*site.history().pauses().values()]
    assert (record.task, record.reason, record.by) == ("app.tasks.often", "we move house", "luc")
    number = len(site.runs("often"))
    with site.daemon() as daemon:
        daemon.wait_for("7 tasks")
        assert run_now(site, "quick")[-1].outcome == "succeeded"
        assert settled(site, "often") == number
        answer = pause(site, "often", "another reason")
        assert answer.text.startswith("often has been paused since ")
        assert answer.text.endswith("by luc: another reason.")
        [again] = [*site.history().pauses().values()]
        assert (again.since, again.reason) == (record.since, "another reason")


@pytest.mark.claim("P12")
def test_what_was_due_in_a_pause_is_not_caught_up_by_a_later_daemon(site):
    """The pause is lifted while no daemon runs."""
    site.declare(TASKS.replace("every=1)", "every=1, catch_up='all')"))
    with site.daemon(once := "--once") as daemon:
        assert daemon.wait() == 0
    first = len(site.runs("often"))
    assert offline.pause(site.state, "often", reason="so", by="luc") == "often is paused."
    time.sleep(2.1)  # due times have to pass
    with site.daemon(once) as daemon:
        assert daemon.wait() == 0
    assert len(site.runs("often")) == first
    assert offline.resume(site.state, "often") == "often is resumed."
    before = time.time()
    with site.daemon(once) as daemon:
        assert daemon.wait() == 0
    assert all(run.due.timestamp() > before - 1 for run in site.runs("often")[first:])


def test_a_pause_is_asked_of_the_daemon_while_there_is_one(site, daemon):
    with pytest.raises(SiteLocked):
        offline.pause(site.state, "", reason="", by="luc")
    assert not site.history().pauses()


def test_a_pause_without_a_daemon_leaves_no_file_that_its_user_cannot_write(site):
    with site.daemon("--once") as daemon:
        assert daemon.wait() == 0
    before = sorted(path.name for path in site.state.iterdir())
    offline.pause(site.state, "", reason="", by="luc")
    assert sorted(path.name for path in site.state.iterdir()) == before
    assert {path.stat().st_uid for path in site.state.iterdir()} == {site.state.stat().st_uid}


# How it does


def test_the_daemon_tells_how_it_does(site, daemon):
    slow = Following(site, "slow")
    begin = slow.wait_for(Begin)
    standing = ask(site.path, Ask())
    assert isinstance(standing, Standing)
    assert (standing.pid, standing.tasks, standing.waiting_for) == (daemon.pid, 7, "")
    assert (standing.draining, standing.trouble) == (False, "")
    assert abs(standing.since / 1e6 - time.time()) < 60
    assert begin.run in [one["run"] for one in standing.running]
    assert standing.alive >= 1 and standing.workers >= 1
    daemon.signal(signal.SIGTERM)
    until(lambda: ask(site.path, Ask()).draining, what="draining")
    assert run_now(site, "quick") == [Refused(reason="the daemon is about to stop")]


def test_a_reload_is_answered_when_it_is_done(site, daemon):
    site.declare(TASKS.replace("pong", "ping"))
    assert ask(site.path, Reload(), 30) == Done(text="The site is loaded anew.")
    assert Wrote(run=1, text="ping\n").text in [m.text for m in run_now(site, "quick") if isinstance(m, Wrote)]
    site.declare("import nothing_of_that_name")
    answer = ask(site.path, Reload(), 30)
    assert isinstance(answer, Refused) and "nothing_of_that_name" in answer.reason


def test_without_a_daemon_nothing_is_answered(site):
    with pytest.raises(NotRunning):
        ask(site.path, Ask())


def test_a_daemon_that_was_killed_is_not_running(site):
    with site.daemon() as daemon:
        daemon.wait_for("7 tasks")
        daemon.kill()
    with pytest.raises(NotRunning):
        ask(site.path, Ask())


def test_a_daemon_that_is_stopped_does_not_answer(site, daemon):
    daemon.signal(signal.SIGSTOP)
    try:
        with pytest.raises(NoAnswer, match=str(daemon.pid)):
            ask(site.path, Ask(), 0.5)
    finally:
        daemon.signal(signal.SIGCONT)


def test_the_socket_is_found_in_the_runtime_directory(site, tmp_path):
    runtime = tmp_path / "run"
    runtime.mkdir()
    with site.daemon(RUNTIME_DIRECTORY=str(runtime)) as daemon:
        daemon.wait_for("7 tasks")
        assert (runtime / "control").is_socket()
        assert isinstance(ask(runtime / "control", Ask()), Standing)
        assert isinstance(ask(site.path, Ask()), Standing)
        found = site.manage("linod", "--run", "quick")
        assert (found.returncode, found.stdout) == (0, "pong\n")
        assert daemon.terminate() == 0
    assert not list(runtime.iterdir())


# Those who are not heard


def test_garbage_harms_nothing(site, daemon):
    chance = random.Random(1)
    for _ in range(300):
        with connect(site.path) as channel:
            try:
                for _ in range(chance.randrange(4)):
                    channel.send(chance.randbytes(chance.choice([1, 10, 1000, 100_000])))
            except OSError:
                pass
    assert isinstance(ask(site.path, Ask()), Standing)
    assert run_now(site, "quick")[-1].outcome == "succeeded"
    until(lambda: sockets_of(daemon.pid) < 20, what="hanging up")


def test_a_name_of_any_length_harms_nothing(site, daemon):
    with connect(site.path) as channel:
        channel.send(b'["RunNow",{"task":"%s","by":""}]' % ("\u2028" * 50_000).encode())
        assert hear(channel).reason.startswith("This site has no task")
    assert run_now(site, "quick")[-1].outcome == "succeeded"


def test_without_descriptors_for_more_workers_the_others_go_on(tmp_path):
    site = Site(
        tmp_path,
        settings="LINOD = {'max_parallel': 20, 'slow_after': 0.0}",
        tasks="""
        import linod, os, time
        def work():
            while not os.path.exists("go"):
                time.sleep(0.02)

        for number in range(20):
            linod.task(every="1 day", name=f"work{number}")(work)
        """,
    )
    with site.daemon() as daemon:
        daemon.wait_for("20 tasks")
        _soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{daemon.pid}/fd")) + 12, hard))
        for number in range(20):
            with connect(site.path) as channel:
                say(channel, RunNow(task=f"work{number}", by="luc"))
                assert isinstance(hear(channel), Accepted)
        daemon.wait_for("The kernel refuses another worker: [Errno 24] Too many open files.")
        until(lambda: [run for run in site.runs() if run.started], what="the first of them")
        site.write("go")
        assert {run.outcome for run in until(lambda: len(site.ended()) == 20 and site.ended())} == {"succeeded"}
        assert daemon.terminate() == 0


@pytest.mark.claim("S22")
def test_idle_connections_do_not_lock_others_out(site, daemon):
    idle = [connect(site.path) for _ in range(200)]
    try:
        assert isinstance(ask(site.path, Ask()), Standing)
        assert run_now(site, "quick")[-1].outcome == "succeeded"
        assert sockets_of(daemon.pid) < 120
    finally:
        for channel in idle:
            channel.close()


@pytest.mark.claim("S22")
def test_a_reader_who_sleeps_keeps_nobody_waiting(tmp_path):
    site = Site(
        tmp_path,
        tasks="""
        import linod
        @linod.task(every="1 day")
        def chatty():
            for number in range(20_000):
                print("x" * 500)
        @linod.task(every=0.5)
        def neighbour():
            pass
        """,
        settings="LINOD = {'log_lines': 1_000_000}",
    )
    with site.daemon() as daemon:
        daemon.wait_for("2 tasks")
        messages = follow(site.path, RunNow(task="chatty", by="luc"))
        assert isinstance(next(messages), Accepted)
        [run] = site.wait_for_runs("chatty")
        assert run.outcome == "succeeded"
        assert isinstance(ask(site.path, Ask()), Standing)
        told = list(messages)
        assert told[-1].outcome == "succeeded"
        lines = sum(m.text.count("x\n") for m in told if isinstance(m, Wrote))
        [note] = [m.text for m in told if isinstance(m, Wrote) and "came too fast" in m.text]
        assert lines + int(note[1:].split()[0].replace(",", "")) == 20_000


ASK_AS_ANOTHER = """
import os, pwd, sys
from pathlib import Path
from linod.caller import NotPermitted, ask
from linod.wire import Ask
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(65534)  # from here on it may not be allowed to import anything
try:
    print(ask(Path(sys.argv[1]), Ask()))
except NotPermitted as error:
    print(error)
"""


def test_another_user_is_told_who_may_ask(open_path):
    """As a stranger, who cannot reach the socket, and as a member of its group, who can."""
    assert os.geteuid() == 0, "this test must be run by root"
    site = Site(open_path, tasks=TASKS)
    with site.daemon() as daemon:
        daemon.wait_for("7 tasks")
        control = site.state / "control"
        os.chown(control, 0, 12345)
        site.state.chmod(0o755)
        for group in (65534, 12345):
            found = subprocess.run(
                [sys.executable, "-c", ASK_AS_ANOTHER, str(control), str(group)],
                cwd="/",
                env={"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=20,
            )
            assert found.stdout.startswith("The daemon of this site listens to root, not to nobody."), found
        assert isinstance(ask(site.path, Ask()), Standing)


SEND_AS_ANOTHER = """
import os, socket, sys
os.setgroups([])
os.setgid(12345)
os.setuid(65534)
channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
channel.settimeout(10)
channel.connect(sys.argv[1])
print(channel.recv(1000).decode(), repr(channel.recv(1000)))
"""


@pytest.mark.claim("S21")
def test_another_user_who_asks_all_the_same_is_refused_without_being_heard(open_path):
    assert os.geteuid() == 0, "this test must be run by root"
    site = Site(open_path, tasks=TASKS)
    with site.daemon() as daemon:
        daemon.wait_for("7 tasks")
        control = site.state / "control"
        os.chown(control, 0, 12345)
        site.state.chmod(0o755)
        found = subprocess.run(
            [sys.executable, "-c", SEND_AS_ANOTHER, str(control)], cwd="/", capture_output=True, text=True, timeout=20
        )
        assert found.stdout == """["Refused",{"reason":"the daemon listens to root"}] b''\n""", found


@pytest.fixture
def open_path(tmp_path):
    """A directory that other users can reach."""
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and path != path.parent:
            path.chmod(path.stat().st_mode | 0o055)
    return tmp_path


# Ten thousand tasks


def test_a_turn_costs_the_same_with_ten_thousand_tasks(tmp_path):
    """Asking makes turns; none of them may look at all tasks."""
    site = Site(
        tmp_path,
        tasks="""
        import linod
        def work():
            pass
        for number in range(10_000):
            linod.task(every="1 day", name=f"work{number}")(work)
        """,
    )
    with site.daemon() as daemon:
        daemon.wait_for("10000 tasks", 60)
        with connect(site.path) as channel:
            say(channel, Ask())
            hear(channel)
            before = cpu_of(daemon.pid)
            for _ in range(1000):
                say(channel, Ask())
                hear(channel)
            assert (cpu_of(daemon.pid) - before) < 2.0
        began = time.monotonic()
        assert isinstance(pause(site), Done)
        assert isinstance(ask(site.path, Resume(task="")), Done)
        assert time.monotonic() - began < 10
        assert run_now(site, "work9999")[-1].outcome == "succeeded"


def cpu_of(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def utcnow():
    return datetime.now(UTC)


def sockets_of(pid):
    found = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
        except FileNotFoundError:
            pass
    return found


def unfinished(site):
    with Archive(site.state) as archive:
        return archive.unfinished()


def settled(site, task):
    """How many runs a task has that is to have no more: it had the time for two."""
    until(lambda: not [run for run in unfinished(site) if run.task.endswith(task)], what="the end of what ran")
    number = len(site.runs(task))
    deadline = time.monotonic() + 2.2
    while time.monotonic() < deadline:
        assert len(site.runs(task)) == number
        time.sleep(0.05)
    return number
