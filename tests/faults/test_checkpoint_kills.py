"""Savers that are killed, bytes that flip: a few here, many with ``make chaos``."""

import torch

from tests.faults.chaos import damages, kills


def test_a_kill_at_any_moment_leaves_the_last_checkpoint(tmp_path):
    threads = torch.get_num_threads()
    counts = kills(tmp_path, 8, seed=1)
    torch.set_num_threads(threads)
    assert counts["loadable"] == counts["whole latest"] == 8
    assert counts["in the midst"] > 0


def test_a_flipped_bit_or_a_cut_file_is_found_and_the_checkpoint_before_is_used(tmp_path):
    counts = damages(tmp_path, 20, seed=1)
    assert counts == {"detected": 20, "previous used": 16, "latest": 4}
