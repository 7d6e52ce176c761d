"""The one process of the site that tells people and other programs: born when there is something to tell.

What it is given are errands. It does one after the other and says how each went; one that takes too long ends with the
process. So a slow server costs patience here, and no run ever waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..wire import Call, Hello, Message, Tell, Told
from .clock import Timer, Timers
from .reporter import Reporter
from .workers import Worker, Workers

CALL_WITHIN = 12.0  # seconds; the sender itself gives up after ten
TELL_WITHIN = 60.0
PAUSE = 5.0  # seconds until a sender is asked for again, where there was none to have
MOST_CALLS = 500  # that wait
FAREWELL = 5.0  # seconds that errands get at the end of a drain,
ONCE_FAREWELL = 60.0  # and at the end of a single pass, for which nobody waits

Done = Callable[[str], None]  # told the problem, nothing where there is none


@dataclass(kw_only=True)
class Errand:
    """Something to tell, and who wants to know how that went."""

    message: Tell | Call
    within: float
    done: Done


class Teller:
    """Gives errands to the sender."""

    def __init__(self, timers: Timers, reporter: Reporter) -> None:
        self.workers: Workers
        self._timers, self._reporter = timers, reporter
        self._first: deque[Errand] = deque()  # what people are told goes before pings
        self._calls: deque[Errand] = deque()
        self._left_out = 0  # calls, since all could be made
        self._sender: Worker | None = None
        self._ready = False
        self._under_way: Errand | None = None
        self._number = 0
        self._deadline: Timer | None = None
        self._pause: Timer | None = None
        self._idle: Timer | None = None
        self._farewell: Timer | None = None
        self._stays = False  # until all runs have ended: a later sender could not be had

    # What there is to do

    def tell(self, message: Tell, done: Done) -> None:
        """Tell people something."""
        self._first.append(Errand(message=message, within=TELL_WITHIN, done=done))
        self._go_on()

    def call(self, message: Call, done: Done) -> None:
        """Call the address of a task. Where calls take longer than runs, the oldest are left out."""
        if len(self._calls) >= MOST_CALLS:
            if not self._left_out:
                self._reporter.calls_too_slow()
            self._calls.popleft()
            self._left_out += 1
        self._calls.append(Errand(message=message, within=CALL_WITHIN, done=done))
        self._go_on()

    def be_ready(self) -> None:
        """Have a sender, while one can be had: there will be something to tell."""
        if self._sender is None and not is_set(self._pause):
            self._sender = self.workers.bear_sender(self._hear)
            if self._sender is None:
                self._pause = self._timers.after(PAUSE, self._go_on)

    def stay(self) -> None:
        """Keep the sender from now on, however little there is to tell."""
        self._stays = True
        self.be_ready()

    def busy(self) -> bool:
        return bool(self._first or self._calls or self._under_way)

    # How it is done

    def _go_on(self) -> None:
        """Give the sender its next errand."""
        if self._under_way is not None or not (self._first or self._calls):
            return
        self._timers.cancel(self._idle)
        if self._ready and self._sender is not None and self._is_worn_out(self._sender):
            self._let_go("its code is old, or it has done enough")
        self.be_ready()
        if self._sender is None or not self._ready:
            return
        errand = self._first.popleft() if self._first else self._calls.popleft()
        self._number += 1
        errand.message.errand = self._number
        self._under_way = errand
        self._deadline = self._timers.after(errand.within, lambda: self._take_too_long(errand))
        self._sender.runs += 1
        if not self.workers.say(self._sender, errand.message):
            self.workers.end(self._sender)

    def _is_worn_out(self, sender: Worker) -> bool:
        server, settings = self.workers.server, self.workers.settings
        return server is not None and (server is not sender.server or sender.runs >= settings.recycle_runs)

    def _take_too_long(self, errand: Errand) -> None:
        self._let_go("")
        self._finish(f"it took longer than {errand.within:g} s")

    def _hear(self, message: Message | None) -> None:
        """What the sender says; None: it is gone."""
        match message:
            case Hello():
                self._ready = True
                self._go_on()
            case Told() if self._under_way and message.errand == self._under_way.message.errand:
                self._finish(message.problem)
            case None:
                self._sender, self._ready = None, False
                self._timers.cancel(self._pause)
                self._pause = self._timers.after(PAUSE, self._go_on)
                self._finish("the process that should do it has ended")

    def _finish(self, problem: str) -> None:
        if self._under_way is None:
            return
        errand, self._under_way = self._under_way, None
        self._timers.cancel(self._deadline)
        errand.done(problem)
        self._go_on()
        if not self.busy():
            if self._left_out:
                self._reporter.calls_left_out(self._left_out)
                self._left_out = 0
            self._idle = self._timers.after(self.workers.settings.idle_worker, self._leave_if_idle)

    def _leave_if_idle(self) -> None:
        if not self.busy() and not self._stays:
            self._let_go("there is nothing to tell")

    def _let_go(self, reason: str) -> None:
        """Let the sender leave; without a reason, it is ended."""
        sender, self._sender, self._ready = self._sender, None, False
        if sender is None:
            return
        sender.hears = None  # its end is no news
        if reason:
            self.workers.dismiss(sender, reason)
        else:
            self.workers.end(sender)

    # The end

    def say_farewell(self, patience: float) -> bool:
        """All runs have ended and the daemon wants to leave: do what there is still to do, for so many seconds.

        True where that begins now.
        """
        if not self.busy():
            self._let_go("the daemon stops")
        elif self._sender is None:
            self._give_up()
        elif self._farewell is None:
            self._farewell = self._timers.after(patience, self._give_up)
            return True
        return False

    def _give_up(self) -> None:
        self._first.clear()
        self._calls.clear()
        self._under_way = None
        self._let_go("")


def is_set(timer: Timer | None) -> bool:
    return timer is not None and timer.callback is not None
