"""Backward pass and optimizer step for ``training.precision`` fp32 and bf16; fp16 is in ``fp16.py`` (needs fairseq)."""

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

LARGEST_SQUARE = torch.finfo(torch.float32).max


def total_norm(square: float) -> float:
    """Return the norm of the gradients of the complete model.

    The norm is infinite if its square overflows fp32, because Adam's second moments would overflow as well.

    Args:
        square: mean of ``Updater.squared_norm`` over processes.
    """
    return math.sqrt(square if square <= LARGEST_SQUARE else square * math.inf)  # NaN stays NaN


class Precision(Protocol):
    """Interface for the backward passes and the optimizer step of an update."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a loss."""

    def norm(self) -> Tensor:
        """Return the norm of the gradients of this process's parameters, multiplied by the loss scale in fp16."""

    def step(self, max_norm: float | None, norm: float) -> bool:
        """Clip gradients to ``max_norm`` if given, update the parameters and clear the gradients.

        Args:
            norm: norm of the gradients of the complete model, multiplied by the loss scale in fp16. Only fp16 accepts
                NaN and infinity, which it handles as an overflow.

        Returns:
            False if the update was skipped.
        """

    def zero_grad(self) -> None:
        """Clear the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a checkpoint stores in addition to the optimizer state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state dict, which may have been saved with another precision."""


class FullPrecision:
    """Implementation of ``Precision`` for fp32 weights, with computation in fp32 or, under autocast, in bf16."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def norm(self) -> Tensor:
        return nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])

    def step(self, max_norm: float | None, norm: float) -> bool:
        if max_norm is not None:
            total = torch.full((), norm, device=self._parameters[0].device)  # a copy to a GPU makes the host wait
            nn.utils.clip_grads_with_norm_(self._parameters, max_norm, total)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return True

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Ignore ``state``: it is empty, or the state of the loss scaler of a checkpoint saved with fp16."""
