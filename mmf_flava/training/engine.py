"""A model in training, as one process sees it: the whole of it, or (``fsdp``) shards."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Masters = Mapping[nn.Parameter, nn.Parameter]  # a weight and what the optimizer moves in its place


class Engine:
    """The whole model on every process; gradients are averaged over processes where there are several (ddp).

    Attributes:
        module: what training calls with a batch.
        evaluated: what evaluations call.
        groups: the optimizer's parameter groups.
        all_evaluate: whether an evaluation needs all processes.
    """

    all_evaluate = False

    def __init__(self, model: nn.Module, module: nn.Module, groups: list[dict[str, Any]]) -> None:
        self.model, self.module, self.evaluated, self.groups = model, module, model, groups

    @property
    def weights(self) -> list[nn.Parameter]:
        """What is trained, as this process has it, in the order of the optimizer's groups."""
        return [parameter for group in self.groups for parameter in group["params"]]

    def without_communication(self, wanted: bool) -> AbstractContextManager[None]:
        """Where ``wanted``, a backward pass inside adds to the gradients without averaging them over processes."""
        return self.module.no_sync() if wanted and isinstance(self.module, DistributedDataParallel) else nullcontext()

    def total_norm(self, norm: Tensor) -> Tensor:
        """() norm of the model's gradients, from the norm of those that this process has."""
        return norm

    def after_step(self) -> None:
        """To be called when the optimizer has moved the parameters."""

    def model_state(self, masters: Masters) -> dict[str, Tensor]:
        """The model's state in fp32, with the masters in their weights' places; every process must call it."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return {**self.model.state_dict(), **{names[weight]: master.detach() for weight, master in masters.items()}}

    def whole_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """What the state dict of a single process's optimizer would be; every process must call it."""
        return state

    def own_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """This process's part of such a state dict."""
        return state
