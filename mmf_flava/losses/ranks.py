"""Losses over the samples of all ranks, so that 1, 2 or 1,000 processes with one global batch compute one number.

Each rank contributes a *share*: the mean of all ranks' shares is the loss of the global batch. DistributedDataParallel
and FullyShardedDataParallel average gradients in the same way, so the shares' gradients become the loss's.

Shapes: B batch of this rank, G = B x ranks, E width of a vector.
"""

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def world_size() -> int:
    """Processes that train together; 1 without a process group."""
    running = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if running else 1


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
        return torch.cat(all_gather(vectors_BE))
    gathered = [torch.empty_like(vectors_BE) for _ in range(world_size())]
    distributed.all_gather(gathered, vectors_BE.detach().contiguous())
    gathered[distributed.get_rank()] = vectors_BE
    return torch.cat(gathered)
