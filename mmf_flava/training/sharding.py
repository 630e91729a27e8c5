"""How a model is spread over processes, ``training.sharding``; asked for what it cannot give, it refuses."""

from torch import distributed, nn

from mmf_flava.errors import UserError


def shard(model: nn.Module, sharding: str) -> nn.Module:
    """The model as it is to be trained.

    Raises:
        UserError: ``ddp`` or ``fsdp``, which this version cannot do, or several processes with ``none``, which would
            train as many separate models.
    """
    if sharding != "none":
        raise UserError(f"training.sharding: {sharding} is not available in this version; use none, on one process.")
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise UserError(
            f"training.sharding: none cannot train on {distributed.get_world_size()} processes; start a single one."
        )
    return model
