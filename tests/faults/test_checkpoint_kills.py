"""Killed saves and corrupt files: a few here, many with ``make chaos``."""

import torch

from tests.faults.chaos import corruptions, kills


def test_kill_at_any_time_leaves_a_valid_checkpoint(tmp_path):
    threads = torch.get_num_threads()
    counts = kills(tmp_path, 8, seed=1)
    torch.set_num_threads(threads)
    assert counts["loadable"] == counts["valid pointers"] == 8
    assert counts["while writing"] > 0


def test_corruption_is_detected_and_the_previous_checkpoint_is_used(tmp_path):
    counts = corruptions(tmp_path, 20, seed=1)
    assert counts == {"detected": 20, "previous used": 16, "latest": 4}
