"""Patch masks against the distribution of the released processors, and token masks of hand-made sequences."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from mmf_flava.data.masking import block_mask, mask_tokens

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
block_masks = runpy.run_path(str(BENCHMARKS / "patch_masks.py"))["block_masks"]

CLS, SEP, MASK, PAD = 1, 2, 3, 0


@pytest.fixture(scope="module", params=["single", "vectorised"])
def masks(request):
    rng = np.random.default_rng(0)
    if request.param == "vectorised":
        return block_masks(rng, 8000)
    return np.stack([block_mask(rng) for _ in range(8000)])


def test_distribution_equals_the_released_one(masks):
    counts = masks.sum(1)
    assert masks.shape == (8000, 196)
    assert masks.dtype == bool
    assert abs(counts.mean() - 74.47) < 0.1
    assert counts.max() == 75
    assert abs((counts == 75).mean() - 0.666) < 0.03
    assert np.percentile(counts, 5) == 72
    assert counts.min() >= 60


def test_central_patches_are_masked_more_often(masks):
    rate = masks.mean(0).reshape(14, 14)
    assert abs(rate[[0, 0, -1, -1], [0, -1, 0, -1]].mean() - 0.04) < 0.01
    assert abs(rate[0, 6:8].mean() - 0.19) < 0.03
    assert abs(rate[6:8, 6:8].mean() - 0.72) < 0.03


def test_exact_masks_have_exactly_the_target():
    rng = np.random.default_rng(1)
    assert {int(block_mask(rng, exact=True).sum()) for _ in range(300)} == {75}
    assert {int(block_mask(rng, (4, 4), 6, 4, exact=True).sum()) for _ in range(300)} == {6}


def test_vectorised_masks():
    rng = np.random.default_rng(1)
    assert set(block_masks(rng, 300, exact=True).sum(1)) == {75}
    small = block_masks(rng, 500, (3, 5), 5, 2)
    assert small.shape == (500, 15) and small.sum(1).max() <= 5 and small.sum(1).mean() > 4.5
    assert block_masks(rng, 0).shape == (0, 196)
    assert block_masks(rng, 100, max_block=20).sum(1).max() <= 75
    assert (block_masks(np.random.default_rng(5), 9) == block_masks(np.random.default_rng(5), 9)).all()
    with pytest.raises(ValueError, match="17 of 16"):
        block_masks(rng, 2, (4, 4), 17)


@pytest.mark.parametrize(
    ("grid", "target", "min_block", "mean"), [((4, 4), 6, 4, 5.9), ((6, 6), 14, 4, 13.8), ((3, 5), 5, 2, 4.5)]
)
def test_masks_of_small_grids(grid, target, min_block, mean):
    rng = np.random.default_rng(2)
    counts = np.array([block_mask(rng, grid, target, min_block).sum() for _ in range(500)])
    assert counts.max() <= target
    assert counts.min() >= 1
    assert counts.mean() > mean


def test_equal_generators_give_equal_masks():
    assert (block_mask(np.random.default_rng(5)) == block_mask(np.random.default_rng(5))).all()


def test_target_above_the_number_of_patches_raises():
    with pytest.raises(ValueError, match=r"target must be in 1\.\.16, .* got 17"):
        block_mask(np.random.default_rng(0), (4, 4), 17)


def mask(ids, starts=None, probability=0.15, seed=0):
    ids = np.array(ids)
    maskable = ids >= 10
    starts = None if starts is None else np.array(starts, dtype=bool)
    rng = np.random.default_rng(seed)
    return mask_tokens(rng, ids, maskable, starts, probability, mask_id=MASK, vocab_size=1000)


def test_fractions_of_masked_random_and_unchanged_tokens():
    ids = np.arange(10, 100_010)
    masked, labels = mask_tokens(
        np.random.default_rng(0), ids, np.ones(len(ids), bool), None, 0.15, mask_id=MASK, vocab_size=10**9
    )
    selected = labels != -1
    assert abs(selected.mean() - 0.15) < 0.005
    assert (labels[selected] == ids[selected]).all()
    assert (masked[~selected] == ids[~selected]).all()
    assert abs((masked[selected] == MASK).mean() - 0.8) < 0.02
    assert abs((masked[selected] == ids[selected]).mean() - 0.1) < 0.015


@pytest.mark.parametrize("whole_word", [False, True])
def test_all_selected_tokens_become_mask(whole_word):
    ids = np.arange(10, 20_010)
    starts = np.arange(len(ids)) % 3 == 0 if whole_word else None
    maskable = np.ones(len(ids), bool)
    results = [
        mask_tokens(np.random.default_rng(0), ids, maskable, starts, 0.15, mask_id=MASK, vocab_size=10**9, replace=mode)
        for mode in ("bert", "mask")
    ]
    (bert, labels), (masked, same) = results
    assert (labels == same).all(), "the selected tokens do not depend on the replacement"
    selected = labels != -1
    assert abs(selected.mean() - 0.15) < 0.01
    assert (masked[selected] == MASK).all() and (masked[~selected] == ids[~selected]).all()
    random = (bert[selected] != MASK) & (bert[selected] != ids[selected])
    assert abs((bert[selected] == MASK).mean() - 0.8) < 0.03 and abs(random.mean() - 0.1) < 0.02


def test_all_tokens_of_a_word_are_selected():
    ids = [CLS, *range(10, 30), SEP]
    starts = [1, *[1, 0] * 10, 1]  # ten words of two tokens
    sizes = set()
    for seed in range(50):
        _, labels = mask(ids, starts, 0.3, seed)
        selected = labels[1:-1].reshape(10, 2) != -1
        assert (selected[:, 0] == selected[:, 1]).all()
        sizes.add(int(selected.sum()))
    assert sizes == {6}, "30 % of 20 tokens"


def test_replacement_is_sampled_for_each_token_of_a_word():
    ids = list(range(10, 14))
    patterns = {tuple(mask(ids, [1, 0, 0, 0], 0.5, seed)[0] == MASK) for seed in range(200)}
    assert len(patterns) > 4


def test_special_tokens_are_not_masked_and_at_least_one_token_is():
    ids = [CLS, 10, SEP, PAD]
    for starts in (None, [1, 1, 1, 1]):
        for seed in range(50):
            masked, labels = mask(ids, starts, 0.01, seed)
            assert labels.tolist() == [-1, 10, -1, -1]
            assert masked[[0, 2, 3]].tolist() == [CLS, SEP, PAD]


def test_single_long_word_is_masked_completely():
    _, labels = mask([CLS, 10, 11, 12, 13, SEP], [1, 1, 0, 0, 0, 1], 0.15)
    assert labels.tolist() == [-1, 10, 11, 12, 13, -1]


def test_sequence_without_maskable_tokens_is_unchanged():
    masked, labels = mask([CLS, SEP])
    assert masked.tolist() == [CLS, SEP]
    assert labels.tolist() == [-1, -1]


def test_input_is_not_modified():
    ids = np.arange(10, 60)
    mask(ids, None, 0.9)
    assert (ids == np.arange(10, 60)).all()
