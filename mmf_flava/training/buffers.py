"""Buffers that training changes, such as the running statistics of BatchNorm: unchanged by a skipped update."""

import torch
from torch import Tensor, nn

from mmf_flava.training.model_interface import replicated_modules

Buffer = tuple[dict[str, Tensor | None], str, Tensor | None]  # the buffers of a module, a name, its value


def trained_buffers(model: nn.Module) -> list[Tensor]:
    """Return the buffers that training may change: all except those of the frozen modules on all processes."""
    replicated = replicated_modules(model)
    return [buffer for name, buffer in model.named_buffers() if name.partition(".")[0] not in replicated]


class BufferCopies:
    """Copies of a model's buffers, to restore them if the update is skipped after its forward passes.

    Only modules in training mode change their buffers, so those of the frozen codebook are not copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.modules() if module._buffers]
        self._buffers: list[Buffer] = []
        self._copies: list[Tensor] = []

    def save(self) -> None:
        """Copy the buffers of all modules in training mode. Must be called before the forward passes."""
        before = _tensors(self._buffers)
        trained = (module for module in self._modules if module.training)
        self._buffers = [(m._buffers, name, buffer) for m in trained for name, buffer in m._buffers.items()]
        buffers = _tensors(self._buffers)
        if len(before) != len(buffers) or any(old is not new for old, new in zip(before, buffers, strict=True)):
            self._copies = [buffer.detach().clone() for buffer in buffers]
        elif buffers:
            with torch.no_grad():
                torch._foreach_copy_(self._copies, buffers)  # one operation, as a model may have hundreds of buffers

    def restore(self) -> None:
        """Restore the buffers that ``save`` copied."""
        copies = iter(self._copies)
        for buffers, name, buffer in self._buffers:
            current = buffers[name]
            if buffer is None or current is None or current.shape != buffer.shape:
                buffers[name] = current = buffer
            if current is not None:
                with torch.no_grad():
                    current.copy_(next(copies))


def _tensors(buffers: list[Buffer]) -> list[Tensor]:
    return [buffer for *_, buffer in buffers if buffer is not None]
