"""Which due times a daemon must account for, and how often: pure, from what was asked of it and when.

A due time is accounted for by a run, or by a record that says why there was none. Most must be accounted for exactly
once. Where somebody pauses a task, changes its schedule or sets the clock back, what is claimed at that moment may be
given up, and the daemon does that at an instant that is known only by and large: near it, once or not at all is right.

All instants are those of the world's own clock.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

from linod.schedules.base import Schedule

# A claim is made this long before its due time, and may be cancelled, and thereby be accounted for, so early.
CLAIM_WITHIN = timedelta(seconds=12)
SLACK = timedelta(seconds=5)  # by which a busy machine is late
PATIENCE = timedelta(seconds=90)  # that a run may wait for others to end


@dataclass
class Stretch:
    """A time in which the daemon wants one task: what is due between `must` is accounted for, between `may` it can be.

    In each stretch a due time is accounted for once at most. It has no end as long as it goes on.
    """

    schedule: Schedule
    may_from: datetime
    must_from: datetime
    must_to: datetime | None = None
    may_to: datetime | None = None


class Model:
    """What is wanted of a daemon, as time goes by."""

    def __init__(self):
        self.stretches = defaultdict(list)  # of each task, the last one last
        self.wanted = {}
        # Of each task, where the clock was set back: what it showed at most, and the last due time surely seen to.
        self._highest, self._accounted = {}, {}
        self._leaps = []  # when the clock was set forward since, and what it showed then
        self._spans = defaultdict(list)  # when each task was wanted, by the monotonic clock

    def observe(self, wanted, *, since, now, monotonic, accounted=None, restarted=False):
        """The schedules of the tasks that shall run by themselves are these, or have become so between these instants.

        `monotonic`: now, by that clock. `accounted`: the latest due time of each that is accounted for; one that was
        paused remembers it, a new one has none. `restarted`: a daemon was started then, and does not know what waited
        of a task that is gone.
        """
        for task in self.wanted.keys() | wanted.keys():
            before, after = self.wanted.get(task), wanted.get(task)
            if before == after:
                continue
            if before:
                self._end(task, since=since, now=now, slack=PATIENCE if restarted and not after else SLACK)
                self._spans[task][-1][1] = monotonic
            if after:
                self._highest.pop(task, None)
                self._accounted.pop(task, None)
                if not before and accounted and (latest := accounted[task]) and latest > now:
                    self._highest[task] = self._accounted[task] = latest
                must_from = self._surely_after(task, after, now)
                self.stretches[task].append(Stretch(after, may_from=since, must_from=must_from))
                self._spans[task].append([monotonic, inf])
        self.wanted = dict(wanted)

    def renamed(self, old, new, monotonic):
        """A task has another name now; what is to be repeated may be let go with the old one."""
        for known in (self.stretches, self.wanted, self._highest, self._accounted, self._spans):
            if old in known:
                known[new] = known.pop(old)
        if new in self.wanted:
            self._spans[new][-1][1] = monotonic
            self._spans[new].append([monotonic, inf])

    def clock_was_set(self, *, before, after):
        """A clock set forward makes due what it has jumped over. Set back, it makes intervals due again."""
        if after >= before:
            self._leaps.append((before, after))
            return
        for task, schedule in self.wanted.items():
            stretch, last = self.stretches[task][-1], schedule.previous(before)
            self._end(task, since=before, now=before, slack=SLACK)
            if last and stretch.must_from < last <= stretch.must_to:
                self._accounted[task] = max(last, self._accounted.get(task, last))
            self._highest[task] = max(before, self._highest.get(task, before))
            self._go_on(task, schedule, after, must_from=self._surely_after(task, schedule, after))
        self._leaps.clear()

    def daemon_ended(self, now):
        """Its successor does not know which due times came after the clock was set back."""
        for task, schedule in self.wanted.items():
            if self.is_set_back(task, now) and not schedule.follows_the_wall:
                self._end(task, since=now, now=now, slack=SLACK)
                self.stretches[task].append(
                    Stretch(schedule, may_from=now, must_from=self._highest[task] + CLAIM_WITHIN)
                )

    def is_set_back(self, task, now):
        """Whether due times of a task may be accounted for that are later than this."""
        return task in self._highest and now < self._highest[task] + CLAIM_WITHIN

    def wants(self, task, since, span):
        """Whether a task is wanted from an instant of the monotonic clock on, for so many seconds."""
        return any(began <= since and since + span < ended for began, ended in self._spans[task])

    def bounds(self, task, *, since, now):
        """How often each due time is accounted for after a drain between these instants.

        By schedule and due time: at least and at most so many times.
        """
        bounds = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        for stretch in self.stretches[task]:
            schedule = stretch.schedule
            must_to = stretch.must_to or self._elapsed(SLACK, until=since)
            may_to = stretch.may_to or now + CLAIM_WITHIN
            due = schedule.next(stretch.may_from)
            while due is not None and due <= may_to:
                limits = bounds[schedule][due]
                limits[0] += stretch.must_from < due <= must_to
                limits[1] += 1
                due = schedule.next(due)
        return bounds

    def _go_on(self, task, schedule, now, *, must_from):
        """A task is still wanted, now that the clock was set back."""
        # A time on the wall that has come already does not come again.
        may_from = max(now, self._accounted.get(task, now)) if schedule.follows_the_wall else now
        self.stretches[task].append(Stretch(schedule, may_from=may_from, must_from=must_from))

    def _end(self, task, *, since, now, slack):
        """Between these instants the daemon has let go of a task."""
        stretch = self.stretches[task][-1]
        stretch.must_to = self._elapsed(slack, until=since)
        stretch.may_to = now + CLAIM_WITHIN

    def _elapsed(self, span, *, until):
        """The instant that was so long ago: what the clock was set forward by has not passed."""
        for before, after in reversed(self._leaps):
            if until - after >= span:
                break
            span, until = span - (until - after), before
        return until - span

    def _surely_after(self, task, schedule, now):
        """From when on the due times of a task count, whatever was accounted for before the clock was set back."""
        if not self.is_set_back(task, now):
            return now
        return (self._highest[task] if schedule.follows_the_wall else now + SLACK) + CLAIM_WITHIN
