"""What a codebook is besides a module: a measuring instrument, which training must not touch."""

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """A module without gradients that stays in evaluation mode and keeps its dtype when the model around it changes.

    ``sha256`` names its weights (see ``weights_sha256``); None until weights were loaded.
    """

    sha256: str | None = None

    def freeze(self) -> None:
        """To be called when all parameters are there."""
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        # model.half() must not change what a code is: devices and memory formats are followed, dtypes are not
        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(moved, recurse)


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """A hash of names, shapes and values (as fp32): the same weights in any file format have the same hash."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()
