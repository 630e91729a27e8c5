"""Exponential moving averages of weights: of a run (``training.ema``), and of the student in DINO's teacher."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def momentum_at(update: int, first: float, last: float | None, total: int) -> float:
    """Return the momentum of an update, counted from 0: constant, or on a cosine as in DINO.

    Args:
        last: the momentum after ``total`` updates; None for a constant momentum.
    """
    if last is None:
        return first
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * min(update, total) / total))


class WeightAverages:
    """Averages of named weights: ``average = momentum * average + (1 - momentum) * weight``.

    Args:
        weights: name -> weight; the slices of this process if the weights are sharded.
        momentum: function of the update, counted from 0.
        start: number of updates before averaging starts; until then, the averages are copies of the weights.
        averages: name -> tensor to store the average in, e.g. the parameters of a teacher. Default: fp32 copies of the
            weights.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        momentum: Callable[[int], float],
        start: int = 0,
        averages: dict[str, Tensor] | None = None,
    ) -> None:
        self.momentum, self.start = momentum, start
        if averages is None:
            averages = {name: weight.detach().to(torch.float32, copy=True) for name, weight in weights.items()}
        self.averages = averages

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], update: int) -> None:
        """Update the averages after an optimizer step.

        Args:
            weights: the new weights; further names are ignored.
            update: number of updates before this one.
        """
        momentum = self.momentum(update) if update >= self.start else 0.0
        new = [weights[name] for name in self.averages]
        torch._foreach_lerp_([*self.averages.values()], new, 1 - momentum)
