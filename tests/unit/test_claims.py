"""Each claim of a page has a test, and no test proves what no page claims."""

from collections import Counter

from tests.support.claims import ROOT, claimed, proven

PAGE = """
# A page

* `S1` One thing is claimed,
  in several lines.
* `S2` So is another.
* `linod` is a word, and no claim; nor is `S3` here.
"""
TESTS = """
import pytest

@pytest.mark.slow
@pytest.mark.claim("S1", "S2")
def test_both():
    pass

class TestMore:
    @pytest.mark.claim("S2")
    def test_one(self):
        pass

    @pytest.mark.claim("S4")
    def helper(self):
        pass
"""


def test_each_claim_has_a_test():
    marked = proven(ROOT / "tests")
    assert not [f"{page}: {number}" for number, page in claimed(ROOT / "docs") if number not in marked]


def test_each_test_proves_what_a_page_claims():
    numbers = {number for number, _page in claimed(ROOT / "docs")}
    assert not {number: tests for number, tests in proven(ROOT / "tests").items() if number not in numbers}


def test_no_number_stands_for_two_claims():
    times = Counter(number for number, _page in claimed(ROOT / "docs"))
    assert not [number for number, how_often in times.items() if how_often > 1]


def test_claims_and_marks_are_found(tmp_path):
    (tmp_path / "page.md").write_text(PAGE)
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit/test_some.py").write_text(TESTS)
    assert claimed(tmp_path) == [("S1", "page.md"), ("S2", "page.md")]
    assert proven(tmp_path) == {
        "S1": ["unit/test_some.py::test_both"],
        "S2": ["unit/test_some.py::test_both", "unit/test_some.py::test_one"],
    }
