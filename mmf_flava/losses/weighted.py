"""Losses with a factor for each class, for data whose classes have different numbers of samples.

They are means over the samples of a batch, not over the sum of the factors, so that a batch may be divided among
processes.

Shapes: B = batch size, C = number of classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmf.common.registry import registry
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy


class _ClassFactors(nn.Module):
    """Base class of the losses: keeps the factors (C,) on the model's device, outside its weights."""

    factors: Tensor

    def __init__(self, factors: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("factors", torch.tensor(list(factors), dtype=torch.float32), persistent=False)


@registry.register_loss("flava_weighted_cross_entropy")
class WeightedCrossEntropy(_ClassFactors):
    """Mean over the samples of the cross entropy times the factor of the sample's class."""

    def forward(self, sample_list: Any, model_output: dict[str, Tensor]) -> Tensor:
        """Compute the loss from ``scores`` (B, C) and ``targets`` (B,)."""
        targets = sample_list["targets"]
        losses = cross_entropy(model_output["scores"].float(), targets, reduction="none")
        return (losses * self.factors.float()[targets]).mean()


@registry.register_loss("flava_weighted_logit_bce")
class WeightedLogitBCE(_ClassFactors):
    """MMF's ``logit_bce`` with a factor for the samples that belong to a class (``pos_weight``)."""

    def forward(self, sample_list: Any, model_output: dict[str, Tensor]) -> Tensor:
        """Compute the loss from ``scores`` (B, C) and ``targets`` (B, C)."""
        scores, targets = model_output["scores"].float(), sample_list["targets"].float()
        loss = binary_cross_entropy_with_logits(scores, targets, pos_weight=self.factors.float())
        return loss * targets.size(1)
