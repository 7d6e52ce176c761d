"""A task that misbehaves harms nothing but its own run, and history says what happened.

Beside each of them a neighbour runs twice a second; that it went on without a gap, and that the daemon stopped in
peace, is checked at the end of every `with neighbourhood(...)`.
"""

import os
import re
import signal
import time
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.site import NEIGHBOUR, Site, is_alive, memory_of, name_of, neighbourhood, until

MIB = 1024  # KiB


def first_run(site, task):
    return site.wait_for_runs(task)[0]


def pids_in(path, number):
    """The pids that a task wrote into a file, once there are so many."""
    until(lambda: path.exists() and len(path.read_text().split()) >= number, what=f"{number} pids in {path}")
    return [int(word) for word in path.read_text().split()[:number]]


def private_memory(pid):
    """KiB that are freed when the process ends."""
    try:
        return int(re.search(r"Private_Dirty: *(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[1])
    except (OSError, TypeError):
        return 0  # it is about to be gone


# Ends


@pytest.mark.claim("P18")
def test_an_exception_is_a_failure_with_its_traceback(tmp_path):
    tasks = """
    def divide():
        return 1 / 0

    @linod.task(every=0.5)
    def bad():
        print("before")
        divide()
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        run = first_run(site, "bad")
        assert (run.outcome, run.reason) == ("failed", "ZeroDivisionError: division by zero")
        first, *_ = run.traceback.splitlines()[1:]
        assert "app/tasks.py" in first and first.endswith("in bad")
        assert "in divide" in run.traceback
        assert run.output == "before"
        daemon.wait_for("bad failed after")


def test_an_exception_that_cannot_be_shown_is_a_failure_all_the_same(tmp_path):
    tasks = """
    class Mute(BaseException):
        def __str__(self):
            raise RuntimeError("no words")

    @linod.task(every=0.5)
    def bad():
        raise Mute
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        run = first_run(site, "bad")
        assert run.outcome == "failed"
        assert run.reason.startswith("Mute")


def test_sys_exit_tells_success_or_failure(tmp_path):
    tasks = """
    @linod.task(every=0.5)
    def content():
        sys.exit()

    @linod.task(every=0.5)
    def discontent():
        sys.exit(3)
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        assert first_run(site, "content").outcome == "succeeded"
        run = first_run(site, "discontent")
        assert (run.outcome, run.reason) == ("failed", "exit status 3")


@pytest.mark.claim("P18")
def test_a_process_that_leaves_has_crashed(tmp_path):
    tasks = """
    @linod.task(every=0.5)
    def leave():
        print("bye")
        os._exit(7)
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        run = first_run(site, "leave")
        assert (run.outcome, run.reason) == ("crashed", "its process left with exit status 7")
        assert run.output == "bye"


def test_a_segmentation_fault_is_named_and_located(tmp_path):
    tasks = """
    @linod.task(every=0.5)
    def segv():
        import ctypes
        ctypes.string_at(0)
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        run = first_run(site, "segv")
        assert (run.outcome, run.reason) == ("crashed", "its process died of SIGSEGV")
        assert "Segmentation fault" in run.output and "in segv" in run.output


def test_progress_that_is_told_at_great_length_does_no_harm(tmp_path):
    tasks = """
    @linod.task(every=0.5)
    def talks():
        linod.progress(1, 1, "on and " * 100_000)
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        assert first_run(site, "talks").outcome == "succeeded"


# Time


@pytest.mark.claim("P19")
def test_a_task_that_hangs_is_timed_out_and_may_clean_up(tmp_path):
    tasks = """
    @linod.task(every=1, timeout=0.5)
    def hang():
        try:
            time.sleep(60)
        finally:
            print("cleaned up")
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        run = first_run(site, "hang")
        assert (run.outcome, run.reason) == ("timed_out", "it took longer than its timeout of 0.5 s")
        assert run.output == "cleaned up"
        assert "time.sleep(60)" in run.traceback
        assert 0.5 <= run.duration < 2


def test_a_run_that_ends_in_time_while_the_daemon_cannot_listen_is_not_timed_out(tmp_path):
    tasks = """
    @linod.task(every=2, timeout=1.5)
    def tells():
        if not os.path.exists("told"):
            open("began", "w").close()
            for number in range(3):
                time.sleep(0.25)
                linod.progress(number, 3, "steps")
            open("told", "w").close()
    """
    site = Site(tmp_path, tasks=NEIGHBOUR + dedent(tasks))
    with site.daemon() as daemon:
        until((site.path / "began").exists)
        daemon.signal(signal.SIGSTOP)
        until((site.path / "told").exists)
        began = time.monotonic()
        until(lambda: time.monotonic() > began + 1.5, what="its timeout")
        daemon.signal(signal.SIGCONT)
        assert first_run(site, "tells").outcome == "succeeded"
        assert daemon.terminate() == 0


@pytest.mark.claim("P19")
def test_a_task_that_blocks_term_is_killed_after_its_grace(tmp_path):
    tasks = """
    import signal

    @linod.task(every=2, timeout=0.4, grace=0.4)
    def ignores():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)

    @linod.task(every=2, timeout=0.4, grace=0.4)
    def blocks():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(60)

    @linod.task(every=2, timeout=0.4, grace=0.4)
    def swallows():
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        for task in "ignores", "blocks", "swallows":
            run = first_run(site, task)
            assert run.outcome == "timed_out"
            assert 0.8 <= run.duration < 2.5
            assert not is_alive(run.pid)


# Descendants


@pytest.mark.claim("P19")
def test_a_timeout_ends_grandchildren_wherever_they_hide(tmp_path):
    tasks = """
    import subprocess

    def note(pid):
        with open("pids", "a") as file:
            file.write(f"{pid}\\n")

    def hide(close):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                note(os.getpid())
                if close:
                    os.closerange(0, 1000)
                time.sleep(60)
            os._exit(0)
        os.wait()

    @linod.task(every=1, timeout=1, grace=0.3)
    @once
    def parent():
        note(subprocess.Popen(["sleep", "60"]).pid)
        note(subprocess.Popen(["sleep", "61"], start_new_session=True, env={}).pid)
        note(subprocess.Popen("trap '' TERM; sleep 62 & wait; wait", shell=True).pid)
        hide(close=False)
        hide(close=True)
        os.system("setsid sh -c 'echo $$ >> pids; exec sleep 63 </dev/null >/dev/null 2>&1' &")
        time.sleep(60)
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        pids = pids_in(site.path / "pids", 6)
        assert first_run(site, "parent").outcome == "timed_out"
        until(lambda: not any(map(is_alive, pids)), timeout=3, what=f"the end of {pids}")


def test_a_child_left_behind_ends_with_its_worker(tmp_path):
    tasks = """
    import subprocess

    @linod.task(every=1)
    def leaves_child():
        print(subprocess.Popen(["sleep", "60"]).pid)
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        first, second, *_ = site.wait_for_runs("leaves_child", 2)
        assert first.outcome == "succeeded"
        assert first.pid != second.pid
        until(lambda: not is_alive(int(first.output)) and not is_alive(first.pid), timeout=3)


def test_a_daemon_that_a_task_starts_on_purpose_lives_on(tmp_path):
    tasks = """
    @linod.task(every=1)
    @once
    def starts_daemon():
        os.system("setsid sh -c 'echo $$ >> pids; exec sleep 20 </dev/null >/dev/null 2>&1' &")
        while not os.path.exists("pids"):
            time.sleep(0.01)
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        run = first_run(site, "starts_daemon")
        [pid] = pids_in(site.path / "pids", 1)
        assert run.outcome == "succeeded"
        site.wait_for_runs("neighbour", len(site.ended("neighbour")) + 3)
        assert is_alive(pid)


def test_a_thread_left_behind_ends_with_its_worker(tmp_path):
    tasks = """
    import threading

    @linod.task(every=1)
    def leaves_thread():
        threading.Thread(target=time.sleep, args=(60,)).start()
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        first, second, *_ = site.wait_for_runs("leaves_thread", 2)
        assert first.outcome == second.outcome == "succeeded"
        assert first.pid != second.pid
        until(lambda: not is_alive(first.pid), timeout=3)


# Resources


def test_a_leak_of_5_mib_a_run_is_bounded_by_new_workers(tmp_path):
    tasks = """
    hoard = []

    @linod.task(every=0.1)
    def leaks():
        hoard.append(b"x" * (5 << 20))
    """
    with neighbourhood(tmp_path, tasks, "LINOD = {'recycle_growth_mib': 20}") as (site, daemon):
        most = 0

        def leaked_enough():
            nonlocal most
            most = max(most, sum(map(private_memory, daemon.workers())))
            return sum(run.outcome == "succeeded" for run in site.ended("leaks")) >= 60  # 300 MiB

        until(leaked_enough, timeout=60)
        assert len({run.pid for run in site.ended("leaks")}) >= 8
        assert most < 120 * MIB


def test_cpu_and_memory_are_those_of_the_run_alone(tmp_path):
    tasks = """
    import subprocess

    @linod.task(every=1)
    def burns():
        end = time.process_time() + 0.5
        while time.process_time() < end:
            pass

    @linod.task(every=1)
    def lets_burn():
        subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.5: pass"])

    @linod.task(every=0.5)
    def grows_once():
        if hasattr(sys, "grown"):  # in this very process, by an earlier run
            print("small")
        else:
            sys.grown = True
            len(b"x" * (100 << 20))
            print("large")
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        assert 0.5 <= first_run(site, "burns").cpu < 0.8
        assert 0.5 <= first_run(site, "lets_burn").cpu < 0.9
        small = until(lambda: [run for run in site.ended("grows_once") if run.output == "small"])
        large = [run for run in site.ended("grows_once") if run.output == "large"]
        assert all(run.peak_memory > 100 * MIB for run in large)
        assert all(run.peak_memory < 70 * MIB and run.cpu < 0.1 for run in small)


def test_a_hundred_megabytes_of_output_leave_their_tail(tmp_path):
    tasks = """
    @linod.task(every=1)
    @once
    def floods():
        line = "x" * 999 + "\\n"
        for _ in range(100):
            sys.stdout.write(line * 1000)
        print("the end")
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        run = first_run(site, "floods")
        assert run.outcome == "succeeded"
        assert run.output_bytes == 100_000_008
        assert run.output.endswith("\nthe end")
        assert len(run.output) < 100_000
        assert memory_of(daemon.pid, "VmHWM") < 40 * MIB
        assert len(daemon.output()) < 5_000_000


def test_a_hundred_megabytes_without_an_end_of_line_leave_their_tail(tmp_path):
    tasks = """
    @linod.task(every=1)
    @once
    def floods():
        for _ in range(100):
            os.write(1, b"x" * 1_000_000)
        os.write(1, b"the end")
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        run = first_run(site, "floods")
        assert run.outcome == "succeeded"
        assert run.output.endswith("xthe end")
        assert memory_of(daemon.pid, "VmHWM") < 40 * MIB


def test_a_task_that_closes_all_descriptors_harms_only_its_own_run(tmp_path):
    tasks = """
    @linod.task(every=1)
    def closes():
        os.closerange(3, 1000)

    @linod.task(every=1)
    def closes_all():
        os.closerange(0, 1000)
        open("/dev/null")
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        for task in "closes", "closes_all":
            first, second, *_ = site.wait_for_runs(task, 2)
            assert first.outcome == second.outcome == "crashed"
            assert first.pid != second.pid


def test_a_task_that_speaks_into_the_workers_socket_harms_only_its_own_run(tmp_path):
    tasks = """
    import socket

    @linod.task(every=1)
    def babbles():
        for fd in range(3, 50):
            try:
                socket.socket(fileno=os.dup(fd)).send(b"rubbish")
            except OSError:
                pass
        time.sleep(5)
    """
    with neighbourhood(tmp_path, tasks) as (site, _daemon):
        assert first_run(site, "babbles").outcome == "crashed"


# Surroundings

MESS = """
import gettext, io, json, locale, logging, logging.config, signal, socket, threading
from django.utils import timezone, translation

log = logging.getLogger("app.quiet")

def surroundings():
    return {
        "directory": os.getcwd(),
        "umask": os.umask(os.umask(0o077)),
        "environment": {k: v for k, v in sorted(os.environ.items()) if not k.startswith("LINOD_")},
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)],
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "zone": timezone.get_current_timezone_name(),
        "system zone": time.strftime("%Z", time.localtime(0)),
        "language": translation.get_language(),
        "logging": [log.isEnabledFor(logging.INFO), log.disabled, log.propagate, len(log.handlers)],
        "socket timeout": socket.getdefaulttimeout(),
        "stdout": sys.stdout is sys.__stdout__,
    }

@linod.task(every=0.5)
def look():
    log.info("can be heard")
    print(json.dumps(surroundings()))

@linod.task(every=0.5)
def mess():
    os.chdir("/")
    os.umask(0)
    os.environ["TZ"] = "Asia/Tokyo"
    os.environ.pop("PATH")
    time.tzset()
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGUSR1:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.setitimer(signal.ITIMER_REAL, 3)
    timezone.activate("Asia/Tokyo")
    translation.activate("fr")
    log.setLevel(logging.CRITICAL)
    log.propagate = False
    logging.disable(logging.CRITICAL)
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True, "root": {"level": "ERROR"}})
    socket.setdefaulttimeout(0.001)
    sys.stdout = io.StringIO()
"""


def test_a_worker_is_put_in_order_for_the_next_run(tmp_path):
    with neighbourhood(tmp_path, MESS, "LINOD = {'max_parallel': 1}") as (site, _daemon):
        site.wait_for_runs("mess", 3)
        site.wait_for_runs("look", len(site.ended("look")) + 2)
        looks, messes = site.ended("look"), site.ended("mess")
        assert {run.outcome for run in messes} == {"succeeded"}
        assert any(look.pid == mess.pid and look.id > mess.id for look in looks for mess in messes)
        [output] = {run.output for run in looks}
        assert output.startswith("INFO app.quiet: can be heard\n")
        assert f'"directory": "{site.path}"' in output
        assert '"zone": "Europe/Brussels"' in output
        assert '"timer": [0.0, 0.0]' in output


def test_a_worker_that_cannot_be_put_in_order_is_replaced(tmp_path):
    tasks = """
    @linod.task(every=0.5)
    def lowers_priority():
        os.nice(5)

    @linod.task(every=0.5)
    def closes_stdout():
        sys.stdout.close()

    @linod.task(every=0.5)
    def redirects_output():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    @linod.task(every=0.5)
    def tells():
        print(os.nice(0))
    """
    with neighbourhood(tmp_path, tasks, "LINOD = {'max_parallel': 1}") as (site, _daemon):
        for task in "lowers_priority", "closes_stdout", "redirects_output":
            runs = site.wait_for_runs(task, 2)
            assert {run.outcome for run in runs} == {"succeeded"}
            assert len({run.pid for run in runs}) == len(runs)
        site.wait_for_runs("tells", len(site.ended("tells")) + 2)
        assert {run.output for run in site.ended("tells")} == {str(os.nice(0))}


def test_a_transaction_left_open_is_rolled_back(tmp_path):
    tasks = """
    from django.db import connection, transaction

    def execute(statement):
        with connection.cursor() as cursor:
            return cursor.execute(statement).fetchall()

    execute("PRAGMA journal_mode = WAL")
    execute("CREATE TABLE IF NOT EXISTS notes (text)")

    @linod.task(every=0.5)
    def forgets_commit():
        transaction.set_autocommit(False)
        execute("INSERT INTO notes VALUES ('forgotten')")

    @linod.task(every=0.5)
    def forgets_block():
        transaction.atomic().__enter__()
        execute("INSERT INTO notes VALUES ('forgotten')")

    @linod.task(every=0.5)
    def writes():
        print(execute("SELECT DISTINCT text FROM notes"), connection.in_atomic_block, connection.get_autocommit())
        execute("INSERT INTO notes VALUES ('kept')")
    """
    with neighbourhood(tmp_path, tasks, "LINOD = {'max_parallel': 1}") as (site, _daemon):
        site.wait_for_runs("forgets_commit", 2)
        site.wait_for_runs("forgets_block", 2)
        runs = site.wait_for_runs("writes", len(site.ended("writes")) + 1)
        assert {run.outcome for run in site.ended()} == {"succeeded"}
        assert runs[-1].output == "[('kept',)] False True"


# Workers


def test_a_worker_that_is_killed_from_outside_is_replaced(tmp_path):
    tasks = """
    @linod.task(every=0.5)
    def naps():
        time.sleep(0.3)
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        for _ in range(3):
            [pid] = until(lambda: [pid for pid in daemon.workers() if name_of(pid) == "naps"])
            os.kill(pid, signal.SIGKILL)
            [run] = until(
                lambda pid=pid: [run for run in site.ended("naps") if run.pid == pid and run.outcome == "crashed"]
            )
            assert run.reason == "its process was killed (SIGKILL), by somebody or because memory was short"
        idle = until(lambda: [pid for pid in daemon.workers() if name_of(pid) == "linod-worker"])
        os.kill(idle[0], signal.SIGKILL)
        number = sum(run.outcome == "succeeded" for run in site.ended("naps"))
        until(lambda: sum(run.outcome == "succeeded" for run in site.ended("naps")) > number + 1)


def test_a_worker_that_was_stopped_from_outside_is_timed_out(tmp_path):
    tasks = """
    @linod.task(every=1, timeout=1, grace=0.2)
    def naps():
        time.sleep(0.3)
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        [pid] = until(lambda: [pid for pid in daemon.workers() if name_of(pid) == "naps"])
        os.kill(pid, signal.SIGSTOP)
        [run] = until(lambda: [run for run in site.ended("naps") if run.outcome == "timed_out"])
        assert run.pid == pid
        until(lambda: not is_alive(pid))
