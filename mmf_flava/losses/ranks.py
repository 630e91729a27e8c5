"""Losses over the samples of all ranks, so that 1, 2 or 1,000 processes with one global batch compute one number.

Each rank contributes a *share*: the mean of all ranks' shares is the loss of the global batch. DistributedDataParallel
and FullyShardedDataParallel average gradients in the same way, so the shares' gradients become the loss's.

Shapes: B batch of this rank, G = B x ranks, E width of a vector.
"""

from typing import Any

import torch
from torch import Tensor, distributed

from mmf_flava.ranks import world_size


def mean_share(total: Tensor, count: int | Tensor, alone: bool) -> Tensor:
    """This rank's share of a mean over all ranks' terms.

    Args:
        total: () sum of this rank's terms, with gradient.
        count: how many they are; ranks may have different numbers, or none: no term at all gives 0.
        alone: whether this process computes a mean of its own, as evaluations do.
    """
    ranks = 1 if alone else world_size()
    terms = torch.as_tensor(count, dtype=torch.float32, device=total.device).clone()
    if ranks > 1:
        distributed.all_reduce(terms)
    return total * ranks / terms.clamp(min=1)


def gather(vectors_BE: Tensor, alone: bool, gradient: str = "global") -> Tensor:
    """(G, E): the vectors of all ranks, in rank order; every rank has the same B.

    With ``gradient="global"`` gradients flow back to the rank that a vector came from; with ``"local"``, as in CLIP,
    only to this rank's own (the paper's ablation, Table D.1).
    """
    if alone or world_size() == 1:
        return vectors_BE
    if gradient == "global":
        return _Gather.apply(vectors_BE)
    gathered = _all_vectors(vectors_BE.detach())
    gathered[distributed.get_rank()] = vectors_BE
    return torch.cat(gathered)


def _all_vectors(vectors_BE: Tensor) -> list[Tensor]:
    gathered = [torch.empty_like(vectors_BE) for _ in range(world_size())]
    distributed.all_gather(gathered, vectors_BE.contiguous())
    return gathered


class _Gather(torch.autograd.Function):
    """Every rank's vectors on every rank; each gets back the sum of what all ranks' losses say of its own."""

    @staticmethod
    def forward(ctx: Any, vectors_BE: Tensor) -> Tensor:
        return torch.cat(_all_vectors(vectors_BE))

    @staticmethod
    def backward(ctx: Any, gradient_GE: Tensor) -> Tensor:
        summed = gradient_GE.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed.chunk(world_size())[distributed.get_rank()]
