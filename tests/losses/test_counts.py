"""Numbers of values that the losses are means over, on batches that can be counted by hand."""

import pytest
import torch
from omegaconf import OmegaConf

from mmf_flava.config.model import LOSSES, LossConfig, check_mean_over
from mmf_flava.errors import UserError
from mmf_flava.losses.counts import LossCounts
from mmf_flava.models.pretraining import FlavaPretraining
from tests.models.conftest import pairs, sample_list, tiny

__all__ = ["pairs", "tiny"]  # fixtures


def test_counts_of_three_pairs_of_which_two_match(tiny, pairs):
    """Masked in matching pairs are 2 + 1 patches and 1 + 1 tokens."""
    tiny.losses = [LossConfig(name) for name in LOSSES]
    model = FlavaPretraining(OmegaConf.structured(tiny))
    model.build()
    model.init_losses()
    counts = LossCounts.count(model, pairs)
    assert {name: counts.of(f"train/pmd/flava_{name}") for name in ("itm", "global_contrastive")} == {
        "itm": 3,
        "global_contrastive": 2,
    }
    assert [counts.of(f"val/pmd/flava_mmm_{part}") for part in ("image", "text")] == [3, 2]
    images = sample_list("imagenet", image=pairs["image"], image_patch_mask=pairs["image_patch_mask"])
    assert LossCounts.count(model, images).of("train/imagenet/flava_mim") == 7
    texts = sample_list("texts", input_ids_masked=pairs["input_ids_masked"], lm_label_ids=pairs["lm_label_ids"])
    assert LossCounts.count(model, texts).of("train/texts/flava_mlm") == 3


def test_other_models_and_losses_count_samples(pairs):
    assert LossCounts.count(torch.nn.Identity(), pairs).of("train/pmd/cross_entropy") == 3


def test_unknown_attribute_of_a_loss_raises():
    with pytest.raises(UserError, match=r"my_loss has mean_over = 'words'.*: samples, pairs, patches, tokens"):
        check_mean_over("my_loss", "words")
