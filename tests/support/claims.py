"""What the pages of docs/ claim, and which tests prove it.

A claim is an item of a list that begins with its number in backticks:

    * `S3` No escape sequence of a task reaches the terminal of who types linodctl.

A test that proves it says so, also for several: @pytest.mark.claim("S3"). The marks are read and not imported, so that
those of all tests are known wherever one of them is run.
"""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLAIM = re.compile(r"^\s*[*-] `([A-Z]+\d+)` ", flags=re.MULTILINE)


def claimed(pages: Path) -> list[tuple[str, str]]:
    """The number of each claim, with the name of its page."""
    return [(number, page.name) for page in sorted(pages.glob("*.md")) for number in CLAIM.findall(page.read_text())]


def proven(tests: Path) -> dict[str, list[str]]:
    """The tests that prove each claim, by its number."""
    found = defaultdict(list)
    for path in sorted(tests.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for number in numbers(node):
                    found[number].append(f"{path.relative_to(tests)}::{node.name}")
    return dict(found)


def numbers(test: ast.FunctionDef) -> list[str]:
    """What the marks of a test name."""
    marks = [mark for mark in test.decorator_list if ast.unparse(mark).startswith("pytest.mark.claim(")]
    return [ast.literal_eval(number) for mark in marks if isinstance(mark, ast.Call) for number in mark.args]
