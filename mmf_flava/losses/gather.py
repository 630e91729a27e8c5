"""Helpers for losses over the samples of all ranks.

Training with N processes is equivalent to training with one process and the same global batch.

Each rank computes its own term of a loss, scaled so that the average over ranks is the loss of the global batch.
DistributedDataParallel and FullyShardedDataParallel average gradients over ranks, so the averaged gradients are the
gradients of the global loss.

Shapes: B = batch size per rank, G = B x number of ranks, E = embedding size.
"""

from typing import Any

import torch
from torch import Tensor, distributed

from mmf_flava.processes import world_size


def global_mean(total: Tensor, count: int, single_process: bool) -> Tensor:
    """Return this rank's term of the mean over the values of all ranks; the average of all ranks' terms is this mean.

    Args:
        total: scalar tensor, the sum of this rank's values, with gradient.
        count: number of this rank's values, which may differ between ranks. The result is 0 if no rank has a value.
        single_process: compute the mean over the values of this process only, as in evaluation.
    """
    ranks = 1 if single_process else world_size()
    # a copy of a number to a GPU would make the host wait
    global_count = torch.full((), count, dtype=torch.float32, device=total.device)
    if ranks > 1:
        distributed.all_reduce(global_count)
    return total * ranks / global_count.clamp(min=1)


def gather_embeddings(embeddings_BE: Tensor, single_process: bool, gradient: str = "global") -> Tensor:
    """Return the embeddings of all ranks, concatenated in rank order. The batch size must be equal on all ranks.

    Args:
        embeddings_BE: the embeddings of this rank.
        single_process: return the embeddings of this process only, as in evaluation.
        gradient: with ``"global"`` gradients flow back to the rank of each embedding; with ``"local"``, as in CLIP,
            only to this rank's own embeddings (the paper's ablation, Table D.1).
    """
    if single_process or world_size() == 1:
        return embeddings_BE
    if gradient == "global":
        return _Gather.apply(embeddings_BE)
    gathered = _all_gather(embeddings_BE.detach())
    gathered[distributed.get_rank()] = embeddings_BE
    return torch.cat(gathered)


def _all_gather(embeddings_BE: Tensor) -> list[Tensor]:
    gathered = [torch.empty_like(embeddings_BE) for _ in range(world_size())]
    distributed.all_gather(gathered, embeddings_BE.contiguous())
    return gathered


class _Gather(torch.autograd.Function):
    """All-gather with autograd: the gradient of an embedding is the sum of its gradients from all ranks."""

    @staticmethod
    def forward(ctx: Any, embeddings_BE: Tensor) -> Tensor:
        return torch.cat(_all_gather(embeddings_BE))

    @staticmethod
    def backward(ctx: Any, gradient_GE: Tensor) -> Tensor:
        summed = gradient_GE.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed.chunk(world_size())[distributed.get_rank()]
