"""A short storm: whatever goes wrong, each due time is accounted for, and no run is lost, doubled or misreported.

It has the same tasks and faults each time, so that a change is judged by what it changes; `make chaos` looks for more.
"""

import os
from datetime import timedelta

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.storm import Storm

SEED = "4711"


@pytest.mark.claim("P1", "P4", "P5", "P6", "P7", "P13", "P14", "P20")
def test_a_storm_breaks_no_promise(tmp_path):
    seed = os.environ.get("SEED") or SEED
    print(f"SEED={seed}")
    assert Storm(tmp_path, seed, FAULTS).rage(60, soon=timedelta(seconds=20)) == []
