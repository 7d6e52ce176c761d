"""What a task writes and logs: caught whole, in order, with level and logger, however odd it is."""

from tests.support.site import Site

CONSOLE = """
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"app": {"handlers": ["console"], "level": "DEBUG"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
"""


def output_of(path, body, settings=""):
    """The first run of a task with this body, and what the daemon showed of it."""
    body = "\n".join(f"    {line}" for line in body.strip().splitlines())
    head = "import linod, logging, os, subprocess, sys\n\n@linod.task(every=1)\ndef speak():\n"
    site = Site(path, tasks=head + body + "\n", settings=settings)
    with site.daemon() as daemon:
        run = site.wait_for_runs("speak")[0]
        daemon.wait_for("speak succeeded")
        assert daemon.terminate() == 0
    shown = [line[9:] for line in daemon.output().splitlines()]
    return run, shown


def test_prints_and_records_keep_their_order(tmp_path):
    body = """
log = logging.getLogger("app.mail")
print("one")
log.warning("two %s", 2)
print("three", flush=True)
print("", file=sys.stderr)
print("four")
log.error("five")
subprocess.run(["echo", "six"])
os.system("echo seven >&2")
log.debug("nothing")
log.info("eight")
"""
    run, shown = output_of(tmp_path, body)
    lines = run.output.splitlines()
    assert [line for line in lines if line] == [
        "one",
        "WARNING app.mail: two 2",
        "three",
        "four",
        "ERROR app.mail: five",
        "six",
        "seven",
        "INFO app.mail: eight",
    ]
    assert "speak: two 2" in shown


def test_no_record_comes_twice_with_a_console_handler(tmp_path):
    body = """
logging.getLogger("app").debug("fine")
logging.getLogger("other").info("plain")
logging.getLogger("other").debug("hidden")
"""
    run, _shown = output_of(tmp_path, body, CONSOLE)
    assert run.output == "DEBUG app: fine\nINFO other: plain"


def test_the_traceback_of_a_record_is_kept(tmp_path):
    body = """
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("app").exception("dear me")
"""
    run, _shown = output_of(tmp_path, body)
    assert run.output.startswith("ERROR app: dear me\nTraceback (most recent call last):\n")
    assert run.output.endswith("ZeroDivisionError: division by zero")


def test_rubbish_is_shown_as_well_as_can_be(tmp_path):
    body = r"""
os.write(1, b"nul \x00 byte\n")
os.write(1, b"not utf-8: \xff\xfe\n")
os.write(1, b"\x1e{not json\n")
os.write(1, b'\x1e[1, 2]\n')
os.write(1, b'\x1e{"message": 1}\n')
os.write(1, b'\x1e{"message": "x", "level": "high", "logger": 1, "file": 1, "line": 1, "function": 1}\n')
os.write(1, b"a \x1b[31mred\x1b[0m word\r\n")
os.write(1, b"x" * 50_000 + b"\n")
os.write(1, "snowman \u2603 surrogate \ud800\n".encode("utf-8", "surrogatepass"))
print("\ud800 cannot be encoded".encode("utf-8", "backslashreplace").decode())
logging.getLogger("odd\x1e").error("record \x1e with \x00 marks \ud800")
os.write(1, b"no end")
"""
    run, shown = output_of(tmp_path, body)
    lines = run.output.splitlines()
    assert "nul \N{SYMBOL FOR NULL} byte" in lines
    assert "not utf-8: \ufffd\ufffd" in lines
    assert any("{not json" in line for line in lines)
    assert any(line.startswith("a ") and "red" in line for line in lines)
    assert "x" * 50_000 in lines
    assert lines[-1] == "no end"
    assert all(len(line) < 10_000 for line in shown)


def test_lines_with_a_priority_have_that_level(tmp_path):
    run, shown = output_of(tmp_path, 'print("<3>trouble")')
    assert "trouble" in run.output
    assert "speak: trouble" in shown
