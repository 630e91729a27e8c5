"""Wrappers of the model for training on several processes: ``Engine`` replicates it, ``FsdpEngine`` shards it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmf_flava.processes import world_size
from mmf_flava.training.buffers import trained_buffers
from mmf_flava.training.model_interface import after_step, averaged_modules

Masters = Mapping[nn.Parameter, nn.Parameter]  # parameter -> master parameter that the optimizer updates


class Engine:
    """A model that is replicated on every process. With several processes, DDP averages the gradients.

    Attributes:
        module: the module to train.
        evaluated: the module to evaluate.
        groups: the optimizer's parameter groups.
        all_ranks_evaluate: whether all processes must take part in an evaluation.
        num_shards: number of processes that the parameters are divided among.
        names: the name in the model of each parameter in ``groups``.
        frozen: fp32 values of other parameters, if the model has them in another precision or sharded.
        averaged: parameters of the modules that the model names in ``averaged_modules``, by name; their slices on this
            process if the model is sharded.
    """

    all_ranks_evaluate = False
    num_shards = 1

    def __init__(
        self,
        model: nn.Module,
        module: nn.Module,
        groups: list[dict[str, Any]],
        names: dict[nn.Parameter, str] | None = None,
    ) -> None:
        self.model, self.module, self.evaluated, self.groups = model, module, model, groups
        self.frozen: dict[str, Tensor] = {}
        self.names = names or {parameter: name for name, parameter in model.named_parameters()}
        self.averaged = averaged_parameters(model)

    @property
    def weights(self) -> list[nn.Parameter]:
        """This process's trainable parameters in the order of the optimizer's parameter groups."""
        return [parameter for group in self.groups for parameter in group["params"]]

    def skip_gradient_sync(self, enabled: bool) -> AbstractContextManager[None]:
        """Return a context manager that disables gradient averaging over processes if ``enabled``."""
        return self.module.no_sync() if enabled and isinstance(self.module, DistributedDataParallel) else nullcontext()

    def after_backward(self) -> None:
        """Give the gradients of an update to the parameters in ``groups``.

        Must be called by all processes after the last backward pass of an update. Replicated parameters already have
        their gradients.
        """

    def after_step(self, masters: Masters) -> None:
        """Call the model's method ``after_step``, if it has one, with the updated weights by name.

        The weights include those of the modules in ``averaged_modules``. The method may change the weights in place and
        elementwise. They are fp32 for any precision; if the model is sharded, each is a 1-dimensional slice of the
        weight, which may be empty, and an averaged module has the same slices as the trained module.
        """
        averages = self._fp32_averages()
        after_step(self.model, {**self.by_name(masters), **averages})
        with torch.no_grad():
            for name, parameter in self.averaged.items():
                if averages[name].dtype != parameter.dtype:
                    parameter.copy_(averages[name])

    def _fp32_averages(self) -> dict[str, Tensor]:
        return {name: self.frozen.get(name, parameter.detach()) for name, parameter in self.averaged.items()}

    def by_name(self, masters: Masters) -> dict[str, Tensor]:
        """Return the trained weights of this process by name."""
        return {self.names[weight]: master.detach() for weight, master in masters.items()}

    def finish_step(self) -> None:
        """Do nothing; subclasses override this method, which is called after every update."""

    def model_state(self, masters: Mapping[nn.Parameter, Tensor]) -> dict[str, Tensor]:
        """Return the model's state dict in fp32. Must be called by all processes.

        Args:
            masters: the fp32 master parameter of each trainable parameter.
        """
        # tied weights have several names
        named = self.model.named_parameters(remove_duplicate=False)
        weights = {name: masters[weight].detach() for name, weight in named if weight in masters}
        return {**self.model.state_dict(), **self.frozen, **weights}

    def broadcast_buffers(self) -> None:
        """Give all processes the buffers of the first one, e.g. the statistics of BatchNorm, before an evaluation.

        Must be called by all processes.
        """
        if world_size() > 1:
            for buffer in trained_buffers(self.model):
                distributed.broadcast(buffer, 0)

    def load_weights(self, state: Mapping[str, Tensor], masters: Masters) -> None:
        """Load the result of ``model_state`` into trainable and averaged weights, their masters, and the buffers."""
        with torch.no_grad():
            for weight, master in masters.items():
                value = self.local_weight(self.names[weight], state[self.names[weight]])
                master.copy_(value)
                weight.copy_(master)
            for name, average in self._fp32_averages().items():
                average.copy_(self.local_weight(name, state[name]))
                self.averaged[name].copy_(average)
            for name, buffer in self.named_buffers().items():
                if name in state:
                    buffer.copy_(state[name])

    def named_buffers(self) -> dict[str, Tensor]:
        """Return the model's buffers by their names in the state dict."""
        return dict(self.model.named_buffers(remove_duplicate=False))

    def local_weight(self, name: str, value: Tensor) -> Tensor:
        """Return this process's part of a complete weight or average of weights."""
        return value

    def full_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Convert this process's optimizer state dict to the state dict of a single-process run.

        Must be called by all processes.
        """
        return state

    def local_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Convert the optimizer state dict of a single-process run to the state dict of this process."""
        return state


def averaged_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of the modules that the model names in ``averaged_modules``, by name."""
    inside = tuple(f"{name}." for name in averaged_modules(model))
    return {name: parameter for name, parameter in model.named_parameters() if name.startswith(inside)}
