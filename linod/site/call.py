"""Call a task's function and say how it ended. Used by workers, and by `--run` on a terminal."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import resource
import signal
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from ..runs import Outcome
from .secrets import masked

OURS = os.path.join(os.path.dirname(__file__), "")
LONGEST_REASON = 500
LONGEST_TRACEBACK = 12_000  # characters, each of up to twelve bytes in a message


class Terminated(BaseException):
    """Raised in a task that is asked to end, so that its `finally` blocks run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How a call ended. CPU time is seconds, memory KiB."""

    outcome: Outcome
    reason: str = ""
    traceback: str = ""
    cpu: float = 0.0
    peak_memory: int = 0


class Caller:
    """Calls functions one after the other, and measures what they cost."""

    def __init__(self) -> None:
        # Writing 5 there makes the kernel forget the highest memory use so far.
        self._peak = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)

    def call(self, function: Callable[[], Any]) -> Result:
        """Call it in a fresh context, awaiting what it returns if need be; never raises."""
        os.pwrite(self._peak, b"5", 0)
        before = cpu_seconds()
        outcome, reason, trace = self.outcome_of(function)
        return Result(
            outcome=outcome,
            reason=reason,
            traceback=trace,
            cpu=max(0.0, cpu_seconds() - before),
            peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        )

    def close(self) -> None:
        os.close(self._peak)

    def outcome_of(self, function: Callable[[], Any]) -> tuple[Outcome, str, str]:
        """Outcome, reason and traceback of a call."""
        try:
            contextvars.Context().run(finish, function)
        except Terminated as error:
            return Outcome.CANCELLED, "terminated", format_traceback(error)
        except KeyboardInterrupt as error:
            return Outcome.CANCELLED, "interrupted", format_traceback(error)
        except SystemExit as error:
            if not error.code:
                return Outcome.SUCCEEDED, "", ""
            return Outcome.FAILED, masked(f"exit status {error.code}")[:LONGEST_REASON], format_traceback(error)
        except BaseException as error:
            return Outcome.FAILED, describe(error), format_traceback(error)
        return Outcome.SUCCEEDED, "", ""


class TerminableCaller(Caller):
    """Lets TERM interrupt the function that is running; between two of them, TERM ends the process."""

    def __init__(self) -> None:
        super().__init__()
        self.terminated = False
        self._running = False
        signal.signal(signal.SIGTERM, self._terminate)

    def outcome_of(self, function: Callable[[], Any]) -> tuple[Outcome, str, str]:
        try:
            self._running = True
            try:
                return super().outcome_of(function)
            finally:
                self._running = False
        except Terminated:  # it came between the function's end and ours
            return Outcome.CANCELLED, "terminated", ""

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self.terminated = True
        if self._running:
            raise Terminated
        os._exit(128 + signal.SIGTERM)


def call(function: Callable[[], Any]) -> Result:
    """Call one function."""
    caller = Caller()
    try:
        return caller.call(function)
    finally:
        caller.close()


def finish(function: Callable[[], Any]) -> None:
    result = function()
    if inspect.isawaitable(result):
        asyncio.run(wait_for(result))


async def wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def cpu_seconds() -> float:
    """CPU time of this process and its ended children so far."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def describe(error: BaseException) -> str:
    """One line for an exception, even for one whose own text cannot be made."""
    try:
        text = str(error).strip()
    except Exception:
        text = "(its text cannot be shown)"
    first = masked(text.splitlines()[0]) if text else ""
    return f"{type(error).__name__}: {first}".removesuffix(": ")[:LONGEST_REASON]


def format_traceback(error: BaseException) -> str:
    """The traceback from the task's own first frame on."""
    trace = skip_own_frames(error.__traceback__)
    try:
        text = masked("".join(traceback.format_exception(type(error), error, trace)))
    except Exception:
        text = f"{describe(error)} (its traceback cannot be shown)"
    if len(text) > LONGEST_TRACEBACK:
        half = LONGEST_TRACEBACK // 2
        text = f"{text[:half]}\n[…]\n{text[-half:]}"
    return text


def skip_own_frames(trace: TracebackType | None) -> TracebackType | None:
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename.startswith(OURS):
        inner = inner.tb_next
    return inner or trace
