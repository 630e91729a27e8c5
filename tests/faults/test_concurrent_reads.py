"""Reads of a run folder during saves: a few here, many with ``make chaos``."""

import pytest
import torch

from tests.faults.concurrent_reads import count_errors


@pytest.mark.parametrize("background", [False, True])
def test_reads_during_saves_get_one_complete_checkpoint(tmp_path, background):
    threads = torch.get_num_threads()
    counts = count_errors(tmp_path, 30, background)
    torch.set_num_threads(threads)
    assert counts.pop("checkpoints") > 5
    assert counts == {"whole": 30}
