"""What happens to the site's fork server, or to a site that is hard to fork, stops neither the daemon nor its tasks."""

import os
import signal
from datetime import UTC, datetime

import pytest

from linod.caller import ask
from linod.wire import Done, Reload
from tests.support.site import NEIGHBOUR, Site, is_alive, name_of, neighbourhood, until

BROKEN = """
with open("tries", "a") as tries:
    print("once more", file=tries)
import no_such_module
"""


def test_a_fork_server_that_is_killed_is_replaced(tmp_path):
    with neighbourhood(tmp_path, "") as (_site, daemon):
        before = daemon.fork_server()
        os.kill(before, signal.SIGKILL)
        daemon.wait_for("The site's fork server is gone: its process was killed (SIGKILL)")
        until(lambda: daemon.fork_server() not in (None, before))


def test_a_fork_server_that_dies_again_and_again_is_replaced_after_longer_and_longer_pauses(tmp_path):
    tasks = """
    import threading
    if os.path.exists("broken"):
        threading.Timer(0.2, os._exit, [9]).start()
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        site.write("broken")
        os.kill(daemon.fork_server(), signal.SIGKILL)
        daemon.wait_for("its process left with exit status 9. It is started again in 1 s.")
        daemon.wait_for("its process left with exit status 9. It is started again in 2 s.")
        (site.path / "broken").unlink()


def test_a_stop_does_not_wait_for_a_site_that_loads(tmp_path):
    site = Site(tmp_path, tasks=f"{NEIGHBOUR}\nif os.path.exists('slow'): open('slow', 'w').write('!'); time.sleep(60)")
    with site.daemon() as daemon:
        site.wait_for_runs("neighbour")
        slow = site.write("slow")
        daemon.signal(signal.SIGHUP)
        until(slow.read_text)
        assert daemon.terminate(timeout=4) == 0
        assert "cannot be loaded" not in daemon.output()


def test_a_fork_server_that_hangs_is_replaced(tmp_path):
    tasks = """
    @linod.task(every=0.5, fresh=True)
    def needs_forks():
        pass
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        before = daemon.fork_server()
        os.kill(before, signal.SIGSTOP)
        daemon.wait_for("fork server is gone", timeout=30)
        number = len([run for run in site.ended("needs_forks") if run.outcome == "succeeded"])
        until(lambda: daemon.fork_server() not in (None, before))
        until(lambda: sum(run.outcome == "succeeded" for run in site.ended("needs_forks")) > number)
        assert not is_alive(before)


def test_a_reload_does_not_wait_for_the_workers_of_a_fork_server_that_hangs(tmp_path):
    tasks = """
    import linod
    @linod.task(every=0.5, fresh=True)
    def needs_forks():
        pass
    """
    site = Site(tmp_path, tasks=tasks, settings="LINOD = {'max_parallel': 1}")
    with site.daemon() as daemon:
        site.wait_for_runs("needs_forks")
        os.kill(daemon.fork_server(), signal.SIGSTOP)
        until(lambda: [run for run in unfinished(site) if not run.started and run.due < datetime.now(UTC)])
        assert ask(site.path, Reload(), None) == Done(text="The site is loaded anew.")
        site.wait_for_runs("needs_forks", len(site.ended("needs_forks")) + 1, timeout=3)
        assert daemon.terminate() == 0


def test_existing_workers_go_on_while_the_code_is_broken(tmp_path):
    with neighbourhood(tmp_path, "") as (site, daemon):
        whole = (site.path / "app/tasks.py").read_text()
        site.declare(BROKEN)
        os.kill(daemon.fork_server(), signal.SIGKILL)
        daemon.wait_for("The site cannot be loaded: ModuleNotFoundError")
        until(lambda: (site.path / "tries").read_text().count("once more") >= 3)
        site.wait_for_runs("neighbour", len(site.ended("neighbour")) + 1)
        site.declare(whole)
        daemon.wait_for("The site is loaded again.")
        assert "app/tasks.py:4" in daemon.output()
        assert daemon.output().count("cannot be loaded") == 1  # said once, not with each try


def test_a_site_that_cannot_be_loaded_at_first_is_refused_in_words(tmp_path):
    site = Site(tmp_path, tasks="import no_such_module\n")
    result = site.manage("linod")
    assert result.returncode != 0
    assert "no_such_module" in result.stderr


@pytest.mark.parametrize("news", ["settings['new'] = 1", "version += 1"], ids=["setting", "version"])
def test_a_site_whose_linod_says_what_the_daemon_does_not_know_is_refused_in_words(tmp_path, news):
    tasks = f"""
    from linod.site import forkserver
    original = forkserver.Loaded

    def newer(**fields):
        message = original(**fields)
        message.{news}
        return message

    if os.path.exists("newer"):
        forkserver.Loaded = newer
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        site.write("newer")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the old one goes on: The site's linod is not understood by the daemon's (")
    newcomer = site.manage("linod")
    assert newcomer.returncode == 78
    assert "Give the site the daemon's: pip install -U linod==" in newcomer.stdout + newcomer.stderr


def test_a_second_fork_server_takes_over_on_sighup(tmp_path):
    tasks = """
    @linod.task(every=0.5)
    def tells():
        print("old")
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        site.wait_for_runs("tells")
        before = daemon.fork_server()
        source = (site.path / "app/tasks.py").read_text()
        site.declare(BROKEN)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("The site's new code cannot be loaded, the old one goes on: ModuleNotFoundError")
        assert daemon.fork_server() == before
        site.declare(source.replace("old", "new") + "\n@linod.task(every=60)\ndef another(): pass\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("new: another")
        daemon.wait_for("tells: new")
        until(lambda: not is_alive(before), timeout=5)
        assert daemon.fork_server() != before


def test_a_running_task_ends_in_peace_after_a_reload(tmp_path):
    tasks = """
    @linod.task(every=1)
    @once
    def long():
        print("began")
        time.sleep(2)
        print("ended")
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        daemon.wait_for("long: began")
        daemon.signal(signal.SIGHUP)
        [run] = until(lambda: [run for run in site.ended("long") if run.output])
        assert (run.outcome, run.output) == ("succeeded", "began\nended")
        until(lambda: not is_alive(run.pid), timeout=5)


# Sites that are hard to fork


def test_threads_of_a_site_are_named_once(tmp_path):
    tasks = """
    import threading

    threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        site.wait_for_runs("neighbour", 3)
        assert daemon.output().count("starts threads while loading (poller)") == 1


def test_a_site_that_meddles_with_its_process_is_run_all_the_same(tmp_path):
    tasks = """
    import atexit, signal

    print("hello from the import")
    os.chdir("/")
    os.close(0)
    sys.stdout = sys.stderr
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        signal.signal(number, lambda *args: print("mine"))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
    atexit.register(print, "goodbye from the import")

    @linod.task(every=1, timeout=0.3)
    def hangs():
        print(os.system("exit 3"))
        time.sleep(60)

    @linod.task(every=0.5)
    def tells():
        print(os.getcwd())
    """
    with neighbourhood(tmp_path, tasks) as (site, daemon):
        assert site.wait_for_runs("tells")[0].outcome == "succeeded"
        run = site.wait_for_runs("hangs")[0]
        assert (run.outcome, run.output) == ("timed_out", "768")
        daemon.wait_for("hello from the import")
        before = daemon.fork_server()
        os.kill(before, signal.SIGKILL)
        until(lambda: daemon.fork_server() not in (None, before))
    assert "goodbye" not in daemon.output() and "mine" not in daemon.output()


def test_a_site_with_a_console_log_and_workers_of_its_own_works_without_forking(tmp_path):
    tasks = """
    @linod.task(every=0.5)
    def tells():
        print("heard")

    @linod.task(every=1, timeout=0.3, grace=0.3)
    def hangs():
        os.system("exec sleep 60")
    """
    with neighbourhood(tmp_path, tasks, "LINOD = {'fork_server': False}") as (site, daemon):
        assert site.wait_for_runs("tells", 2)[0].output == "heard"
        until(lambda: any(run.outcome == "timed_out" for run in site.ended("hangs")))
        idle = until(lambda: [pid for pid in daemon.workers() if name_of(pid) == "linod-worker"])
        os.kill(idle[0], signal.SIGKILL)
        site.wait_for_runs("tells", len(site.ended("tells")) + 2)


def test_workers_bear_the_name_of_their_task(tmp_path):
    tasks = """
    @linod.task(every=1)
    def naps():
        time.sleep(0.5)
    """
    with neighbourhood(tmp_path, tasks) as (_site, daemon):
        assert name_of(daemon.pid) == "linod"
        until(lambda: "naps" in map(name_of, daemon.workers()))
        until(lambda: "linod-worker" in map(name_of, daemon.workers()))


def test_ten_thousand_tasks_start_and_run(tmp_path):
    tasks = (
        NEIGHBOUR
        + """
def quiet():
    pass

for number in range(10_000):
    linod.task(every=100 + number % 100, name=f"quiet {number}")(quiet)
"""
    )
    site = Site(tmp_path, tasks=tasks)
    with site.daemon() as daemon:
        daemon.wait_for("10001 tasks", timeout=60)
        until(lambda: sum(run.outcome == "succeeded" for run in site.ended()) > 100)
        assert {run.outcome for run in site.ended()} == {"succeeded"}
        assert daemon.terminate() == 0


def unfinished(site):
    with site.history() as archive:
        return archive.unfinished()
