"""Wrappers of the model for training on several processes: ``Engine`` replicates it, ``FsdpEngine`` shards it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Masters = Mapping[nn.Parameter, nn.Parameter]  # parameter -> master parameter that the optimizer updates


class Engine:
    """A model that is replicated on every process. With several processes, DDP averages the gradients.

    Attributes:
        module: the module to train.
        evaluated: the module to evaluate.
        groups: the optimizer's parameter groups.
        all_ranks_evaluate: whether all processes must take part in an evaluation.
        num_shards: number of processes that the parameters are divided among.
    """

    all_ranks_evaluate = False
    num_shards = 1

    def __init__(self, model: nn.Module, module: nn.Module, groups: list[dict[str, Any]]) -> None:
        self.model, self.module, self.evaluated, self.groups = model, module, model, groups

    @property
    def weights(self) -> list[nn.Parameter]:
        """This process's trainable parameters in the order of the optimizer's parameter groups."""
        return [parameter for group in self.groups for parameter in group["params"]]

    def skip_gradient_sync(self, enabled: bool) -> AbstractContextManager[None]:
        """Return a context manager that disables gradient averaging over processes if ``enabled``."""
        return self.module.no_sync() if enabled and isinstance(self.module, DistributedDataParallel) else nullcontext()

    def after_step(self) -> None:
        """Do nothing; subclasses override this hook, which is called after every optimizer step."""

    def model_state(self, masters: Masters) -> dict[str, Tensor]:
        """Return the model's state dict in fp32. Must be called by all processes.

        Args:
            masters: the fp32 master parameter of each trainable parameter.
        """
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return {**self.model.state_dict(), **{names[weight]: master.detach() for weight, master in masters.items()}}

    def full_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Convert this process's optimizer state dict to the state dict of a single-process run.

        Must be called by all processes.
        """
        return state

    def local_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Convert the optimizer state dict of a single-process run to the state dict of this process."""
        return state
