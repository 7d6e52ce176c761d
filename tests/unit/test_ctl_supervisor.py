"""import-supervisor and add --scan, as far as nothing is started: what is read, planned, and changed in files."""

import contextlib
import json
import os
import pwd
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linod.ctl import aside, leftovers, staying
from linod.ctl.accounts import parse_environment
from linod.ctl.adding import quoted
from linod.ctl.moving import make_plan
from linod.ctl.scanning import propose_name, usable
from linod.ctl.scripts import understand
from linod.ctl.supervisor import (
    Configuration,
    Unusable,
    as_dict,
    divide,
    expand,
    line_of,
    pairs,
    parse,
    programs_in,
    read_directory,
    take_file,
)
from linod.ctl.supervisorctl import Supervisorctl
from linod.errors import LinodError
from linod.sites import NAME, HostSite
from tests.support.ctl import ME, CtlHost


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = CtlHost(tmp_path)
    host.patch(monkeypatch)
    return host


@pytest.fixture
def conf_dir(tmp_path):
    directory = tmp_path / "supervisor" / "conf.d"
    directory.mkdir(parents=True)
    return directory


def read(conf_dir, **files):
    """Configuration of files whose names are given with underscores for dots."""
    for name, text in files.items():
        (conf_dir / f"{name}.conf").write_text(text)
    return read_directory(conf_dir)


def plan(conf_dir, user=None):
    return make_plan(conf_dir, Supervisorctl(configuration=conf_dir.parent / "supervisord.conf", installed=False), user)


# The two forms in use, and others


def test_a_directory_that_depends_on_supervisord_is_no_place_for_a_site(conf_dir):
    found = read(conf_dir, odd="[program:linod]\ncommand = python manage.py linod\ndirectory = srv/prj\n")
    [trouble] = found.troubles
    assert not found.jobs and "depends on where supervisord was started: srv/prj" in str(trouble)


def test_a_script_is_followed_to_its_manage_py(conf_dir, tmp_path):
    script = tmp_path / "prj" / "linod.sh"
    script.parent.mkdir()
    script.write_text(f"#!/bin/bash\nset -e\ncd {tmp_path}/prj\n. env/bin/activate\nexec python manage.py linod\n")
    found = read(conf_dir, linod_prj=f"[program:linod-prj]\ncommand = {script}\nusername = www-data\numask = 002\n")
    [job] = found.jobs
    assert job.directory == tmp_path / "prj" and job.start.environment == f"{tmp_path}/prj/env"
    assert job.program.as_root and (job.program.username, job.program.username_line) == ("www-data", 3)
    assert not found.troubles


def test_a_command_of_bash_is_followed(conf_dir):
    text = """\
; nginx talks to this one
[program:prj_web]
command=/usr/bin/daphne
[program:prj_linod]
command=/bin/bash -c "source /srv/prj/env/bin/activate && python manage.py linod --force"
directory=/srv/prj
user = www-data ; the web server's
"""
    [job] = read(conf_dir, prj=text).jobs
    assert (job.program.name, job.program.line, job.program.user) == ("prj_linod", 4, "www-data")
    assert job.directory == Path("/srv/prj") and job.start.environment == "/srv/prj/env"
    assert not job.program.as_root


@pytest.mark.parametrize(
    "command",
    [
        "/srv/prj/env/bin/python /srv/prj/manage.py linod",
        "/srv/prj/env/bin/python -u manage.py linod --force",
        "sh -c 'exec /srv/prj/env/bin/python manage.py linod'",
        "/bin/bash -ec 'PRJ=/srv/prj; . $PRJ/env/bin/activate; exec python ${PRJ}/manage.py linod'",
        "bash -c 'cd /srv/prj && . env/bin/activate && A=1 python ./manage.py linod 2>&1'",
        "/srv/prj/manage.py linod",
    ],
)
def test_other_ways_to_the_same_are_followed(conf_dir, command):
    [job] = read(conf_dir, prj=f"[program:x]\ncommand={command}\ndirectory=/srv/prj\n").jobs
    assert job.directory == Path("/srv/prj")


@pytest.mark.parametrize(
    "command",
    [
        "/usr/bin/sleep 3",
        "python manage.py runserver",
        "bash -c 'python manage.py migrate'",
        "vi manage.py linod",
        "''",
    ],
)
def test_what_does_not_run_linod_is_no_job(conf_dir, command):
    found = read(conf_dir, prj=f"[program:x]\ncommand={command}\n")
    assert found.jobs == []


def test_what_supervisor_config_prints_is_a_job_by_the_name_of_its_site():
    start = understand("exec /usr/bin/python3 -I -X faulthandler -m linod.daemon my-prj", "/")
    assert start.site == "my-prj" and start.directory.endswith("/sites/my-prj")
    assert understand("exec python3 -m linod.daemon '../x'", "/") is None


@pytest.mark.parametrize(
    "line", ['cd "$(dirname "$0")"', "cd `dirname $0`", 'cd $(dirname "$(readlink -f "$0")")', 'cd "$(dirname ${0})"']
)
def test_a_script_knows_where_it_is(line):
    start = understand(f"{line}\nexec python manage.py linod", "/", "/srv/prj/linod.sh")
    assert start.directory == "/srv/prj"


def test_what_a_script_exports_is_kept_and_what_it_does_besides_is_told():
    start = understand(
        "A=1\nexport B=$A C='x y'\nrm -rf /tmp/x\numask 002\nD=4 exec python /p/manage.py linod", "/", None
    )
    assert dict(start.exported) == {"B": "1", "C": "x y", "D": "4"}
    assert start.strange == ("rm -rf /tmp/x",)


def test_expansions_and_comments_are_those_of_supervisor(conf_dir):
    text = """\
[program:prj]
command = bash -c "python /srv/%(program_name)s/manage.py linod" ; a comment
environment = A="1,2",B=%(program_name)s_%(process_num)02d,PATH="/x:/y"
"""
    [job] = read(conf_dir, prj=text).jobs
    assert job.directory == Path("/srv/prj")
    assert dict(job.program.environment) == {"A": "1,2", "B": "prj_00", "PATH": "/x:/y"}


def test_a_percent_sign_never_fills_the_memory():
    with pytest.raises(Unusable):
        expand("%(here)999999999s", {"here": "x"})
    assert expand("100%% of %(here)s", {"here": "x"}) == "100% of x"


# What is wrong with a file


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("command = x\n", 1, "no [section]"),
        ("[program:a]\ncommand = x\nno key here\n", 3, "cannot read this line"),
        ("[program:linod-a]\ncommand = bash -c 'python manage.py linod\n", 1, "quote that is not closed"),
        ("\n\n[program:linod-a]\ncommand = /nowhere/linod.sh\n", 3, "/nowhere/linod.sh, which cannot be read"),
        ("[program:linod-a]\ncommand = %(nothing)s\n", 1, "not known here"),
        ("[program:linod-a]\ncommand = python manage.py linod\nenvironment = A\n", 1, "environment"),
        ("[program:linod-a]\ncommand = su -c linod\n", 1, "in a way that is known here"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(conf_dir, text, line, words):
    (conf_dir / "a.conf").write_text(text)
    found = read_directory(conf_dir)
    assert found.jobs == []
    [trouble] = found.troubles
    assert (trouble.path, trouble.line) == (conf_dir / "a.conf", line)
    assert words in str(trouble)


def test_one_bad_file_hides_no_other(conf_dir):
    (conf_dir / "a.conf").write_bytes(b"\xff\xfe[\x00")
    os.mkfifo(conf_dir / "b.conf")
    (conf_dir / "c.conf").mkdir()
    (conf_dir / "d.conf").symlink_to("/nowhere")
    with (conf_dir / "e.conf").open("wb") as large:
        large.truncate(1 << 40)
    found = read(conf_dir, z="[program:z]\ncommand=python /srv/z/manage.py linod\n")
    assert [job.program.name for job in found.jobs] == ["z"]
    assert [trouble.path.name[0] for trouble in found.troubles] == list("abcde")


def test_a_missing_directory_is_told_in_words():
    with pytest.raises(LinodError, match="--conf-dir"):
        read_directory(Path("/nowhere"))


CHARACTERS = st.sampled_from("[]=:;#%()s$\"'\\ \t\n\r\0abprogram:linod.sh&|{}\u2028ä-_/")
TEXTS = st.text(st.one_of(CHARACTERS, st.characters(exclude_categories=["Cs"])), max_size=200)
LINES = st.lists(
    st.sampled_from(
        [
            *("[program:a]", "[program:b]", "[program:linod-c]", "[group:g]", "[DEFAULT]", " [x]", "[]", "; note", ""),
            *("command = python /srv/a/manage.py linod", "command=bash -c 'x", "environment=A=1,B", "user=x", "\tmore"),
            *("programs=a,b", "key", "key = %(x)s", "command: sh -c 'cd /a; exec python manage.py linod'", "=v"),
        ]
    ),
    max_size=12,
).map("\n".join)


@given(st.one_of(TEXTS, LINES))
def test_whatever_a_file_holds_is_read_or_told(text):
    found = Configuration()
    take_file(found, Path("/x/y.conf"), text)
    for job in found.jobs:
        assert os.path.isabs(job.directory)
    for trouble in found.troubles:
        assert str(trouble)


@given(TEXTS)
def test_whatever_a_script_holds_is_understood_or_not(text):
    understand(text, "/srv", "/srv/linod.sh")
    with contextlib.suppress(Unusable):
        pairs(text)


@given(LINES, st.sets(st.sampled_from(["a", "b", "linod-c"]), min_size=1))
def test_a_file_is_divided_without_loss_or_not_at_all(text, names):
    try:
        kept, removed = divide(text, sorted(names))
    except Unusable:
        return
    assert sorted(kept.replace("\n", "") + removed.replace("\n", "")) == sorted(text.replace("\n", ""))
    whole, rest = as_dict(parse(text)), as_dict(parse(kept))
    assert rest == {name: values for name, values in whole.items() if name.removeprefix("program:") not in names}


def test_lines_are_counted_as_an_editor_does():
    text = "; x\n[program:a]\ncommand = x\nuser=b\n[program:b]\n user : c\nusername = d\n"
    assert line_of(text, "program:b") == 5
    assert line_of(text, "program:a", "user") == 4
    assert line_of(text, "program:b", "username") == 7
    assert line_of(text, "program:c") == 0


# Putting aside


ONE = "[program:linod-a]\ncommand = x\n"
THREE = "; shared\n[program:web]\ncommand = w\n\n; ours\n[program:a]\ncommand = x\n[program:b]\ncommand = y\n"


def test_a_file_of_one_program_is_renamed_and_comes_back_as_it_was(conf_dir):
    path = conf_dir / "a.conf"
    path.write_text(ONE)
    before = path.stat()
    aside.put_aside(path, "linod-a")
    assert os.listdir(conf_dir) == ["a.conf.linod-aside"]
    aside.put_back(path, "linod-a")
    after = path.stat()
    assert os.listdir(conf_dir) == ["a.conf"] and path.read_text() == ONE
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("back", [("a", "b"), ("b", "a")])
def test_programs_of_one_file_go_and_come_one_by_one(conf_dir, back):
    path = conf_dir / "three.conf"
    path.write_text(THREE)
    path.chmod(0o640)
    for gone, left in (("a", ["web", "b"]), ("b", ["web"])):
        aside.put_aside(path, gone)
        assert programs_in(path.read_text()) == left
        assert aside.aside_of(path).read_text() == THREE
    assert path.stat().st_mode & 0o777 == 0o640
    aside.put_back(path, back[0])
    assert sorted(programs_in(path.read_text())) == sorted(["web", back[0]])
    aside.put_back(path, back[1])
    assert path.read_text() == THREE and os.listdir(conf_dir) == ["three.conf"]


def test_what_was_changed_meanwhile_stays_changed(conf_dir):
    path = conf_dir / "three.conf"
    path.write_text(THREE)
    aside.put_aside(path, "a")
    path.write_text("[program:web]\ncommand = new\n[program:b]\ncommand = y\n")
    aside.put_back(path, "a")
    values = as_dict(parse(path.read_text()))
    assert values["program:web"] == {"command": "new"} and values["program:a"] == {"command": "x"}
    assert os.listdir(conf_dir) == ["three.conf"]


def test_a_file_that_is_kept_of_something_else_is_not_overwritten(conf_dir):
    path = conf_dir / "three.conf"
    path.write_text(THREE)
    aside.aside_of(path).write_text(ONE)
    with pytest.raises(LinodError, match=r"of another three\.conf"):
        aside.put_aside(path, "a")
    assert path.read_text() == THREE and aside.aside_of(path).read_text() == ONE


def test_a_program_that_would_be_left_under_another_spelling_is_not_taken_out():
    with pytest.raises(Unusable, match="by hand"):
        divide("[program:a]\ncommand=x\n[program: a]\ncommand=x\n", ["a"])


def test_what_cannot_be_divided_stays_as_it_is(conf_dir):
    path = conf_dir / "odd.conf"
    text = "[DEFAULT]\nuser = x\n" + THREE
    path.write_text(text)
    with pytest.raises(LinodError, match="by hand"):
        aside.put_aside(path, "a")
    assert path.read_text() == text and os.listdir(conf_dir) == ["odd.conf"]


# The plan


def job(conf_dir, site, more="user = www-data\n", name="linod-prj"):
    (conf_dir / f"{name}.conf").write_text(f"[program:{name}]\ncommand=python {site}/manage.py linod\n{more}")


def test_the_site_is_called_as_its_directory_unless_that_is_taken(host, conf_dir):
    site = host.directory("prj")
    job(conf_dir, site)
    [move] = plan(conf_dir).moves
    assert (move.site.name, move.is_site, move.problems) == ("prj", False, ())
    (host.etc / "sites" / "prj").symlink_to(host.directory("other"))
    assert plan(conf_dir).moves[0].site.name == "srv-prj"
    (host.etc / "sites" / "mine").symlink_to(site)
    [move] = plan(conf_dir).moves
    assert (move.site.name, move.is_site) == ("mine", True)


@pytest.mark.parametrize(
    ("more", "user"),
    [
        ("user = nobody\n", "nobody"),
        ("username = nobody\n", "nobody"),
        ("user = root\nusername = nobody\n", "nobody"),
        ("", None),
    ],
)
def test_it_is_run_by_whom_the_job_means(host, conf_dir, more, user):
    site = host.directory("prj")
    job(conf_dir, site, more)
    [move] = plan(conf_dir).moves
    assert move.account.name == (user or ("www-data" if os.geteuid() == 0 else ME))
    assert move.job.program.as_root == ("user = nobody" not in more)


def test_what_stands_in_the_way_is_told(host, conf_dir):
    site = host.directory("prj")
    job(conf_dir, site)
    (conf_dir / "group.conf").write_text("[group:all]\nprograms = web, linod-prj\n")
    [move] = plan(conf_dir).moves
    assert "the group all" in move.problems[0]
    (conf_dir / "group.conf").unlink()
    job(conf_dir, site, name="second")
    assert all("runs the same site" in one.problems[0] for one in plan(conf_dir).moves)
    (conf_dir / "second.conf").unlink()
    (conf_dir.parent / "supervisord.conf").write_text("[include]\nfiles = conf.d/*\n")
    assert "Let it include *.conf only." in plan(conf_dir).moves[0].problems[0]
    (conf_dir.parent / "supervisord.conf").write_text("[include]\nfiles = conf.d/*.conf\n")
    (conf_dir / "linod-prj.conf.linod-aside").write_text("[program:linod-prj]\ncommand = another\n")
    problem = plan(conf_dir).moves[0].problems[0]
    assert "is kept of another linod-prj.conf. Look at it, and remove it: rm" in problem
    (conf_dir / "linod-prj.conf.linod-aside").unlink()
    (site / "manage.py").unlink()
    assert "no manage.py" in plan(conf_dir).moves[0].problems[0]
    job(conf_dir, host.directory("prj"), "user = nobody-at-all\n")
    assert "no user 'nobody-at-all'" in plan(conf_dir).moves[0].problems[0]


def test_an_interpreter_elsewhere_and_variables_are_written_down(host, conf_dir):
    site = host.directory("prj")
    for environment in (site / "env", host.path / "elsewhere"):
        (environment / "bin").mkdir(parents=True)
        (environment / "bin/python").symlink_to("/usr/bin/python3")
    text = f"[program:linod-prj]\ncommand={host.path}/elsewhere/bin/python {site}/manage.py linod\n"
    (conf_dir / "a.conf").write_text(text + 'environment=A="1",DJANGO_SETTINGS_MODULE="p.s",HOME="/x"\n')
    [move] = plan(conf_dir).moves
    assert move.given.python == f"{host.path}/elsewhere/bin/python"
    assert (move.given.settings, dict(move.given.variables)) == ("p.s", {"A": "1"})
    (conf_dir / "a.conf").write_text(f"[program:linod-prj]\ncommand={site}/env/bin/python {site}/manage.py linod\n")
    assert plan(conf_dir).moves[0].given.python is None


def test_what_was_moved_is_known_again(host, conf_dir):
    site = host.directory("prj")
    job(conf_dir, site)
    aside.put_aside(conf_dir / "linod-prj.conf", "linod-prj")
    found = plan(conf_dir)
    assert found.moves == [] and found.moved[0].name == "linod-prj" and found.moved[0].site is None
    (host.etc / "sites" / "mine").symlink_to(site)
    assert plan(conf_dir).moved[0].site == HostSite(name="mine")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_a_variable_survives_the_environment_file(value):
    assert dict(parse_environment(f"A={quoted(value)}\n")) == {"A": value}


# Processes


@pytest.mark.parametrize("words", [["manage.py"], ["{site}/manage.py"], ["-u", "./manage.py"]])
def test_a_process_is_found_by_its_manage_py_wherever_it_works(tmp_path, words):
    site = tmp_path / "prj"
    site.mkdir()
    (site / "manage.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    command = ["/usr/bin/python3", *(word.format(site=site) for word in words), "linod"]
    where = "/" if "{site}" in words[0] else site
    process = subprocess.Popen(command, cwd=where, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        assert leftovers.find(site) == [process.pid]
        assert leftovers.find(tmp_path) == []
        assert leftovers.end_all(site, []) == [process.pid]
        assert process.wait(10) == -15
        assert leftovers.find(site) == []
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_one_that_ignores_term_is_killed_with_what_is_below_it(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "TERM_PATIENCE", 0.2)
    monkeypatch.setattr(leftovers, "KILL_PATIENCE", 5.0)
    (tmp_path / "manage.py").write_text(
        "import signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        ["/usr/bin/python3", "manage.py", "linod"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        child = int(process.stdout.readline())
        monkeypatch.setattr(leftovers, "KILL_PATIENCE", 1.0)
        leftovers.end_all(tmp_path, [])
        assert process.wait(10) == -9
        deadline = time.monotonic() + 10
        while Path(f"/proc/{child}").exists() and b"\tZ" not in Path(f"/proc/{child}/status").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# Looking for sites


def test_what_root_owns_is_looked_for_in_sites_only(conf_dir):
    """A job without a directory has the root of all as its own."""
    (conf_dir / "linod.conf").write_text("[program:linod]\ncommand=python manage.py linod\nuser=www-data\n")
    [move] = plan(conf_dir).moves
    assert move.job.directory == Path("/") and not move.owned
    assert "There is no manage.py in /." in move.problems


def test_directories_with_a_manage_py_are_shown_with_their_names(host, capsys):
    for name in ("alpha", "beta"):
        host.directory(name)
    (host.path / "srv" / "no-site").mkdir()
    (host.path / "srv" / "again").symlink_to(host.path / "srv" / "beta")
    host.add("known")
    code, out, err = host.call(capsys, "add", "--scan", host.path / "srv", "--json")
    assert code == 0, err
    found = {one["site"]: one for one in json.loads(out)}
    assert list(found) == ["again", "alpha"] or list(found) == ["alpha", "beta"]
    owner = pwd.getpwuid(os.geteuid()).pw_name
    assert found["alpha"]["user"] == ("www-data" if owner == "root" else owner)
    assert not found["alpha"]["added"] and found["alpha"]["uses_linod"] is None


def test_sites_of_which_none_uses_linod_can_be_added_all_the_same(host, capsys):
    for name in ("alpha", "beta"):
        host.directory(name)
    code, out, _ = host.call(capsys, "add", "--scan", host.path / "srv")
    assert code == 0 and "\nAdd one of them all the same:\n  linodctl add " in out


def test_a_name_is_proposed_that_is_free():
    assert propose_name(Path("/srv/prj"), set()) == "prj"
    assert propose_name(Path("/srv/prj"), {"prj"}) == "srv-prj"
    assert propose_name(Path("/srv/prj"), {"prj", "srv-prj"}) == "prj-2"
    assert propose_name(Path("/"), set()) == "site"


@given(st.text())
def test_a_proposed_name_can_be_a_name(text):
    name = usable(text)
    assert name == "" or NAME.fullmatch(name)


def test_a_host_without_sites_to_add_says_so(host, capsys):
    code, out, _ = host.call(capsys, "add", "--scan", host.path / "srv")
    assert code == 0 and out.startswith("No directory with a manage.py")
    code, _, err = host.call(capsys, "add", "--scan", host.path / "nowhere")
    assert code == 2 and "There is no directory" in err


@pytest.mark.parametrize("words", [["add"], ["add", "one"], ["add", "a", "b", "c"], ["add", "a", "b", "--apply"]])
def test_add_wants_a_name_and_a_directory(host, capsys, words):
    code, _, err = host.call(capsys, *words)
    assert code == 2 and "Give the name of the site and its directory." in err


# For those who stay


def test_supervisor_reads_back_what_supervisor_config_prints(host, capsys):
    site = host.add("prj")
    site.environment.write_text("A='x, y'\nB=100%\nC='say \"hi\" to'\n")
    code, out, err = host.call(capsys, "supervisor-config", "prj", "--json", "--conf-dir", "/x")
    assert code == 0, err
    files = json.loads(out)["files"]
    job = parse(files["/x/linod-prj.conf"])["program:linod-prj"]
    assert job["user"] == host.user and job["umask"] == "002" and job["stopsignal"] == "TERM"
    assert int(job["stopwaitsecs"]) >= 90
    environment = pairs(expand(job["environment"], {}))
    assert (environment["A"], environment["B"], environment["C"]) == ("x, y", "100%", 'say "hi" to')
    script = files[str(host.path / "srv/prj/linod.sh")]
    assert understand(script, "/").site == "prj"
    assert job["command"].endswith("/srv/prj/linod.sh")


def test_a_stop_has_time_for_the_longest_grace(host):
    site = host.add("prj")
    site.overrides.write_text("drain_timeout = 200\n")
    assert staying.patience_of(site) == 240


def test_a_value_that_supervisor_cannot_have_is_refused(host, capsys):
    host.add("prj").environment.write_text('A="\'\\""\n')
    code, _, err = host.call(capsys, "supervisor-config", "prj")
    assert code == 78 and "The value of A" in err
