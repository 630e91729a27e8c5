"""Masks against the distribution measured on the released processors, and against hand-made token rows."""

import numpy as np
import pytest

from mmf_flava.data.masking import block_mask, block_masks, mask_tokens

CLS, SEP, MASK, PAD = 1, 2, 3, 0


@pytest.fixture(scope="module", params=["one by one", "at once"])
def masks(request):
    rng = np.random.default_rng(0)
    if request.param == "at once":
        return block_masks(rng, 8000)
    return np.stack([block_mask(rng) for _ in range(8000)])


def test_the_released_distribution(masks):
    counts = masks.sum(1)
    assert masks.shape == (8000, 196)
    assert masks.dtype == bool
    assert abs(counts.mean() - 74.47) < 0.1
    assert counts.max() == 75
    assert abs((counts == 75).mean() - 0.666) < 0.03
    assert np.percentile(counts, 5) == 72
    assert counts.min() >= 60


def test_the_centre_is_favoured(masks):
    rate = masks.mean(0).reshape(14, 14)
    assert abs(rate[[0, 0, -1, -1], [0, -1, 0, -1]].mean() - 0.04) < 0.01
    assert abs(rate[0, 6:8].mean() - 0.19) < 0.03
    assert abs(rate[6:8, 6:8].mean() - 0.72) < 0.03


def test_exact_masks_have_exactly_the_target():
    rng = np.random.default_rng(1)
    assert {int(block_mask(rng, exact=True).sum()) for _ in range(300)} == {75}
    assert {int(block_mask(rng, (4, 4), 6, 4, exact=True).sum()) for _ in range(300)} == {6}


def test_masks_of_a_batch():
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
def test_tiny_grids(grid, target, min_block, mean):
    rng = np.random.default_rng(2)
    counts = np.array([block_mask(rng, grid, target, min_block).sum() for _ in range(500)])
    assert counts.max() <= target
    assert counts.min() >= 1
    assert counts.mean() > mean


def test_the_same_generator_gives_the_same_mask():
    assert (block_mask(np.random.default_rng(5)) == block_mask(np.random.default_rng(5))).all()


def test_more_patches_than_there_are():
    with pytest.raises(ValueError, match="17 of 16"):
        block_mask(np.random.default_rng(0), (4, 4), 17)


def mask(ids, starts=None, probability=0.15, seed=0):
    ids = np.array(ids)
    maskable = ids >= 10
    starts = None if starts is None else np.array(starts, dtype=bool)
    rng = np.random.default_rng(seed)
    return mask_tokens(rng, ids, maskable, starts, probability, mask_id=MASK, vocab_size=1000)


def test_rates():
    ids = np.arange(10, 100_010)
    masked, labels = mask_tokens(
        np.random.default_rng(0), ids, np.ones(len(ids), bool), None, 0.15, mask_id=MASK, vocab_size=10**9
    )
    chosen = labels != -1
    assert abs(chosen.mean() - 0.15) < 0.005
    assert (labels[chosen] == ids[chosen]).all()
    assert (masked[~chosen] == ids[~chosen]).all()
    assert abs((masked[chosen] == MASK).mean() - 0.8) < 0.02
    assert abs((masked[chosen] == ids[chosen]).mean() - 0.1) < 0.015


@pytest.mark.parametrize("whole_word", [False, True])
def test_all_chosen_tokens_become_mask(whole_word):
    ids = np.arange(10, 20_010)
    starts = np.arange(len(ids)) % 3 == 0 if whole_word else None
    every = np.ones(len(ids), bool)
    found = [
        mask_tokens(np.random.default_rng(0), ids, every, starts, 0.15, mask_id=MASK, vocab_size=10**9, replace=way)
        for way in ("bert", "mask")
    ]
    (bert, labels), (masked, same) = found
    assert (labels == same).all(), "what is chosen does not depend on what it becomes"
    chosen = labels != -1
    assert abs(chosen.mean() - 0.15) < 0.01
    assert (masked[chosen] == MASK).all() and (masked[~chosen] == ids[~chosen]).all()
    random = (bert[chosen] != MASK) & (bert[chosen] != ids[chosen])
    assert abs((bert[chosen] == MASK).mean() - 0.8) < 0.03 and abs(random.mean() - 0.1) < 0.02


def test_whole_words_go_together():
    ids = [CLS, *range(10, 30), SEP]
    starts = [1, *[1, 0] * 10, 1]  # ten words of two tokens
    sizes = set()
    for seed in range(50):
        _, labels = mask(ids, starts, 0.3, seed)
        chosen = labels[1:-1].reshape(10, 2) != -1
        assert (chosen[:, 0] == chosen[:, 1]).all()
        sizes.add(int(chosen.sum()))
    assert sizes == {6}, "30 % of 20 tokens"


def test_each_token_of_a_word_draws_its_own_fate():
    ids = list(range(10, 14))
    patterns = {tuple(mask(ids, [1, 0, 0, 0], 0.5, seed)[0] == MASK) for seed in range(200)}
    assert len(patterns) > 4


def test_specials_are_never_masked_and_one_token_always_is():
    ids = [CLS, 10, SEP, PAD]
    for starts in (None, [1, 1, 1, 1]):
        for seed in range(50):
            masked, labels = mask(ids, starts, 0.01, seed)
            assert labels.tolist() == [-1, 10, -1, -1]
            assert masked[[0, 2, 3]].tolist() == [CLS, SEP, PAD]


def test_one_long_word_is_masked_whole():
    _, labels = mask([CLS, 10, 11, 12, 13, SEP], [1, 1, 0, 0, 0, 1], 0.15)
    assert labels.tolist() == [-1, 10, 11, 12, 13, -1]


def test_nothing_to_mask():
    masked, labels = mask([CLS, SEP])
    assert masked.tolist() == [CLS, SEP]
    assert labels.tolist() == [-1, -1]


def test_the_input_is_left_alone():
    ids = np.arange(10, 60)
    mask(ids, None, 0.9)
    assert (ids == np.arange(10, 60)).all()
