"""The losses on small inputs, against results computed by hand."""

import math

import pytest
import torch
from mmf.common.registry import registry

import mmf_flava.plugin  # noqa: F401  registers the losses
from mmf_flava.config.model import LOSSES
from mmf_flava.losses.contrastive import contrastive_loss
from mmf_flava.losses.masked_modeling import masked_cross_entropy
from mmf_flava.losses.matching import ImageTextMatching
from mmf_flava.models.outputs import Contrast, Matching


def test_all_losses_are_registered_with_mmf():
    assert all(registry.get_loss_class(name) is not None for name in LOSSES)


def contrast(positive, temperature=1.0):
    """Return two images along the axes and two texts: the first equals its image, the second is between both."""
    text = torch.tensor([[1.0, 0.0], [math.sqrt(0.5), math.sqrt(0.5)]], requires_grad=True)
    return Contrast(torch.eye(2), text, torch.tensor(temperature), torch.tensor(positive).nonzero()[:, 0])


def test_contrastive_loss_of_two_pairs():
    r = math.sqrt(0.5)
    image_rows = -math.log(math.e / (math.e + math.exp(r))) - math.log(math.exp(r) / (1 + math.exp(r)))
    text_rows = -math.log(math.e / (math.e + 1)) - math.log(0.5)
    assert contrastive_loss(contrast([True, True])).item() == pytest.approx((image_rows + text_rows) / 4)


def test_mismatched_pairs_are_negatives_only():
    r = math.sqrt(0.5)
    image_row = -math.log(math.e / (math.e + math.exp(r)))
    text_row = -math.log(math.e / (math.e + 1))
    assert contrastive_loss(contrast([True, False])).item() == pytest.approx((image_row + text_row) / 2)


def test_batch_without_matching_pairs_has_zero_loss_and_gradient():
    pair = contrast([False, False])
    loss = contrastive_loss(pair)
    loss.backward()
    assert loss.item() == 0 and pair.text.grad.abs().sum() == 0


def test_contrastive_logits_are_fp32_under_autocast():
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.nn.functional.normalize(torch.randn(16, 32, generator=generator)) for _ in range(2))
    pairs = Contrast(image, text.requires_grad_(), torch.tensor(100.0), torch.arange(16))
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive_loss(pairs)
    assert loss.dtype == torch.float32
    assert loss.item() == contrastive_loss(pairs).item() > 0


def test_masked_cross_entropy_of_two_positions():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    loss = masked_cross_entropy(logits, torch.tensor([0, 0]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_masked_cross_entropy_without_positions_is_zero():
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0


def test_matching_loss_of_two_pairs():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    output = {"itm": Matching(logits, torch.tensor([1, 0]))}
    assert ImageTextMatching()({}, output).item() == pytest.approx((-math.log(0.75) - math.log(0.25)) / 2)
