"""How a model is spread over processes, ``training.sharding``; asked for what it cannot give, it refuses."""

import warnings
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmf_flava.config.run import TrainingConfig
from mmf_flava.errors import UserError
from mmf_flava.ranks import world_size
from mmf_flava.training.engine import Engine


def agree_on_weights(model: nn.Module) -> None:
    """Gives every process the weights of the first; they may have been drawn with different seeds."""
    if world_size() > 1:
        for value in model.state_dict().values():
            distributed.broadcast(value, 0)


def shard(model: nn.Module, groups: list[dict[str, Any]], training: TrainingConfig, device: torch.device) -> Engine:
    """The model, ready to be trained by all processes; ``groups`` are the optimizer's, of the model's parameters.

    ``ddp`` gives every process the whole model, and averages gradients; ``fsdp`` gives it a shard.

    Raises:
        UserError: ``fsdp`` on one process, or several with ``none``, which would train as many separate models.
    """
    if training.sharding == "fsdp":
        if world_size() == 1:
            raise UserError(
                "training.sharding: fsdp spreads the model over several processes, and this is the only one; start "
                "more with torchrun, or set it to none."
            )
        from mmf_flava.training.fsdp import Sharded  # brings fairseq and fairscale, which take a second

        return Sharded(model, groups, training.precision)
    if world_size() == 1:
        return Engine(model, model, groups)
    if training.sharding == "none":
        raise UserError(
            f"training.sharding: none would train {world_size()} separate models on {world_size()} processes; set it "
            "to ddp, or start a single process."
        )
    with warnings.catch_warnings():
        # its new name, forward_sync_buffers, is younger than the oldest torch that we run on
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        replica = DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,  # the only buffers are those of a frozen codebook
            find_unused_parameters=True,  # a step trains the encoders of one dataset's kind
        )
    return Engine(model, replica, groups)
