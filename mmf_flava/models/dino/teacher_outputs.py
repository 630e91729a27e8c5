"""Sums of the teacher's outputs over the batches and processes of an update.

Shapes: B = number of images in a batch, N = 2 B = number of global crops in a batch, K = number of outputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from mmf_flava.processes import world_size

ROUNDING = 1e-6  # nats; a smaller divergence is a rounding error


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy along the last dimension, in nats."""
    return torch.special.entr(probabilities).sum(dim=-1)


@dataclass
class TeacherMeans:
    """Means of the teacher's outputs over the global crops of an update on all processes.

    logits: (K,) mean logits, before centring.
    entropy: mean entropy of the probabilities of a crop, in nats; log K if all outputs are uniform.
    mean_entropy: entropy of the mean probabilities; 0 if all crops have the same output of probability 1.
    same: mean Jensen-Shannon divergence of the probabilities of the two crops of an image, in nats.
    other: mean Jensen-Shannon divergence of crops of two images of a batch; NaN if no batch has two images.
    """

    logits: Tensor
    entropy: Tensor
    mean_entropy: Tensor
    same: Tensor
    other: Tensor

    def statistics(self) -> dict[str, float]:
        """Return the two entropies, in nats, ``teacher_information`` and ``teacher_separation``.

        The information is the mean Kullback-Leibler divergence of the outputs of a crop from their mean, which is the
        difference of the entropies. It is 0 if the teacher has collapsed: all crops have the same output.

        The separation is 1 - same / other: 1 if the crops of an image have the same output and those of other images
        another one, 0 if the outputs depend on the crop and not on the image. It is missing if no batch has two images.
        """
        information, other = (self.mean_entropy - self.entropy).item(), self.other.item()
        statistics = {
            "teacher_entropy": self.entropy.item(),
            "teacher_mean_entropy": self.mean_entropy.item(),
            "teacher_information": max(information, 0.0),
        }
        if other > ROUNDING:
            statistics["teacher_separation"] = 1 - self.same.item() / other
        return statistics


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
        """Add the outputs for the global crops of a batch: first crop 0 of all images, then crop 1."""
        entropies = entropy(probabilities_NK).sum()
        first_BK, second_BK = probabilities_NK.chunk(2)
        # each image is compared with the next one; the mean entropy is the same for both kinds of pairs
        same, other = (entropy((first_BK + crop_BK) / 2).sum() for crop_BK in (second_BK, second_BK.roll(1, dims=0)))
        images = len(first_BK)
        compared = images if images > 1 else 0
        counts = entropies.new_tensor([len(logits_NK), compared])
        divergences = (torch.stack([same, other]) - entropies / 2) * (compared > 0)
        sums = torch.cat([logits_NK.sum(dim=0), probabilities_NK.sum(dim=0), entropies[None], divergences, counts])
        self._sums = sums if self._sums is None else self._sums + sums

    def means(self) -> TeacherMeans:
        """Return the means over all processes, which must all call this function after at least one ``add``."""
        assert self._sums is not None, "no batch was added"
        sums = self._sums.clone()
        if world_size() > 1:
            distributed.all_reduce(sums)
        outputs, divergences, (crops, compared) = sums[:-4], sums[-4:-2], sums[-2:]
        means = outputs / crops
        logits, probabilities = means[:-1].chunk(2)
        same, other = divergences / compared  # NaN if there are none
        return TeacherMeans(logits, means[-1], entropy(probabilities), same, other)
