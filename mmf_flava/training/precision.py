"""Backward pass and optimizer step for ``training.precision`` fp32 and bf16; fp16 is in ``fp16.py`` (needs fairseq)."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Precision(Protocol):
    """Interface for the backward passes and the optimizer step of an update."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a loss."""

    def step(self, max_norm: float | None) -> bool:
        """Clip gradients to ``max_norm`` if given, update the parameters and clear the gradients.

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

    def __init__(self, optimizer: torch.optim.Optimizer, total_norm: Callable[[Tensor], Tensor]) -> None:
        self.optimizer, self.total_norm = optimizer, total_norm

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, max_norm: float | None) -> bool:
        if max_norm is not None:
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            nn.utils.clip_grads_with_norm_(parameters, max_norm, self.total_norm(nn.utils.get_total_norm(gradients)))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return True

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Ignore ``state``: it is empty, or the state of the loss scaler of a checkpoint saved with fp16."""
