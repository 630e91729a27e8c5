"""A killed run of DINO ends like an uninterrupted one: two kills here, many with ``make chaos``."""

import pytest

from tests.faults.dino_kills import kill_dino


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_killed_run_equals_a_quiet_one(root, sharding):
    result = kill_dino(root, sharding, kills=2, updates=12, seed=1)
    assert result["sent"] == 2 and result["passed"], result
