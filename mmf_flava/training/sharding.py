"""Distribution of the model over processes by replication (DDP) or sharding (FSDP), as set by ``training.sharding``."""

import warnings
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmf_flava.config.run import TrainingConfig
from mmf_flava.errors import UserError
from mmf_flava.processes import world_size
from mmf_flava.training.buffers import trained_buffers
from mmf_flava.training.engine import Engine


def broadcast_weights(model: nn.Module) -> None:
    """Broadcast the weights of the first process, because the processes may have different random seeds."""
    if world_size() > 1:
        for value in model.state_dict().values():
            distributed.broadcast(value, 0)


def build_engine(
    model: nn.Module,
    groups: list[dict[str, Any]],
    training: TrainingConfig,
    device: torch.device,
    find_unused_parameters: bool = True,
) -> Engine:
    """Wrap the model for training on all processes.

    ``ddp`` replicates the model and averages gradients over processes; ``fsdp`` shards the model.

    Args:
        groups: the optimizer's parameter groups.
        find_unused_parameters: whether a batch may leave parameters unused with ``ddp``.

    Raises:
        UserError: ``fsdp`` is set with one process, or ``none`` with several processes.
    """
    if training.sharding == "fsdp":
        if world_size() == 1:
            raise UserError(
                "training.sharding: fsdp needs several processes, but this run has one. Start several processes "
                "with torchrun, or set training.sharding: none."
            )
        from mmf_flava.training.fsdp import FsdpEngine  # imports fairseq and fairscale, which takes a second

        return FsdpEngine(model, groups, training.precision)
    if world_size() == 1:
        return Engine(model, model, groups)
    if training.sharding == "none":
        raise UserError(
            f"training.sharding: none would train {world_size()} separate models on {world_size()} processes. Set "
            "training.sharding: ddp or fsdp, or start one process."
        )
    with warnings.catch_warnings():
        # the replacement, forward_sync_buffers, is missing in the oldest supported torch
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        replica = DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=bool(trained_buffers(model)),
            find_unused_parameters=find_unused_parameters,
            gradient_as_bucket_view=True,  # gradients need no memory beside the buckets
        )
    return Engine(model, replica, groups)
