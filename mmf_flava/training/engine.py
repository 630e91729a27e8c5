"""The model of one process during training: a complete replica, or shards with ``fsdp``."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Masters = Mapping[nn.Parameter, nn.Parameter]  # parameter -> master parameter that the optimizer updates


class Engine:
    """A model that is replicated on every process; ``ddp`` averages the gradients of several processes.

    Attributes:
        module: the module to train.
        evaluated: the module to evaluate.
        groups: the optimizer's parameter groups.
        all_ranks_evaluate: whether all processes must take part in an evaluation.
    """

    all_ranks_evaluate = False

    def __init__(self, model: nn.Module, module: nn.Module, groups: list[dict[str, Any]]) -> None:
        self.model, self.module, self.evaluated, self.groups = model, module, model, groups

    @property
    def weights(self) -> list[nn.Parameter]:
        """This process's trainable parameters in the order of the optimizer's groups."""
        return [parameter for group in self.groups for parameter in group["params"]]

    def skip_gradient_sync(self, enabled: bool) -> AbstractContextManager[None]:
        """Return a context in which, if ``enabled``, a backward pass does not average gradients over processes."""
        return self.module.no_sync() if enabled and isinstance(self.module, DistributedDataParallel) else nullcontext()

    def total_norm(self, norm: Tensor) -> Tensor:
        """Return the () norm of the model's gradients, given the norm of this process's gradients."""
        return norm

    def after_step(self) -> None:
        """Hook to call after every optimizer step."""

    def model_state(self, masters: Masters) -> dict[str, Tensor]:
        """Return the model's state dict in fp32, with the master parameters' values; all processes must call it."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return {**self.model.state_dict(), **{names[weight]: master.detach() for weight, master in masters.items()}}

    def full_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Convert this process's optimizer state to that of a single-process run; all processes must call it."""
        return state

    def local_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Convert the optimizer state of a single-process run to this process's."""
        return state
