"""Who may import whom: a folder is a process, and what runs without Django must load without it."""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINOD = ROOT / "linod"
NEED_DJANGO = (
    "site/",
    "command/",
    "web/",
    "management/",
    "apps.py",
    "checks.py",
    "signals.py",
    "testing.py",
    "__main__.py",
)
WITHOUT_DJANGO = sorted(
    path
    for path in LINOD.rglob("*.py")
    if not str(path.relative_to(LINOD)).startswith(NEED_DJANGO) and path.name != "__main__.py"
)
IMPORT_WITHOUT_DJANGO = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "django":
            raise ModuleNotFoundError(f"no module named {name}", name=name)

sys.meta_path.insert(0, Refuse())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
LOADED_BY_THE_DAEMON = """
import json, sys
import linod.daemon.main
print(json.dumps(sorted(sys.modules)))
"""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports(path: Path) -> set[str]:
    """The absolute names of all that a file imports, also inside functions, but not for type checkers alone."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    tree = ast.parse(path.read_text())
    for_types_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parent = ".".join([*base, *(node.module.split(".") if node.module else [])])
            found |= {parent} | {f"{parent}.{alias.name}" for alias in node.names}
    return found


def importers(module: str, where: Path = LINOD) -> set[str]:
    """The files that import a module or something in it."""
    return {
        str(path.relative_to(LINOD))
        for path in where.rglob("*.py")
        if any(name == module or name.startswith(f"{module}.") for name in imports(path))
    }


def test_all_but_the_files_for_the_site_import_with_django_absent() -> None:
    assert len(WITHOUT_DJANGO) > 30
    names = [module_name(path) for path in WITHOUT_DJANGO]
    subprocess.run([sys.executable, "-c", IMPORT_WITHOUT_DJANGO, *names], cwd=ROOT, check=True, timeout=20)


@pytest.mark.claim("S32")
@pytest.mark.parametrize(("one", "other"), [("daemon", "site"), ("site", "daemon"), ("daemon", "command")])
def test_the_folders_of_two_processes_do_not_import_each_other(one: str, other: str) -> None:
    assert not importers(f"linod.{other}", LINOD / one)


def test_the_values_at_the_top_import_neither_daemon_nor_site() -> None:
    for path in WITHOUT_DJANGO:
        if path.parent in (LINOD, LINOD / "schedules"):
            assert not {name for name in imports(path) if is_below(name, "daemon") or is_below(name, "site")}, path


def is_below(name: str, folder: str) -> bool:
    return f"{name}.".startswith(f"linod.{folder}.")


@pytest.mark.claim("S32")
def test_no_file_of_the_daemon_imports_django() -> None:
    assert not importers("django", LINOD / "daemon")


def test_the_schedule_package_is_known_to_schedules_and_to_who_takes_jobs_over() -> None:
    assert importers("schedule") <= {"site/load.py", "schedules/grammar.py"}
    assert not importers("schedule", LINOD / "daemon")


def test_only_notify_imports_sdnotify() -> None:
    assert importers("sdnotify") == {"daemon/notify.py"}


def test_only_the_alert_reads_the_journal_with_the_library_of_systemd() -> None:
    """Its way to write there waits for the journal, which the daemon must not; see daemon/sender.py."""
    assert importers("systemd") == {"alert/gather.py"}


def test_only_schedules_import_croniter() -> None:
    assert importers("croniter") == {"schedules/cron.py"}


def test_only_the_clock_tells_the_daemon_what_time_it_is() -> None:
    """lock.py sleeps between two tries, before there is a loop, and the thread of history.py between two batches."""
    asking = set()
    for path in (LINOD / "daemon").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id == "time":
                    asking.add((path.name, node.attr))
                if node.value.id == "datetime" and node.attr in ("now", "utcnow", "today"):
                    asking.add((path.name, node.attr))
    assert {file for file, _ in asking - {("lock.py", "sleep"), ("history.py", "sleep")}} == {"clock.py"}


@pytest.mark.claim("S32")
def test_the_daemon_loads_little() -> None:
    """It is to stay small, on every host and for every site."""
    found = subprocess.run(
        [sys.executable, "-c", LOADED_BY_THE_DAEMON], cwd=ROOT, check=True, timeout=20, capture_output=True, text=True
    )
    modules = set(json.loads(found.stdout))
    assert not modules & {"django", "asyncio", "ssl", "hashlib", "schedule", "croniter", "subprocess", "email", "http"}
    assert not modules & {"multiprocessing", "concurrent", "argparse", "difflib", "tomllib", "random", "decimal", "pdb"}
    assert len(modules) < 210
