"""No message is lost, whatever dies: the daemon, its fork server, its workers, thirty times and at any moment."""

import json
import os
import re
import signal
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from random import Random, SystemRandom

import pytest

from linod.instants import from_micros
from linod.runs import Outcome, Trigger
from linod.task import Task
from tests.support.noi1e import ServedSite
from tests.support.site import marked, name_of, until
from tests.support.smtp import Server

MESSAGES = 200
KILLS = 30
UNTIL_LOADED = 90.0  # seconds; a fork server that is killed while it loads is tried again after 60 at most
TASK = "send_pending_emails_often"
PENDING = "Message.objects.filter(sent=None, user__mail_mode='often').exclude(user__email='')"


class Supervisor:
    """Starts the daemon again whenever it was killed, as a service manager does."""

    def __init__(self, site, random):
        self.site, self.random = site, random
        self.killed = Counter()
        self.daemon = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self.daemon.__exit__(*exception)

    def start(self):
        self.daemon = self.site.daemon()

    def kill_something(self):
        """Kill the daemon, its fork server, or one of its workers."""
        kind = self.random.choice(["daemon", "fork server", "worker"])
        victims = self.daemon.wait_for(lambda: self.victims(kind), UNTIL_LOADED)
        os.kill(self.random.choice(victims), signal.SIGKILL)
        self.killed[kind] += 1
        if kind == "daemon":
            self.daemon.wait()
            self.start()

    def victims(self, kind):
        if kind == "daemon":
            return [self.daemon.pid]
        if kind == "fork server":
            return list(filter(None, [self.daemon.fork_server()]))
        workers = self.daemon.workers()
        sending = [pid for pid in workers if name_of(pid) != "linod-worker"]
        return sending or workers


@pytest.mark.slow
@pytest.mark.claim("P1")
def test_no_message_is_lost_when_daemon_fork_server_and_workers_are_killed(tmp_path):
    seed = os.environ.get("SEED") or str(SystemRandom().randrange(10**6))
    print(f"SEED={seed}")
    random = Random(seed)
    site = ServedSite(tmp_path / "noi1e", often=2)
    site.data.set_up()
    site.data.ask(f"{PENDING}.update(sent=timezone.now())")
    site.data.manage("post_messages", str(MESSAGES))
    assert site.data.ask(f"{PENDING}.count()") == MESSAGES

    # It waits between storing a mail and saying so: who is killed then cannot know that it was taken.
    with Server(tmp_path / "mails", "--busy", "0.2", "--seed", seed, "--delay", "0.25") as mail_server:
        site.use_mail_server(mail_server.port)
        with Supervisor(site, random) as supervisor:
            for _ in range(KILLS):
                time.sleep(random.uniform(0, 2))
                supervisor.kill_something()
            pending_at_last_kill = site.data.ask(f"{PENDING}.count()")
            until(lambda: site.data.ask(f"{PENDING}.count()") == 0, timeout=120, what="the last message's mail")
            site.wait_for_runs(TASK, len(site.ended(TASK)) + 1)
            stopped = datetime.now(UTC)
            assert supervisor.daemon.terminate() == 0
        mails = mail_server.mails
    print(f"killed: {dict(supervisor.killed)}; {pending_at_last_kill} messages were pending at the last kill")

    arrivals = arrivals_of(mails)
    assert sorted(arrivals) == list(range(1, MESSAGES + 1)), "each message has arrived"
    assert all(len(set(ids)) == 1 for ids in arrivals.values()), "a message that came again came in the same mail"

    runs = site.runs()
    broken = [run for run in runs if run.task.endswith(TASK) and run.outcome in (Outcome.CRASHED, Outcome.LOST)]
    twice = sum(count - 1 for count in Counter(mail["Message-ID"] for mail in mails).values())
    print(f"{len(mails)} mails, {twice} of them again; {len(broken)} runs were broken off")
    assert twice <= len(broken)
    assert len(broken) <= supervisor.killed["daemon"] + supervisor.killed["worker"]

    every_run_has_an_end(runs)
    lost_runs_were_run_again_once(runs)
    every_due_time_is_accounted_for(site, runs, stopped)
    until(lambda: not marked(f"NOI1E_VAR={site.data.var}"), what="the end of all processes")


def arrivals_of(mails):
    """The Message-IDs of the mails in which each message came, by its number."""
    arrivals = defaultdict(list)
    for mail in mails:
        text = mail.get_body(("plain",)).get_content()
        for number in re.findall(r"^\* News (\d+)\s*$", text, re.MULTILINE):
            arrivals[int(number)].append(mail["Message-ID"])
    return arrivals


def every_run_has_an_end(runs):
    assert [run for run in runs if run.outcome is None] == []
    assert all(run.ended or run.outcome is Outcome.LOST for run in runs)


def lost_runs_were_run_again_once(runs):
    by_attempt = {(run.task, run.due, run.lap, run.attempt): run for run in runs}
    for run in runs:
        again = by_attempt.get((run.task, run.due, run.lap, run.attempt + 1))
        if run.outcome is Outcome.LOST and run.trigger is not Trigger.RERUN:
            assert again is not None and again.trigger is Trigger.RERUN and again.attempt == 2, run
        else:
            assert again is None, run


def every_due_time_is_accounted_for(site, runs, stopped):
    """Each due time since the task was first seen was run once, or is in a skip that says why."""
    with site.history() as archive:
        tasks = archive.tasks()
    for task in tasks:
        seen_to = [run for run in runs if run.task == task["id"] and run.attempt == 1]
        schedule = Task.from_dict(json.loads(task["task"])).schedule
        since = from_micros(task["since"])
        last = max((run.due for run in seen_to), default=since)
        assert sum(run.dues for run in seen_to) == schedule.count(since, last), task
        assert schedule.count(last, stopped) == 0, task
