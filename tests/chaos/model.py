"""Which due times a daemon must account for, and how often: pure, from what was asked of it and when.

A due time is accounted for by a run, or by a record that says why there was none. Most must be accounted for exactly
once. Where somebody pauses a task, changes its schedule or sets the clock back, what is claimed at that moment may be
given up, and the daemon does that at an instant that is known only by and large: near it, once or not at all is right.

All instants are those of the world's own clock.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from linod.schedules.base import Schedule

# A claim is made this long before its due time, and may be cancelled, and thereby be accounted for, so early.
CLAIM_WITHIN = timedelta(seconds=12)
SLACK = timedelta(seconds=5)  # by which a busy machine is late
PATIENCE = timedelta(seconds=10)  # that a run may wait for a worker
LONG_PATIENCE = timedelta(seconds=90)  # and that it may wait for another run to end


@dataclass(frozen=True)
class Wanted:
    """A task that shall run by itself."""

    schedule: Schedule
    waits: bool  # its runs may wait for others

    @property
    def patience(self):
        return LONG_PATIENCE if self.waits else PATIENCE


@dataclass
class Stretch:
    """A time in which the daemon wants one task: what is due between `must` is accounted for, between `may` it can be.

    In each stretch a due time is accounted for once at most. It has no end as long as it goes on.
    """

    wanted: Wanted
    may_from: datetime
    must_from: datetime
    must_to: datetime | None = None
    may_to: datetime | None = None


class Model:
    """What is wanted of a daemon, as time goes by."""

    def __init__(self):
        self.stretches = defaultdict(list)  # of each task, the last one last
        self.wanted = {}
        self._highest = None  # until when due times may have been accounted for before the clock was set back
        self._leaps = []  # when the clock was set forward since, and what it showed then

    def observe(self, wanted, *, since, now):
        """The tasks that shall run by themselves are these, or have become so between these instants."""
        for task in self.wanted.keys() | wanted.keys():
            before, after = self.wanted.get(task), wanted.get(task)
            if before and (after is None or after.schedule != before.schedule):
                self._end(task, since=since, now=now)
            if after and (before is None or after.schedule != before.schedule):
                self._begin(task, after, since=since, now=now)
            elif after:
                self.stretches[task][-1].wanted = after
        self.wanted = dict(wanted)

    def clock_was_set(self, *, before, after):
        """A clock set forward makes due what it has jumped over. Set back, it makes intervals due again."""
        if after >= before:
            self._leaps.append((before, after))
            return
        self._highest = max(self._highest or before, before + CLAIM_WITHIN)
        for task in self.wanted:
            self._end(task, since=before, now=before)
        self._leaps.clear()
        for task, wanted in self.wanted.items():
            self._begin(task, wanted, since=after, now=after)

    def daemon_ended(self, now):
        """Its successor does not know what happened after the clock was set back."""
        if self.is_set_back(now):
            for task, wanted in self.wanted.items():
                self._end(task, since=now, now=now)
                self._begin(task, wanted, since=now, now=now)
                self.stretches[task][-1].must_from = self._highest

    def is_set_back(self, now):
        """Whether the clock has shown this time before."""
        return self._highest is not None and now < self._highest

    def bounds(self, task, *, since, now):
        """How often each due time is accounted for after a drain between these instants.

        By schedule and due time: at least and at most so many times.
        """
        bounds = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        for stretch in self.stretches[task]:
            schedule = stretch.wanted.schedule
            must_to = stretch.must_to or self._elapsed(stretch.wanted.patience, until=since)
            may_to = stretch.may_to or now + CLAIM_WITHIN
            due = schedule.next(stretch.may_from)
            while due is not None and due <= may_to:
                limits = bounds[schedule][due]
                limits[0] += stretch.must_from < due <= must_to
                limits[1] += 1
                due = schedule.next(due)
        return bounds

    def _end(self, task, *, since, now):
        """Between these instants the daemon has let go of a task, and of those of its runs that have not begun."""
        stretch = self.stretches[task][-1]
        stretch.must_to = self._elapsed(stretch.wanted.patience, until=since)
        stretch.may_to = now + CLAIM_WITHIN

    def _elapsed(self, span, *, until):
        """The instant that was so long ago: what the clock was set forward by has not passed."""
        for before, after in reversed(self._leaps):
            if until - after >= span:
                break
            span, until = span - (until - after), before
        return until - span

    def _begin(self, task, wanted, *, since, now):
        must_from = now
        if self.is_set_back(now):
            # A time on the wall that has come already is not run again; nor are intervals that were claimed.
            must_from = self._highest if wanted.schedule.follows_the_wall else now + CLAIM_WITHIN + SLACK
        self.stretches[task].append(Stretch(wanted, may_from=since, must_from=must_from))
