"""Sums of the teacher's outputs over the batches and processes of an update.

Shapes: N = number of global crops in a batch, K = number of outputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from mmf_flava.processes import world_size


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy along the last dimension, in nats."""
    return torch.special.entr(probabilities).sum(dim=-1)


@dataclass
class TeacherMeans:
    """Means of the teacher's outputs over the global crops of an update on all processes.

    logits: (K,) mean logits, before centring.
    entropy: mean entropy of the probabilities of a crop, in nats; log K if all outputs are uniform.
    mean_entropy: entropy of the mean probabilities; 0 if all crops have the same output of probability 1.
    """

    logits: Tensor
    entropy: Tensor
    mean_entropy: Tensor

    def statistics(self) -> dict[str, float]:
        """Return the two entropies, in nats, and ``teacher_information``.

        It is the mean Kullback-Leibler divergence of the outputs of a crop from their mean, which is the difference of
        the entropies. It is 0 if the teacher has collapsed: all crops have the same output.
        """
        information = self.mean_entropy - self.entropy
        return {
            "teacher_entropy": self.entropy.item(),
            "teacher_mean_entropy": self.mean_entropy.item(),
            "teacher_information": max(information.item(), 0.0),
        }


class TeacherSums:
    """Sums of the teacher's logits, probabilities and entropies over the batches of an update on this process.

    They are no buffers of the model, because DDP would replace them by those of the first process.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    def clear(self) -> None:
        """Forget all batches."""
        self._sums = None

    def add(self, logits_NK: Tensor, probabilities_NK: Tensor) -> None:
        """Add the outputs for the global crops of a batch."""
        entropies = entropy(probabilities_NK).sum()
        scalars = torch.stack([entropies, torch.full_like(entropies, len(logits_NK))])
        sums = torch.cat([logits_NK.sum(dim=0), probabilities_NK.sum(dim=0), scalars])
        self._sums = sums if self._sums is None else self._sums + sums

    def means(self) -> TeacherMeans:
        """Return the means over all processes, which must all call this function after at least one ``add``."""
        assert self._sums is not None, "no batch was added"
        sums = self._sums.clone()
        if world_size() > 1:
            distributed.all_reduce(sums)
        means = sums[:-1] / sums[-1]
        logits, probabilities = means[:-1].chunk(2)
        return TeacherMeans(logits, means[-1], entropy(probabilities))
