"""Any fate of a site: whatever befalls its clock, its daemon, its disk and its tasks, each due time is accounted for.

Thousands of stories are tried in simulated time where a storm tries one; what is wrong with one is found by the storm's
own model and judge.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import time
from itertools import cycle
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from linod.conf import Settings
from linod.daemon.pauses import SITE, make_pause
from linod.runs import Outcome
from linod.schedules import Interval, WallClock
from linod.schedules.base import Schedule
from linod.task import Policies, Task
from tests.support.harms import Harm, damage, delete, delete_with_starts, move_away, replace_by_text
from tests.support.simulation import Asker, Body, SimulatedSite, simulated_time
from tests.support.soundness import what_is_wrong


@st.composite
def all_policies(draw: st.DrawFn) -> Policies:
    return Policies(
        timeout=draw(st.sampled_from([1.0, 30.0, 3600.0])),
        grace=draw(st.sampled_from([0.2, 5.0])),
        overlap=draw(st.sampled_from(["skip", "queue", "allow", "replace"])),
        catch_up=draw(st.sampled_from(["once", "none", "all"])),
        retries=draw(st.integers(0, 2)),
        retry_delay=draw(st.sampled_from([0.2, 3.0, 40.0])),
        lock=draw(st.sampled_from([None, "printer"])),
        rerun_lost=draw(st.booleans()),
    )


bodies = st.builds(
    Body,
    seconds=st.sampled_from([0.1, 2.0, 20.0, 100.0]),
    outcomes=st.lists(st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CRASHED]), min_size=1).map(tuple),
)
settings = st.builds(
    Settings,
    max_parallel=st.integers(1, 4),
    slow_after=st.sampled_from([0.05, 5.0, 1000.0]),
    max_running=st.integers(2, 4),
    pause_after=st.sampled_from([0, 0, 1, 3]),
)
labels = st.sampled_from(["a", "b", "c"])
spans = st.sampled_from([0.5, 3.0, 11.0, 50.0, 700.0, 4000.0])
intervals = st.sampled_from([1.5, 7.0, 45.0, 61.0, 600.0, 3600.0])
minutes = st.integers(0, 59)


class FateMachine(RuleBasedStateMachine):
    """A site to which anything happens."""

    @initialize(policies=st.tuples(*[all_policies()] * 3), does=st.tuples(*[bodies] * 3), settings=settings)
    def begin(self, policies: tuple[Policies, ...], does: tuple[Body, ...], settings: Settings) -> None:
        self.around = ExitStack()
        directory = Path(self.around.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        self.site = SimulatedSite(directory / "state")
        self.around.enter_context(simulated_time(self.site))
        self.policies = dict(zip(("a", "b", "c"), policies, strict=True))
        self.site.bodies = dict(zip(self.policies, does, strict=True))
        self.site.outcomes = {label: cycle(body.outcomes) for label, body in self.site.bodies.items()}
        self.site.settings = settings
        self.versions, self.lost = 0, False
        self.site.start()

    def teardown(self) -> None:
        if not hasattr(self, "site"):
            return
        try:
            self.site.disk_waits = False
            self.site.turn()
            assert self.site.broken(self.policies) == []
        finally:
            self.around.close()

    @invariant()
    def is_sound(self) -> None:
        assert list(what_is_wrong(self.site)) == []

    def adopt(self) -> None:
        self.site.plan.adopt(list(self.site.tasks.values()), None)
        self.site.settle()

    def schedule(self, label: str, schedule: Schedule, *, enabled: bool = True) -> None:
        policies = replace(self.policies[label], enabled=enabled)
        self.site.tasks[label] = Task(id=label, label=label, text="", schedule=schedule, policies=policies)

    # The site's code

    @rule(label=labels, seconds=intervals)
    def declare_interval(self, label: str, seconds: float) -> None:
        self.versions += 1  # no two have a due time in common
        self.schedule(label, Interval(seconds, phase=self.versions / 1000))
        self.adopt()

    @rule(label=labels, times=st.sets(minutes, min_size=1, max_size=3), second=st.integers(0, 59))
    def declare_times(self, label: str, times: set[int], second: int) -> None:
        self.versions += 1
        at = tuple(time(hour, minute, second, self.versions) for hour in (11, 12, 13) for minute in sorted(times))
        self.schedule(label, WallClock(at, zone="UTC"))
        self.adopt()

    @precondition(lambda self: self.site.tasks)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        del self.site.tasks[data.draw(st.sampled_from(sorted(self.site.tasks)))]
        self.adopt()

    @precondition(lambda self: self.site.tasks)
    @rule(data=st.data())
    def disable_or_enable(self, data: st.DataObject) -> None:
        task = self.site.tasks[data.draw(st.sampled_from(sorted(self.site.tasks)))]
        self.schedule(task.id, task.schedule, enabled=not task.policies.enabled)
        self.adopt()

    def rename(self, old: str) -> None:
        self.versions += 1
        task, new = self.site.tasks.pop(old), f"{old[0]}{self.versions}"
        self.policies[new] = replace(self.policies.pop(old), renamed_from=old)
        self.site.bodies[new], self.site.outcomes[new] = self.site.bodies[old], self.site.outcomes[old]
        self.policies[old] = replace(self.policies[new], renamed_from=None)  # another one may have it again
        self.schedule(new, task.schedule, enabled=task.policies.enabled)
        self.site.rename(old, new)

    @precondition(lambda self: self.site.tasks)
    @rule(data=st.data())
    def rename_while_it_runs(self, data: st.DataObject) -> None:
        self.rename(data.draw(st.sampled_from(sorted(self.site.tasks))))
        self.adopt()

    @precondition(lambda self: self.site.tasks)
    @rule(data=st.data(), down=spans)
    def rename_while_it_is_down(self, data: st.DataObject, down: float) -> None:
        self.site.kill()
        self.rename(data.draw(st.sampled_from(sorted(self.site.tasks))))
        self.site.sleep(down)
        self.site.start()

    # People

    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from([SITE, *sorted(self.site.tasks)]))
        pause = make_pause(self.site.plan.pauses.get(id), task=id, reason="", by="root", now=self.site.now)
        self.site.running.pause(pause)
        self.site.settle()

    @precondition(lambda self: self.site.plan.pauses)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        self.site.plan.unpause(data.draw(st.sampled_from(sorted(self.site.plan.pauses))))
        self.site.settle()

    @precondition(lambda self: self.site.tasks)
    @rule(data=st.data())
    def run_now(self, data: st.DataObject) -> None:
        entry = self.site.plan.entries[data.draw(st.sampled_from(sorted(self.site.tasks)))]
        self.site.running.run_now(entry, Asker())  # type: ignore[arg-type]
        self.site.turn()

    @precondition(lambda self: self.site.tasks)
    @rule(data=st.data(), leaves=st.booleans())
    def visit(self, data: st.DataObject, leaves: bool) -> None:
        self.site.visit(data.draw(st.sampled_from(sorted(self.site.tasks))), leaves=leaves)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        not_begun = {live.run.id: live for live in self.site.plan.not_begun(set(self.site.plan.entries.values()))}
        if runs := sorted([*not_begun, *self.site.running.live]):
            run = data.draw(st.sampled_from(runs))
            if run in not_begun:
                self.site.running.cancel(not_begun[run], "cancelled by root")
            else:
                self.site.running.end(self.site.running.live[run], Outcome.CANCELLED, "cancelled by root")
            self.site.turn()

    # Time

    @rule(seconds=st.sampled_from([0.2, 1.0, 6.0, 30.0, 90.0]))
    def live_for(self, seconds: float) -> None:
        self.site.live_for(seconds)

    @rule(seconds=spans)
    def oversleep(self, seconds: float) -> None:
        self.site.sleep(seconds)
        self.site.turn()

    @rule(seconds=spans | spans.map(lambda seconds: -seconds))
    def set_clock(self, seconds: float) -> None:
        if abs(seconds) >= 1 and not (self.lost and seconds < 0):
            self.site.set_clock(seconds)

    # The daemon and its disk

    @rule(waits=st.booleans())
    def the_disk(self, waits: bool) -> None:
        self.site.disk_waits = waits
        self.site.turn()

    @rule(down=st.sampled_from([0.0, 2.0]) | spans)
    def kill(self, down: float) -> None:
        self.site.kill()
        self.site.sleep(down)
        self.site.start()

    @rule(down=spans)
    def restart_host(self, down: float) -> None:
        """Without warning; what the disk was told is there."""
        self.site.kill()
        self.site.boot += "+"
        self.site.sleep(down)
        self.site.start()

    @rule(down=st.sampled_from([0.0, 2.0]) | spans)
    def restart(self, down: float) -> None:
        self.site.disk_waits = False
        self.site.turn()
        self.site.drain()
        self.site.sleep(down)
        self.site.start()

    @rule(down=st.sampled_from([2.0, 700.0]))
    def pass_once(self, down: float) -> None:
        """Without a daemon that stays, a timer starts one for a moment."""
        self.site.kill()
        self.site.sleep(down)
        self.site.run_once()
        self.site.sleep(down)
        self.site.start()

    # Its history

    @rule(harm=st.sampled_from([delete, delete_with_starts, move_away, replace_by_text, damage]))
    def harm_history(self, harm: Harm) -> None:
        self.site.harm(harm)

    # Then starts alone are known, and those by a clock that was ahead keep a task from being caught up.
    @precondition(lambda self: not self.site.was_ahead())
    @rule(harm=st.sampled_from([delete, damage]), killed=st.booleans(), down=st.sampled_from([0.0, 2.0]) | spans)
    def lose_history(self, harm: Harm, killed: bool, down: float) -> None:
        self.lost = True
        self.site.lose(self.site.kill if killed else self.site.drain, harm)
        self.site.sleep(down)
        self.site.start()


TestFate = FateMachine.TestCase
