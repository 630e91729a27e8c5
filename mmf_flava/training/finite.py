"""Search for NaN and infinity in the state of a run, before a checkpoint is saved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmf_flava.errors import UserError
from mmf_flava.files.checkpoint_names import LATEST, read_pointer


class FiniteCheck:
    """Checks the weights, the buffers and the optimizer state of a run.

    Args:
        model: the model before it is wrapped for several processes. Its buffers that are not finite, such as masks of
            attention, are not checked later.
        groups: the optimizer's parameter groups of ``model``.
    """

    def __init__(self, model: nn.Module, groups: list[dict[str, Any]]) -> None:
        names = {parameter: name for name, parameter in model.named_parameters()}
        self._names = [names[parameter] for group in groups for parameter in group["params"]]
        self._masks = {name for name, buffer in model.named_buffers() if not buffer.isfinite().all()}

    def find(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Any]) -> str | None:
        """Return the name of the first tensor with NaN or infinity, or None.

        Args:
            model: state dict of the model.
            optimizer: state dict of the optimizer of a single-process run; empty like ``model`` on processes that do
                not save.
        """
        tensors = {name: tensor for name, tensor in model.items() if name not in self._masks}
        for number, values in optimizer.get("state", {}).items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"the optimizer's {key} of {self._names[number]}"] = value
        return first_not_finite(tensors)


@torch.no_grad()
def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with NaN or infinity, or None.

    If their norm is finite, every tensor is read once, and host and device are synchronised once.
    """
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if nn.utils.get_total_norm(floats.values()).isfinite():
        return None
    # the norm of finite tensors may also overflow
    return next((name for name, tensor in floats.items() if not tensor.isfinite().all()), None)


def raise_not_finite(folder: Path, update: int, bad_tensors: Sequence[str | None]) -> None:
    """Raise the error of a state that must not be saved.

    Args:
        folder: the folder of the run's checkpoints.
        update: number of completed updates.
        bad_tensors: the result of ``FiniteCheck.find`` of every process.
    """
    rank, name = next((rank, name) for rank, name in enumerate(bad_tensors) if name)
    where = f" on rank {rank}" if rank > 0 else ""  # the first process has gathered the state of a sharded model
    latest = read_pointer(folder / LATEST)
    restart = "Restart" if latest is None else f"Resume from {latest.name} with checkpoint.resume=true"
    raise UserError(
        f"{folder}: the checkpoint of update {update} was not saved, because {name} contains NaN or infinity{where}. "
        f"Existing checkpoints are unchanged. {restart}. If it happens again, lower optimizer.params.lr, check the "
        "callbacks in training.callbacks, or use another machine."
    )
