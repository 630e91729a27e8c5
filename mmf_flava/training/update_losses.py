"""The losses of an update whose gradients are accumulated over several batches (``training.update_frequency``)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from mmf_flava.losses.counts import LossCounts, loss_name
from mmf_flava.processes import world_size


class UpdateLosses:
    """The losses of an update: means over the values of all its batches, as if they were one batch.

    A loss of one batch is the mean over the values of that batch on all processes (see ``losses.gather``). It is
    multiplied by the batch's share of the values of the update. All processes must create this object together, because
    the counts are summed over processes if the update has several batches.

    Args:
        model: the model, see ``LossCounts.count``.
        batches: all batches of the update, on the CPU.

    Attributes:
        means: losses by name, summed over the batches so far. The average over processes is the loss of the update.
    """

    def __init__(self, model: Any, batches: Sequence[Any], device: torch.device) -> None:
        self._counts = [LossCounts.count(model, batch) for batch in batches]
        self._columns = {name: column for column, name in enumerate(self._counts[0].values, start=1)}
        self._shares: Tensor | None = None
        if len(batches) > 1:
            rows = [[counts.samples, *(counts.values[name] for name in self._columns)] for counts in self._counts]
            counts = torch.tensor(rows, device=device)
            if world_size() > 1:
                distributed.all_reduce(counts)
            self._shares = counts / counts.sum(dim=0).clamp(min=1)
        self._added = 0
        self.means: dict[str, Tensor] = {}

    def add(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the losses of the next batch. Return each loss multiplied by the batch's share, with gradient."""
        weighted = {key: loss.mean() for key, loss in losses.items()}
        if self._shares is not None:
            shares = self._shares[self._added]
            weighted = {key: loss * shares[self._columns.get(loss_name(key), 0)] for key, loss in weighted.items()}
        for key, loss in weighted.items():
            value = loss.detach().float()
            self.means[key] = self.means[key] + value if key in self.means else value
        self._added += 1
        return weighted

    def count(self, key: str) -> int:
        """Return the number of values of a loss in all batches of the update on this process."""
        return sum(counts.of(key) for counts in self._counts)
