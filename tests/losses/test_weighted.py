"""Losses with class factors: literal values, and batches divided among processes."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from mmf_flava.losses.weighted import WeightedCrossEntropy, WeightedLogitBCE


def test_weighted_cross_entropy():
    scores, targets = torch.tensor([[0.0, 0.0], [0.0, 2.0], [1.0, 0.0]]), torch.tensor([0, 1, 1])
    loss = WeightedCrossEntropy([0.5, 3.0])
    each = cross_entropy(scores, targets, reduction="none") * torch.tensor([0.5, 3.0, 3.0])
    assert loss({"targets": targets}, {"scores": scores}).item() == pytest.approx(each.mean().item())
    halves = [loss({"targets": targets[i : i + 1]}, {"scores": scores[i : i + 1]}) for i in range(3)]
    assert sum(halves).item() / 3 == pytest.approx(each.mean().item())


def test_weighted_logit_bce():
    scores, targets = torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss = WeightedLogitBCE([3.0, 1.0])({"targets": targets}, {"scores": scores})
    assert loss.item() == pytest.approx((3 + 1 + 1 + 1) / 4 * 2 * 0.693147, rel=1e-5)


def test_factors_are_no_weights():
    assert WeightedCrossEntropy([1.0, 2.0]).state_dict() == {}
