"""Faults of calls in a save: some calls of each situation here, all with ``make chaos``."""

import pytest
import torch

from tests.faults.save_faults import FAULTS, KILL, SITUATIONS, inject_all


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_failed_call_leaves_the_best_and_the_newest_checkpoint(name):
    start = list(SITUATIONS).index(name)
    faults = [FAULTS[start % 4], FAULTS[(start + 1) % 4]]
    counts = inject_all(name, faults, step=41, start=start)
    assert counts.keys() <= {"faults", "saved", "refused"} and counts["refused"] > 0, counts


@pytest.mark.parametrize("name", ["best is older", "best repeated again"])
def test_a_kill_leaves_the_best_and_the_newest_checkpoint(name):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads
    counts = inject_all(name, [KILL], step=29)
    torch.set_num_threads(threads)
    assert counts.keys() == {"faults", "killed"}, counts
