"""The administrator's file: what may stand in it, what it does to a site's tasks, and in which words it is refused."""

import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from linod import dd, schedules, sites, task
from linod.conf import Settings
from linod.errors import ConfigurationError
from linod.overrides import Alert, Overrides, apply, of_directory, problems, read
from linod.overrides.document import LARGEST, lines_of_keys
from linod.task import Task, declarations

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_declarations() -> Iterator[None]:
    declarations.clear()
    yield
    declarations.clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "myprj.toml"


@pytest.fixture
def write(file: Path) -> Callable[[str], Overrides]:
    def write(text: str) -> Overrides:
        file.write_text(dedent(text))
        return read(file)

    return write


Write = Callable[[str], Overrides]


# What may stand in it


def test_a_file_that_is_not_there_overrides_nothing(file: Path) -> None:
    assert read(file) == Overrides() and problems(file) == []


def test_all_keys_there_are(write: Write) -> None:
    given = write("""
        python = "env/bin/python"
        settings = "myprj.settings.server"
        use_linod = true
        max_parallel = 2
        drain_timeout = 20
        log_runs = "all"

        [alert]
        to = ["admin@example.org", "root"]
        from = "linod@example.org"
        host = "mail.example.org"
        port = 587
        user = "linod"
        password_file = "/etc/linod/mail.password"
        starttls = true
        ssl = false
    """)
    assert (given.python, given.settings, given.use_linod) == ("env/bin/python", "myprj.settings.server", True)
    assert given.merged({"max_parallel": 8, "max_running": 9}) == Settings(
        max_parallel=2, max_running=9, drain_timeout=20, log_runs="all"
    )
    assert given.alert == Alert(
        to=("admin@example.org", "root"),
        sender="linod@example.org",
        host="mail.example.org",
        port=587,
        user="linod",
        password_file="/etc/linod/mail.password",
        starttls=True,
        ssl=False,
    )


def test_what_is_told_of_tasks_are_settings_of_linod(write: Write) -> None:
    given = write("""
        alert_every = 60

        [alert]
        tasks = false
        url = "https://example.org/hook"
        late_after = 60
    """)
    assert given.merged({"late_after": 7.0, "alert_tasks": True}) == Settings(
        alert_tasks=False, alert_url="https://example.org/hook", late_after=60, alert_every=60
    )
    assert given.alert == Alert()


def test_a_task_may_be_given_a_ping_and_its_own_patience(write: Write) -> None:
    given = write("""
        [tasks.work]
        ping = "https://hc.example/secret"
        late_after = 0
        stuck_after = 60
    """)
    [override] = given.tasks
    assert override.policies == {"ping": "https://hc.example/secret", "late_after": 0, "stuck_after": 60}


@pytest.mark.parametrize(
    "text", ["[tasks.work]\nping = 'hc.example/secret'", "[alert]\nurl = 'hc.example/secret'", "alert_url = '/secret'"]
)
def test_an_address_that_is_none_is_not_repeated(write: Write, text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address on the web") as refused:
        write(text)
    assert "secret" not in str(refused.value)


def test_an_empty_file_says_nothing(write: Write) -> None:
    assert write("# nothing yet\n[alert]\n[tasks]\n") == Overrides()


def test_one_address_needs_no_list_and_none_may_be_wanted(write: Write) -> None:
    assert write("alert.to = 'root'").alert.to == ("root",)
    assert write("alert.to = []").alert.to == ()


def test_an_interpreter_is_looked_for_in_the_site_and_not_resolved(write: Write) -> None:
    assert write("python = 'env/bin/python'").interpreter("/srv/my site") == "/srv/my site/env/bin/python"
    assert write("python = '/opt/p/bin/python'").interpreter("/srv/my site") == "/opt/p/bin/python"
    assert Overrides().interpreter("/srv/my site") is None


def test_some_editors_begin_a_file_with_a_mark(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfmax_parallel = 2\r\n")
    assert read(file).linod == {"max_parallel": 2}


# What it does to tasks


@dd.schedule_often(every=10)
def ping() -> None: ...


[PING] = declarations


def changed(write: Write, text: str, **keywords: Any) -> Task:
    """A task `work`, declared with these keywords and overridden by the keys in `text`."""
    declarations.clear()

    @task(**(keywords or {"every": 10}))
    def work() -> None: ...

    [declaration], complaints = apply(write(f"[tasks.work]\n{text}"), list(declarations))
    assert complaints == []
    return declaration.placed(zone="Europe/Brussels", site="myprj").task


def test_every_replaces_the_schedule_and_its_words(write: Write, file: Path) -> None:
    work = changed(write, "every = 30", every=10, jitter=3, timeout=5)
    assert work.text == "Every 30 seconds do work()"
    assert isinstance(work.schedule, schedules.Interval) and work.schedule.seconds == 30
    assert work.policies.timeout == 5
    assert work.declared == "Every 10 seconds"
    assert work.overridden == (f"every: {file}:2",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('every = "15min"', "Every 15 minutes"),
        ("every = 0.5", "Every 0.5 seconds"),
        ('at = "20:00"', "Every 1 day at 20:00:00"),
        ("at = 20:00:00", "Every 1 day at 20:00:00"),
        ('at = ["08:00", "20:00"]', "Every 1 day at 08:00:00, 20:00:00"),
        ('every = "3 days"\nat = "20:00"', "Every 3 days at 20:00:00"),
        ('cron = "5 4 * * mon"', 'Cron "5 4 * * mon"'),
    ],
)
def test_a_schedule_is_written_as_in_a_declaration(write: Write, text: str, words: str) -> None:
    assert changed(write, text).text == f"{words} do work()"


def test_a_timeout_alone_keeps_the_schedule(write: Write, file: Path) -> None:
    before, after = (changed(write, text, every=10, jitter=3) for text in ("", "timeout = 60"))
    assert after.policies.timeout == 60
    assert (after.schedule, after.text, after.declared) == (before.schedule, "Every 10 seconds do work()", "")
    assert after.overridden == (f"timeout: {file}:2",)
    assert before.overridden == ()


def test_all_policies_that_need_no_knowledge_of_the_code(write: Write) -> None:
    policies = changed(
        write,
        """enabled = false
        timeout = 600
        grace = 5.5
        overlap = "queue"
        catch_up = "none"
        retries = 3
        retry_delay = 10""",
    ).policies
    assert (policies.enabled, policies.timeout, policies.grace, policies.overlap) == (False, 600, 5.5, "queue")
    assert (policies.catch_up, policies.retries, policies.retry_delay) == ("none", 3, 10)


def test_a_zone_alone_moves_a_time_of_day_there(write: Write) -> None:
    work = changed(write, 'tz = "Asia/Tokyo"', at="20:00", jitter=60, until=datetime(2030, 1, 1, tzinfo=UTC))
    due = work.schedule.next(NOW)
    assert due is not None
    assert datetime(2026, 11, 25, 11, tzinfo=UTC) <= due < datetime(2026, 11, 25, 11, 1, tzinfo=UTC)
    assert work.declared == "Every 1 day at 20:00:00"


def test_a_zone_alone_moves_an_expression_of_cron_as_well(write: Write) -> None:
    work = changed(write, 'tz = "Asia/Tokyo"', cron="0 20 * * *", tz="UTC")
    assert work.schedule.next(NOW) == datetime(2026, 11, 25, 11, tzinfo=UTC)


def test_a_new_time_of_day_is_one_of_the_sites_own_zone(write: Write) -> None:
    assert changed(write, 'at = "21:00"', at="20:00", tz="Asia/Tokyo").schedule.next(NOW) == datetime(
        2026, 11, 24, 20, tzinfo=UTC
    )
    assert changed(write, 'at = "21:00"\ntz = "UTC"').schedule.next(NOW) == datetime(2026, 11, 24, 21, tzinfo=UTC)


def test_jitter_alone_replaces_the_declared_one_and_zero_removes_it(write: Write) -> None:
    until = datetime(2030, 1, 1, tzinfo=UTC)
    for declared in ({"every": 10}, {"every": 10, "jitter": 3}):
        schedule = changed(write, 'jitter = "5s"', until=until, **declared).schedule
        assert isinstance(schedule, schedules.Until) and isinstance(schedule.base, schedules.Jittered)
        assert schedule.base.seconds == 5 and isinstance(schedule.base.base, schedules.Interval)
    assert isinstance(changed(write, "jitter = 0", every=10, jitter=3).schedule, schedules.Interval)


def test_a_task_is_meant_by_its_name_its_id_or_its_former_id(write: Write) -> None:
    @task(every=10, name="nightly", renamed_from="weekly")
    def work() -> None: ...

    for name in ("work", "nightly", "weekly"):
        [declaration], complaints = apply(write(f"[tasks.{name}]\nretries = 7"), list(declarations))
        assert (declaration.task.policies.retries, complaints) == (7, [])


def test_other_tasks_stay_as_they_are(write: Write) -> None:
    assert apply(write("[tasks.ping]\n"), [PING]) == ([PING], [])


def test_a_task_that_the_site_does_not_have_is_a_complaint(write: Write, file: Path) -> None:
    given = write("""
        [tasks.pingg]
        every = 30
        [tasks."app.tasks.gone"]
        every = 30
    """)
    unchanged, complaints = apply(given, [PING])
    assert unchanged == [PING]
    assert complaints == [
        f"{file}, line 2: This site has no task 'pingg'. Did you mean ping?",
        f"{file}, line 4: This site has no task 'app.tasks.gone'.",
    ]


def test_a_name_that_two_tasks_have_is_a_complaint(write: Write, file: Path) -> None:
    def work() -> None: ...

    task(every=10)(work)
    task(every=20)(work)
    id = next(iter(declarations)).task.id
    _unchanged, complaints = apply(write("tasks.work.every = 30"), list(declarations))
    assert complaints == [f"{file}, line 1: There are 2 tasks called 'work'. Say which: {id}, {id}#2."]
    [first, second], complaints = apply(write(f'[tasks."{id}#2"]\nevery = 30'), list(declarations))
    assert (first.task.text, second.task.text) == ("Every 10 seconds do work()", "Every 30 seconds do work()")


# What is refused

REFUSED = [
    ("evry = 3", "line 1: this file has no key `evry`. It knows python, settings, use_linod, max_parallel, "),
    ("max_paralel = 3", "line 1: this file has no key `max_paralel`. Did you mean max_parallel?"),
    ("\n\n[tasks.work]\nevry = 3", "line 4: `[tasks.work]` has no key `evry`. Did you mean every?"),
    (
        "[tasks.work]\nlock = 'x'",
        "line 2: `[tasks.work]` has no key `lock`. It knows every, at, cron, tz, jitter, enabled, ",
    ),
    ("[alert]\nmail = 'x'", "line 2: `[alert]` has no key `mail`. It knows to, from, host, port, "),
    ('[tasks."a.b"]\nxyz = 3', 'line 2: `[tasks."a.b"]` has no key `xyz`. It knows every, at, cron, tz, jitter, '),
    (
        "[tasks.app.tasks.ping]\nevery = 3",
        'line 1: `[tasks.app]` has no key `tasks`. A name with dots needs quotes: [tasks."app.tasks.ping"]',
    ),
    ("tasks = 3", "line 1: `tasks` is not a table. Begin it with a line of its own: [tasks]"),
    ("[tasks]\nevery = 3", "line 2: `tasks.every` is not a table. Begin it with a line of its own: [tasks.every]"),
    ("[[tasks]]\nevery = 3", "line 1: `tasks` is not a table."),
    ("alert = 'root'", "line 1: `alert` is not a table. Begin it with a line of its own: [alert]"),
    ("python = 3", 'line 1: `python` is 3, not the path of a program. Write for example python = "env/bin/python".'),
    ("python = ''", "line 1: `python` is '', not the path of a program."),
    (
        "settings = ['x']",
        'line 1: `settings` is a list, not the name of a module. Write for example settings = "myprj.',
    ),
    ("use_linod = 'yes'", "line 1: `use_linod` is 'yes', not true or false. Write for example use_linod = true."),
    ("max_parallel = 0", "line 1: max_parallel = 0 is too small. Write a number from 1 to 1,000,000."),
    ("max_parallel = '3'", "line 1: max_parallel = '3' is not a whole number. The default is"),
    ("max_parallel = {}", "line 1: `max_parallel` is a table, not a number or a text."),
    ("drain_timeout = nan", "line 1: drain_timeout = nan is too small."),
    ("log_runs = 'some'", "line 1: log_runs = 'some'. Write 'changes' or 'all'."),
    ("alert.to = 7", 'line 1: `to` is 7, not a mail address. Write for example to = "admin@example.org".'),
    ("alert.to = ['a@b.c, d@e.f']", "line 1: `to` is 'a@b.c, d@e.f', not a mail address."),
    ('alert.to = "a@b.c\\nBcc: d@e.f"', "line 1: `to` is 'a@b.c\\nBcc: d@e.f', not a mail address."),
    ("alert.port = 0", "line 1: `port` is 0, not the number of a port. Write for example port = 587."),
    ("alert.port = true", "line 1: `port` is true, not the number of a port."),
    ("alert.password_file = 'x'", "line 1: `password_file` is 'x', not an absolute path."),
    ("[alert]\nstarttls = true\nssl = true", "line 3: `starttls` and `ssl` don't go together. Port 587 usually"),
    ("[tasks.work]\nevery = 0", "line 2: A task cannot run every 0 seconds: the shortest interval is 0.1 seconds"),
    ("[tasks.work]\nevery = true", "line 2: every=True is not a length of time."),
    ("[tasks.work]\nevery = [3]", "line 2: `every` is a list, not a number or a text. Write for example every = 10."),
    ("[tasks.work]\nat = 9", "line 2: `at` is 9, not a time of day or a list of them. Write for example at = "),
    ("[tasks.work]\nat = []", "line 2: at=[] is not a time of day."),
    ("[tasks.work]\nat = 2026-01-01", "line 2: `at` is datetime.date(2026, 1, 1), not a time of day or a list"),
    ("[tasks.work]\nevery = 9\ncron = '* * * * *'", "line 3: every and cron don't go together. Write every=10, or"),
    ("[tasks.work]\nevery = 9\nat = '20:00'", "line 3: every=9 is not a whole number of days, so it can't have"),
    ("[tasks.work]\ncron = '61 * * * *'", "line 2: cron='61 * * * *' is not an expression of cron"),
    ("[tasks.work]\ntz = 'Brussels'", "line 2: There is no time zone 'Brussels'. Did you mean Europe/Brussels?"),
    (
        "[tasks.work]\nevery = 9\ntz = 'UTC'",
        "line 3: `tz` means nothing to a task that runs every 9 seconds. Leave it out, or give the task a time of day",
    ),
    ("[tasks.work]\nevery = 9\njitter = 9", "line 3: A jitter of 9 seconds doesn't fit a task that runs every 9"),
    ("[tasks.work]\njitter = -1", "line 2: `jitter` is -1, not a length of time. Write for example jitter = 60."),
    ("[tasks.work]\njitter = nan", "line 2: `jitter` is nan, not a length of time."),
    ("[tasks.work]\ntimeout = 'long'", "line 2: timeout='long' is not a duration. Write a number of seconds"),
    ("[tasks.work]\ntimeout = 0", "line 2: timeout=0 is not a duration."),
    ("[tasks.work]\ntimeout = inf", "line 2: timeout=inf is not a duration."),
    (f"[tasks.work]\ntimeout = {10**15}", f"line 2: timeout={10**15} is not a duration."),
    (f"[tasks.work]\nevery = {'9' * 4000}", "line 2: `every` is 99999"),
    (f"[tasks.work]\nevery = {'9' * 5000}", ": this is not TOML: exceeds the limit"),
    ("[tasks.work]\nenabled = 'no'", "line 2: `enabled` is 'no', not true or false. Write for example enabled = true."),
    ("[tasks.work]\noverlap = 'never'", "line 2: overlap='never' is unknown. Write one of 'skip', 'queue', 'allow', "),
    ("[tasks.work]\ncatch_up = 1", "line 2: catch_up=1 is unknown. Write one of 'once', 'none', 'all'."),
    ("[tasks.work]\nretries = 1.5", "line 2: retries=1.5 is not a count. Write a whole number, as in retries=3."),
    ("a = 1\na = 2", "line 2: this is not TOML: cannot overwrite a value. See https://toml.io for how to write it."),
    ("a = 1\nb", "line 2: this is not TOML: expected '=' after a key in a key/value pair."),
    ("a = '", "line 1: this is not TOML: "),
    ("a = '\u2028", "line 1: this is not TOML: "),
    ("every 10 seconds", "line 1: this is not TOML: expected '=' after a key"),
    ("a = " + 5000 * "[", "has too many brackets in brackets"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_a_mistake_is_refused_with_its_file_and_line(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read(file)
    assert caught.value.exit_code == 78
    assert str(caught.value).startswith(f"{file}, {words}" if words.startswith("line") else str(file))
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines(file: Path) -> None:
    file.write_text("[tasks.b]\nevry = 3\ntimeout = 0\n[alert]\nport = 0\n[tasks.a]\nevery = 3\njitter = 4\ntz = 'x'\n")
    assert [str(problem).removeprefix(f"{file}, ").partition(":")[0] for problem in problems(file)] == [
        "line 2",
        "line 3",
        "line 5",
        "line 8",
        "line 9",
    ]


def test_a_zone_for_a_declared_interval_is_refused_when_the_task_is_known(write: Write, file: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        changed(write, 'timeout = 3\ntz = "UTC"', every=10)
    assert str(caught.value).startswith(f"{file}, line 3: `tz` means nothing to a task that runs every 10 seconds.")


def test_a_jitter_that_is_too_long_is_refused_when_the_task_is_known(write: Write, file: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        changed(write, "jitter = 10", every=10)
    assert str(caught.value).startswith(f"{file}, line 2: A jitter of 10 seconds doesn't fit a task that runs every 10")


def test_a_task_that_is_overridden_under_two_names_is_refused(write: Write, file: Path) -> None:
    given = write(f'[tasks.ping]\nevery = 30\n[tasks."{PING.task.id}"]\nretries = 3')
    with pytest.raises(ConfigurationError) as caught:
        apply(given, [PING])
    assert str(caught.value) == f"{file}, line 3: this task has been overridden on line 1 already. Keep one."


def test_what_is_no_file_is_refused_in_words(file: Path) -> None:
    file.mkdir()
    with pytest.raises(ConfigurationError, match=r"is not a file. Remove it, or write a text file in its place."):
        read(file)
    file.rmdir()
    file.symlink_to("/nowhere")
    with pytest.raises(ConfigurationError, match=r"leads to nothing. Remove it, or let it lead to a file."):
        read(file)


def test_a_file_that_cannot_be_read_is_refused_in_words(file: Path) -> None:
    file.symlink_to(file)
    with pytest.raises(ConfigurationError, match=r"cannot be read: Too many levels of symbolic links."):
        read(file)


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(file: Path) -> None:
    file.write_bytes(b"# caf\xc3\xa9\n# caf\xe9\n")
    with pytest.raises(ConfigurationError) as caught:
        read(file)
    assert str(caught.value) == f"{file}, line 2: this is not UTF-8. Save the file as UTF-8."


def test_ten_megabytes_are_refused_in_words(file: Path) -> None:
    file.write_bytes(b"\x00\xff" * 5_000_000)
    with pytest.raises(ConfigurationError, match=f"is larger than {LARGEST:,} bytes. Remove it"):
        read(file)


KEYS = st.sampled_from(
    ["python", "max_parallel", "tasks", "alert", "every", "at", "cron", "tz", "timeout", "to", "x", '"y.z"']
)
VALUES = st.sampled_from(
    ["1", "-1", "nan", "1e400", "'20:00'", "'UTC'", "true", "[]", "{}", "[1, 'x']", "20:00:00", "{x={}}"]
)
LINES = st.one_of(
    st.builds("{} = {}".format, st.lists(KEYS, min_size=1, max_size=4).map(".".join), VALUES),
    st.builds("[{}]".format, st.lists(KEYS, min_size=1, max_size=3).map(".".join)),
)


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | st.lists(LINES).map("\n".join).map(str.encode))
@example(b"[tasks.x]\nat = 20:00:00.5\n")
@example(b'[tasks."\\u0007"]\n"\\n" = 1\n')
@example(b"[tasks.x]\n" + b"y." * 1000 + b"z = 1\n")
@example(b"python = " + b"{x = " * 90 + b"1" + b"}" * 90)
def test_any_bytes_are_overrides_or_an_error_in_words(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(data)
    found = problems(file)
    for problem in found:
        assert str(problem).startswith(str(file)) and str(problem).isprintable() and len(str(problem)) < 1000
    try:
        assert isinstance(read(file), Overrides) and not found
    except ConfigurationError as error:
        assert str(error) == str(found[0])


# The lines of keys


def test_every_way_to_write_a_key_has_its_line() -> None:
    text = dedent(r'''
        a = 1  # [no] b = 2
        "b c".'d' = """
        [no]
        x = 3"""
        [tasks."app.tasks.ping"]  # yes
        at = ["08:00", # x = 1
          "20:00"]
        inline = { every = 5.5, "q}" = "]}\"", list = [[], {x = 1},
           {y = 2}], end = 1 }
        when = 07:32:00
        [ tasks . work ]
        x.y.z.too.deep = 1
        [[list]]
        k = """a""""
        [[list]]
        m = "\\"
    ''')
    tomllib.loads(text)
    lines = lines_of_keys(text)
    assert {".".join(keys): line for keys, line in lines.items()} == {
        "a": 2,
        "b c": 3,
        "b c.d": 3,
        "tasks": 6,
        "tasks.app.tasks.ping": 6,
        "tasks.app.tasks.ping.at": 7,
        "tasks.app.tasks.ping.inline": 9,
        "tasks.app.tasks.ping.inline.every": 9,
        "tasks.app.tasks.ping.inline.q}": 9,
        "tasks.app.tasks.ping.inline.list": 9,
        "tasks.app.tasks.ping.inline.end": 10,
        "tasks.app.tasks.ping.when": 11,
        "tasks.work": 12,
        "tasks.work.x": 13,
        "tasks.work.x.y": 13,
        "list": 14,
        "list.k": 15,
        "list.m": 17,
    }


NAMES = st.sampled_from(["a", "b-1", '"a"', '"x.y"', "'#'", '"="', '"[\\""', "''"])
SCALARS = st.sampled_from(
    ["1", '"a\\"b"', "'x # y'", '"""\n[a]\nb = 1\n"""', "'''\n]}'''", "[ 1, [2, # x\n 3]]", "1.5"]
)
INLINE = st.recursive(
    SCALARS,
    lambda inner: (
        st.dictionaries(NAMES, inner, max_size=3).map(
            lambda d: "{" + ", ".join(f"{k} = {v}" for k, v in d.items()) + "}"
        )
        | st.lists(inner, max_size=3).map(lambda each: "[" + ",".join(each) + "]")
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(
    st.lists(
        st.one_of(
            st.builds("{} = {}".format, st.lists(NAMES, min_size=1, max_size=3).map(" . ".join), INLINE),
            st.builds("[{}]".format, st.lists(NAMES, min_size=1, max_size=3).map(".".join)),
            st.builds("[[{}]]".format, NAMES),
            st.sampled_from(["", "# a = 1", "  "]),
        ),
        max_size=8,
    )
)
def test_exactly_the_keys_that_the_parser_finds_have_a_line(statements: list[str]) -> None:
    text = "\n".join(statements)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = lines_of_keys(text)
    assert set(lines) == {keys for keys in keys_of(values) if len(keys) <= 4}
    for keys, line in lines.items():
        assert 1 <= line <= text.count("\n") + 1
        assert unquoted_is_in(keys[-1], text.split("\n")[line - 1])


def keys_of(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*above, key)
            yield from keys_of(inner, (*above, key))
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner, above)


def unquoted_is_in(key: str, line: str) -> bool:
    return key in line.replace('\\"', '"')


# Where it is found


def test_a_site_of_this_host_has_its_file_and_another_directory_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sites, "ETC", tmp_path)
    monkeypatch.setattr(sites, "SITES", tmp_path / "sites")
    (tmp_path / "sites").mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "sites" / "my.prj").symlink_to(tmp_path / "site")
    (tmp_path / "my.prj.toml").write_text("use_linod = false")
    assert of_directory(tmp_path / "site").use_linod is False
    assert of_directory(tmp_path) == Overrides()
