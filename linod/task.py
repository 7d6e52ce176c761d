"""Declaring a task: what the decorators check, and what every process of linod then knows of it.

A declaration has two halves. The `Task` is data: frozen, checked where it is written, sent to the daemon and kept in
history. The function stays in the site's own processes, in `declarations`, where workers look it up by the task's id.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from types import CodeType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from . import schedules, web
from .errors import DeclarationError
from .instants import EPOCH
from .schedules.elapsed import LONGEST
from .words import printable

if TYPE_CHECKING:
    from schedule import Job

Overlap = Literal["skip", "queue", "allow", "replace"]
CatchUp = Literal["once", "none", "all"]
Function = TypeVar("Function", bound=Callable[..., Any])

LONGEST_RETRY_DELAY = 86400.0
RETRY_JITTER = 0.25  # of the delay: so much longer it is at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Policies:
    """How runs of a task are treated. Durations are seconds."""

    timeout: float = 3600.0  # a run that takes longer gets TERM
    grace: float = 30.0  # from TERM to KILL
    overlap: Overlap = "skip"  # what happens when it is due while its previous run is alive
    catch_up: CatchUp = "once"  # what happens to due times that passed while no daemon ran
    retries: int = 0  # how often a run that failed, crashed or timed out is tried again
    retry_delay: float = 60.0  # before the first retry; doubles with each further one; up to a quarter longer
    lock: str | None = None  # tasks with the same lock never run at the same time
    rerun_lost: bool = False  # safe to repeat: run again when nobody saw the end
    fresh: bool = False  # a process of its own for every run
    enabled: bool = True
    renamed_from: str | None = None  # its former id, whose history it takes over
    late_after: float | None = None  # a run that begins later than this is told; 0: never; None: as the site wants it
    stuck_after: float | None = None  # a run that goes on for longer is told
    ping: str | None = None  # the address that is called for each run. A secret: the daemon knows its host only

    def __post_init__(self) -> None:
        require_seconds("timeout", self.timeout, above=0)
        require_seconds("grace", self.grace)
        require_seconds("retry_delay", self.retry_delay)
        require_one_of("overlap", self.overlap, get_args(Overlap))
        require_one_of("catch_up", self.catch_up, get_args(CatchUp))
        if not is_whole(self.retries) or self.retries < 0:
            raise DeclarationError(
                f"retries={self.retries!r} is not a count.", "Write a whole number, as in retries=3."
            )
        for name in ("rerun_lost", "fresh", "enabled"):
            if not isinstance(getattr(self, name), bool):
                raise DeclarationError(f"{name}={getattr(self, name)!r} is neither True nor False.")
        for name in ("lock", "renamed_from"):
            require_name(name, getattr(self, name))
        if self.late_after is not None:
            require_seconds("late_after", self.late_after)
        if self.stuck_after is not None:
            require_seconds("stuck_after", self.stuck_after, above=0)
        if self.ping is not None and not web.is_url(self.ping):
            raise DeclarationError(
                "ping= is no address on the web.", 'Write it in ASCII, as in ping="https://hc.example/uuid".'
            )

    def retry_after(self, attempt: int, share: float = 0.0) -> float | None:
        """Seconds to wait before the next try when this attempt (1 is the first) went wrong; None: give up.

        `share`, from 0 to 1, is how much of the jitter is added: tasks that fail together shall not return together.
        """
        if attempt > self.retries:
            return None
        doubled = min(attempt - 1, 64)  # more would be beyond what a float can hold
        return min(self.retry_delay * 2.0**doubled, LONGEST_RETRY_DELAY) * (1 + RETRY_JITTER * share)

    def as_dict(self) -> dict[str, Any]:
        """For the daemon, history and faces, which need no secrets."""
        return {**asdict(self), "ping": self.ping and web.shown(self.ping)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A declared function with its schedule and policies, as data."""

    id: str  # module.function, or the name= of its declaration; '#2' for a function that is scheduled twice
    label: str  # the function's own name, for the faces
    text: str  # what --list prints in front of the parenthesis: 'Every 10 seconds do ping()'
    schedule: schedules.Schedule
    policies: Policies = field(default_factory=Policies)
    source: str = ""  # file:line of the function
    tags: tuple[str, ...] = ()
    # Who decides, where the administrator overrides something of it:
    overridden: tuple[str, ...] = ()  # what, and where: 'every: /etc/linod/myprj.toml:12'
    declared: str = ""  # when it is due by its declaration, where that is overridden: 'Every 10 seconds'

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "label": self.label,
            "text": self.text,
            "schedule": self.schedule.as_dict(),
            "policies": self.policies.as_dict(),
            "source": self.source,
            "tags": list(self.tags),
            "overridden": list(self.overridden),
            "declared": self.declared,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Task:
        """Raises KeyError, TypeError or ValueError for what no task of this version looks like."""
        task = cls(
            id=data["id"],
            label=data["label"],
            text=data["text"],
            schedule=schedules.from_dict(data["schedule"]),
            policies=Policies(**data["policies"]),
            source=data["source"],
            tags=tuple(data["tags"]),
            overridden=tuple(data.get("overridden", ())),  # history has tasks from before there were overrides
            declared=data.get("declared", ""),
        )
        for text in (task.id, task.label, task.text, task.source, task.declared, *task.tags, *task.overridden):
            if not isinstance(text, str):
                raise TypeError("A task has a text that is none.")
        return task

    @classmethod
    def plannable(cls, data: Mapping[str, Any]) -> Task:
        """The same for one that a daemon shall plan: it has a name that can be shown, and its place on the site."""
        task = cls.from_dict(data)
        if not task.id or (task.id, task.label) != (printable(task.id), printable(task.label)):
            raise ValueError("A task has no name that can be shown.")
        task.schedule.next(EPOCH)  # what cannot be computed is found here
        return task


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """A task and the function that does it."""

    task: Task
    function: Callable[[], Any]
    named: bool = False  # its id was chosen with name=
    origin: tuple[str, int] = ("", 0)  # where its code is, to know it again when its module is reloaded

    def placed(self, *, zone: str, site: str) -> Declaration:
        """The declaration once its site is known: the zone for wall-clock times, the phase for intervals."""
        # A new name alone must not move a task's due times.
        name = self.task.policies.renamed_from or self.task.id
        schedule = self.task.schedule.placed(zone, f"{site}/{name}")
        return replace(self, task=replace(self.task, schedule=schedule))


@dataclass
class Declarations:
    """All tasks that the site's code declared, in the order of their declaration."""

    _by_id: dict[str, Declaration] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Declaration]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __getitem__(self, id: str) -> Declaration:
        return self._by_id[id]

    def add(self, declaration: Declaration) -> Declaration:
        """Keep a declaration; a function that is scheduled again gets '#2', a name that is taken is refused."""
        declaration = replace(declaration, task=replace(declaration.task, id=self._free_id(declaration)))
        self._by_id[declaration.task.id] = declaration
        return declaration

    def clear(self) -> None:
        self._by_id.clear()

    def _free_id(self, new: Declaration) -> str:
        number, id = 1, new.task.id
        while (old := self._by_id.get(id)) is not None and not is_reload(old, new):
            if new.named or old.named:
                raise DeclarationError(
                    f"The name {id!r} is already taken by the task declared at {old.task.source}.",
                    "Choose another name= for one of them.",
                )
            number += 1
            id = f"{new.task.id}#{number}"
        return id


def is_reload(old: Declaration, new: Declaration) -> bool:
    """Whether a module that was loaded before declares the same task once more.

    Its code is then compiled anew; functions that a loop has made share theirs.
    """
    same_place = old.origin == new.origin and old.task.text == new.task.text
    return same_place and python_code(old.function) is not python_code(new.function)


declarations = Declarations()


def task(
    job: Job | None = None,
    /,
    *,
    every: float | timedelta | str | None = None,
    at: str | list[str] | None = None,
    cron: str | None = None,
    tz: str | None = None,
    until: datetime | None = None,
    jitter: float = 0,
    name: str | None = None,
    timeout: float = 3600.0,
    grace: float = 30.0,
    overlap: Overlap = "skip",
    catch_up: CatchUp = "once",
    retries: int = 0,
    retry_delay: float = 60.0,
    lock: str | None = None,
    rerun_lost: bool = False,
    fresh: bool = False,
    enabled: bool = True,
    renamed_from: str | None = None,
    late_after: float | None = None,
    stuck_after: float | None = None,
    ping: str | None = None,
) -> Callable[[Function], Function]:
    """Declare the function below as a background task; the function itself stays as it is.

    When it is due: `every` (seconds, a timedelta, or words like "15min"), `at` ("20:00", each day in the site's time
    zone), `every` and `at` together ("3 days", "20:00"), `cron` ("5 4 * * mon"), or a job of the `schedule` package
    (`schedule.every().monday.at("09:00")`). `tz` is another zone than the site's, `until` an aware datetime after
    which it is never due, `jitter` a number of seconds over which its due times are spread.

    How its runs are treated is explained at `Policies`. Raises `DeclarationError` where the declaration cannot work.
    """
    if callable(job):
        raise DeclarationError("@linod.task needs to know when.", 'Write @linod.task(every="15min"), for example.')
    schedule, phrase = schedules.declare(job, every=every, at=at, cron=cron, tz=tz, jitter=jitter, until=until)
    require_name("name", name)
    policies = Policies(
        timeout=timeout,
        grace=grace,
        overlap=overlap,
        catch_up=catch_up,
        retries=retries,
        retry_delay=retry_delay,
        lock=lock,
        rerun_lost=rerun_lost,
        fresh=fresh,
        enabled=enabled,
        renamed_from=renamed_from,
        late_after=late_after,
        stuck_after=stuck_after,
        ping=ping,
    )
    tags = tuple(sorted(map(str, job.tags))) if job is not None else ()

    def declare(function: Function) -> Function:
        require_no_arguments(function)
        label = function_name(function)
        declarations.add(
            Declaration(
                task=Task(
                    id=name or f"{module_name(function)}.{label}",
                    label=label,
                    text=f"{phrase} do {label}()",
                    schedule=schedule,
                    policies=policies,
                    source=source_of(function),
                    tags=tags,
                ),
                function=function,
                named=name is not None,
                origin=code_of(function),
            )
        )
        return function

    return declare


def declare_job(job: Job) -> Declaration:
    """Take over a finished job of the `schedule` package, with the arguments that it calls its function with."""
    if job.job_func is None:
        raise DeclarationError(f"{job!r} does nothing.", "Say what, with .do(function).")
    schedule, phrase = schedules.declare(job)
    function = unwrapped(job.job_func)
    label = function_name(function)
    return declarations.add(
        Declaration(
            task=Task(
                id=f"{module_name(function)}.{label}",
                label=label,
                text=f"{phrase} do {schedules.call_text(job)}",
                schedule=schedule,
                source=source_of(function),
                tags=tuple(sorted(map(str, job.tags))),
            ),
            function=job.job_func,
            origin=code_of(function),
        )
    )


def function_name(function: Callable[..., Any]) -> str:
    """Its name, which anybody may have set to anything, as it can be shown."""
    return printable(getattr(unwrapped(function), "__name__", type(function).__name__))


def module_name(function: Callable[..., Any]) -> str:
    return printable(getattr(unwrapped(function), "__module__", None) or type(function).__module__)


def code_of(function: Callable[..., Any]) -> tuple[str, int]:
    """File and line of a function; an empty file for one that is not written in Python."""
    code = python_code(function)
    return (code.co_filename, code.co_firstlineno) if code else ("", 0)


def source_of(function: Callable[..., Any]) -> str:
    """As people read it, file:line; empty for a function that is not written in Python."""
    file, line = code_of(function)
    return f"{file}:{line}" if file else ""


def python_code(function: Callable[..., Any]) -> CodeType | None:
    """The code that a call runs: of a function, or of an object that can be called."""
    innermost = inspect.unwrap(unwrapped(function))
    code = getattr(innermost, "__code__", None) or getattr(type(innermost).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def require_no_arguments(function: Callable[..., Any]) -> None:
    if not callable(function):
        raise DeclarationError(f"{function!r} is not a function.", "Put the decorator right above a function.")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return  # a built-in that doesn't tell: calling it will
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise DeclarationError(
            f"{function_name(function)}() needs arguments ({', '.join(needed)}), but a task is called without any.",
            "Give them defaults, or declare a function without parameters that calls it.",
        )
    if inspect.isgeneratorfunction(unwrapped(function)) or inspect.isasyncgenfunction(unwrapped(function)):
        raise DeclarationError(
            f"{function_name(function)}() contains yield: to call it would run nothing of it.",
            "Declare a function without parameters that loops over it.",
        )


def require_seconds(name: str, value: object, *, above: float = -1) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and above < value <= LONGEST
    if not good or value < 0:  # type: ignore[operator]
        raise DeclarationError(f"{name}={value!r} is not a duration.", f"Write a number of seconds, as in {name}=60.")


def require_one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise DeclarationError(f"{name}={value!r} is unknown.", f"Write one of {', '.join(map(repr, choices))}.")


def require_name(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value or not value.isprintable() or value != value.strip() or len(value) > 200:
        raise DeclarationError(
            f"{name}={value!r} is not a name.", f'Write a short printable text, as in {name}="nightly".'
        )


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
