"""A short storm: whatever goes wrong, each due time is accounted for, and no run is lost, doubled or misreported."""

import os
from datetime import timedelta
from random import SystemRandom

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.storm import Storm


@pytest.mark.claim("P1", "P4", "P5", "P6", "P7", "P13", "P14", "P20")
def test_a_storm_breaks_no_promise(tmp_path):
    seed = os.environ.get("SEED") or str(SystemRandom().randrange(10**6))
    print(f"SEED={seed}")
    assert Storm(tmp_path, seed, FAULTS).rage(60, soon=timedelta(seconds=20)) == []
