"""How gradients become a step, ``training.precision``; fp16 is in a file of its own, which brings fairseq."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Precision(Protocol):
    """One update: ``backward`` for each batch, then ``step``."""

    def backward(self, loss: Tensor) -> None:
        """Adds a loss's gradients."""

    def step(self, max_norm: float | None) -> bool:
        """Clips to ``max_norm``, where one is given, moves the weights, clears the gradients; False: nothing moved."""

    def discard(self) -> None:
        """Clears the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep beside the optimizer's state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with such a state, perhaps of another precision."""


class FullPrecision:
    """Weights in fp32, computed with in fp32 or, under autocast, in bf16."""

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

    def discard(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The state of fp16's loss scale means nothing here."""
