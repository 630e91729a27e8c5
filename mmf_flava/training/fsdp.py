"""``training.sharding: fsdp``: fairseq's FullyShardedDataParallel (FSDP).

Each module that the model names in ``shard_units`` is wrapped as an FSDP unit. The parameters of a unit are flattened
into one parameter, and each process keeps a shard of every flat parameter. The optimizer does not see the flat
parameters. It updates slices: the part of each parameter in this process's shard, which shares the memory of the shard.
Parameter groups, step counts and unused parameters are therefore the same as in a single process, also if a batch uses
only some parameters of a unit.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from fairscale.nn import FlattenParamsWrapper
from fairseq.distributed.fully_sharded_data_parallel import FullyShardedDataParallel
from torch import Tensor, distributed, nn
from torch.nn.functional import pad

from mmf_flava.errors import UserError
from mmf_flava.models.dtypes import DTYPES
from mmf_flava.training.engine import Engine, averaged_parameters
from mmf_flava.training.model_interface import replicated_modules, shard_units

STEP = "step"  # the only scalar in an optimizer's state; the other entries have the parameter's shape
WRAPPERS = ("_fpw_module", "_fsdp_wrapped_module")


class FlatModule(FlattenParamsWrapper):
    """A module whose parameters are views of one flat parameter.

    Args:
        used: set to which the index of each view is added when its gradient is computed.
    """

    def __init__(self, module: nn.Module, parameters: list[nn.Parameter], used: set[int]) -> None:
        super().__init__(module, param_list=[parameters] if parameters else [])
        self.used = used

    def _unflatten_params_as_views(self) -> None:
        """Make new views before each forward pass, and register their hooks."""
        super()._unflatten_params_as_views()
        for index, view in enumerate(self._fpw_module._unflattened_param_views):  # type: ignore[arg-type]
            if view.requires_grad:
                view.register_hook(partial(self._add_used, index))

    def _add_used(self, index: int, gradient: Tensor | None) -> None:
        if gradient is not None:
            self.used.add(index)


class ParameterShard:
    """This process's shard of a flat parameter.

    Attributes:
        names: names of the flattened parameters.
        slices: the part of each parameter in this shard, 1-dimensional; empty if all of it is on other processes.
        used: indices of the parameters that received a gradient on this process since ``start_last_batch``.
    """

    def __init__(self, flat: nn.Parameter, names: list[str], shapes: list[torch.Size], used: set[int]) -> None:
        self.flat, self.names, self.shapes, self.used = flat, names, shapes, used
        self.used_before: set[int] = set()
        self.sizes = [shape.numel() for shape in shapes]
        first = distributed.get_rank() * len(flat)
        starts = [first - end + size for end, size in zip(accumulate(self.sizes), self.sizes, strict=True)]
        # of each parameter: its first element in this shard, and the element after its last one
        self.ranges = [
            (min(max(start, 0), size), min(max(start + len(flat), 0), size))
            for start, size in zip(starts, self.sizes, strict=True)
        ]
        self.slices = [nn.Parameter(part) for part in self._split(flat.data)]

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Split ``values``, shaped like the shard, into slices. The shard may end with padding."""
        sizes = [end - start for start, end in self.ranges]
        return values[: sum(sizes)].split(sizes)

    def slice(self, index: int, value: Tensor) -> Tensor:
        """Return a copy of this process's slice of a tensor that is shaped like parameter ``index``."""
        start, end = self.ranges[index]
        return value.flatten()[start:end].clone()

    def gather(self, slices: list[Tensor]) -> dict[str, Tensor]:
        """Gather slices of all parameters from all processes. Must be called by all processes.

        Returns:
            the tensors by parameter name, shaped like the parameters.
        """
        local = torch.cat(slices)
        local = pad(local, (0, len(self.flat) - len(local)))
        full = local.new_empty(distributed.get_world_size() * len(local))
        distributed.all_gather_into_tensor(full, local)
        chunks = full[: sum(self.sizes)].split(self.sizes)
        return {name: chunk.view(shape) for name, chunk, shape in zip(self.names, chunks, self.shapes, strict=True)}

    def start_last_batch(self) -> None:
        """Prepare the last batch of an update, the only one whose backward pass reduces gradients."""
        self.used_before = set(self.used)
        self.used.clear()

    def was_used(self) -> list[bool]:
        """Return whether each parameter received a gradient on this process in this update."""
        return [index in self.used or index in self.used_before for index in range(len(self.names))]

    def assign_gradients(self, used: list[bool]) -> None:
        """Move the gradient of the flat parameter to the slices.

        Args:
            used: whether each parameter has received a gradient on any process; the others get no gradient.
        """
        gradient, self.flat.grad = self.flat.grad, None
        if gradient is not None and not self.used:  # only earlier batches used the unit: FSDP has not reduced it
            gradient = self._reduce(gradient)
        self.used_before.clear()
        self.used.clear()
        parts = [None] * len(used) if gradient is None else self._split(gradient)
        for parameter, part, is_used in zip(self.slices, parts, used, strict=True):
            parameter.grad = part if is_used else None

    def _reduce(self, gradient: Tensor) -> Tensor:
        """Average the gradient of the complete flat parameter over processes, and return this process's shard."""
        world_size, shard = distributed.get_world_size(), torch.empty_like(self.flat)
        padded = pad(gradient.to(shard.dtype) / world_size, (0, world_size * len(shard) - len(gradient)))
        distributed.reduce_scatter_tensor(shard, padded)
        return shard


class FsdpEngine(Engine):
    """A model whose weights, gradients and optimizer state are sharded over all processes.

    Weights and optimizer state are stored in fp32; weights are gathered in the compute precision. All processes must
    take part in every forward pass, including evaluations.
    """

    all_ranks_evaluate = True

    def __init__(self, model: Any, groups: list[dict[str, Any]], precision: str) -> None:
        names = {parameter: name for name, parameter in model.named_parameters()}
        order = [[names[parameter] for parameter in group["params"]] for group in groups]
        # index of each parameter in the optimizer state, the same as in a single-process run
        self.index_of = {name: index for index, name in enumerate(name for group in order for name in group)}
        _refuse_tied(model, names)
        self._averaged_names = averaged_parameters(model).keys()
        in_units = self.index_of.keys() | self._averaged_names
        untrained = {name: value for name, value in model.state_dict().items() if name not in in_units}
        # FSDP shards frozen parameters and casts buffers
        frozen = {name: value.to("cpu", copy=True) for name, value in untrained.items() if name in names.values()}
        self.buffers = {name: value.dtype for name, value in untrained.items() if name not in frozen}
        self.shards: list[ParameterShard] = []
        self.averaged_shards: list[ParameterShard] = []
        replicated = {name: getattr(model, name) for name in replicated_modules(model)}
        for name in replicated:
            setattr(model, name, None)
        for path in shard_units(model):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, self._wrap_unit(model.get_submodule(path), path, precision))
        root = self._wrap_unit(model, "", "fp32")
        for name, module in replicated.items():
            setattr(model, name, module)
        slices = {name: part for shard in self.shards for name, part in zip(shard.names, shard.slices, strict=True)}
        groups = [
            {**group, "params": [slices[name] for name in names]} for group, names in zip(groups, order, strict=True)
        ]
        super().__init__(model, root, groups, {part: name for name, part in slices.items()})
        self.averaged = {
            name: part for shard in self.averaged_shards for name, part in zip(shard.names, shard.slices, strict=True)
        }
        self.evaluated, self.num_shards = root, distributed.get_world_size()
        self.frozen = frozen if distributed.get_rank() == 0 else {}

    def _wrap_unit(self, module: nn.Module, path: str, precision: str) -> nn.Module:
        """Wrap a module as an FSDP unit. The parameters of inner units are not included.

        The parameters of an averaged module are flattened in the same way as those of the trained module, so that both
        have the same slices.
        """
        used: set[int] = set()
        named = {_join(path, name): parameter for name, parameter in module.named_parameters()}
        trained = [parameter for name, parameter in named.items() if name in self.index_of]
        averaged = [parameter for name, parameter in named.items() if name in self._averaged_names]
        assert not (trained and averaged), f"{path or 'the root'} has trained and averaged parameters"
        flat_module = FlatModule(module, trained or averaged, used)
        unit = FullyShardedDataParallel(
            flat_module,
            flatten_parameters=False,
            mixed_precision=precision != "fp32",
            fp32_reduce_scatter=precision != "fp32",
            compute_dtype=DTYPES[precision],
        )
        for flat in flat_module.flat_params:
            names, shapes, _ = flat.metadata()
            shard = ParameterShard(flat, [_join(path, name) for name in names], list(shapes), used)
            (self.averaged_shards if averaged else self.shards).append(shard)
        return unit

    def skip_gradient_sync(self, enabled: bool) -> AbstractContextManager[None]:
        """Return a context manager that disables gradient averaging over processes if ``enabled``.

        In this context, every process holds the gradients of the complete model.
        """
        if enabled:
            return self.module.no_sync()  # type: ignore[operator]
        for shard in self.shards:
            shard.start_last_batch()
        return nullcontext()

    def after_backward(self) -> None:
        """Give the gradients to the optimizer's parameters. A parameter that no process used gets no gradient."""
        used = [flag for shard in self.shards for flag in shard.was_used()]
        used_by_any = torch.tensor(used, dtype=torch.uint8, device=self.shards[0].flat.device)
        distributed.all_reduce(used_by_any, distributed.ReduceOp.MAX)
        flags = iter(used_by_any.bool().tolist())
        for shard in self.shards:
            shard.assign_gradients([next(flags) for _ in shard.names])

    def finish_step(self) -> None:
        """Let FSDP's CUDA streams wait for the optimizer step.

        The root unit does this only in ``forward``, which ``encode_image`` does not call.
        """
        self.module._wait_for_previous_optim_step()  # type: ignore[operator]

    def model_state(self, masters: Mapping[nn.Parameter, Tensor]) -> dict[str, Tensor]:
        """Return the complete fp32 state dict on the CPU of the first process, and an empty dict on other processes."""
        state = {}
        for shard in [*self.shards, *self.averaged_shards]:
            gathered = shard.gather([masters.get(part, part).detach() for part in shard.slices])
            if distributed.get_rank() == 0:
                state.update({name: value.cpu() for name, value in gathered.items()})
        if distributed.get_rank() > 0:
            return {}
        buffers = {
            name: value.to(self.buffers[name]) for name, value in self.named_buffers().items() if name in self.buffers
        }
        return {**state, **self.frozen, **buffers}

    def named_buffers(self) -> dict[str, Tensor]:
        """Return the model's buffers by their names before the model was wrapped."""
        return {_join("", name): buffer for name, buffer in self.model.named_buffers(remove_duplicate=False)}

    def local_weight(self, name: str, value: Tensor) -> Tensor:
        """Return this process's slice of a complete weight or average of weights."""
        return next(
            shard.slice(number, value)
            for shard in [*self.shards, *self.averaged_shards]
            for number, found in enumerate(shard.names)
            if found == name
        )

    def full_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Convert the optimizer state of the slices to the state dict of a single-process run.

        The result is on the CPU of the first process and empty on other processes.
        """
        full: dict[int, dict[str, Any]] = {}
        for shard in self.shards:
            entries = [state["state"].get(self.index_of[name], {}) for name in shard.names]
            for key, example in max(entries, key=len).items():
                if key == STEP:
                    values = {name: entry[key] for name, entry in zip(shard.names, entries, strict=True) if entry}
                else:
                    empty = [part.new_zeros(part.shape, dtype=example.dtype) for part in shard.slices]
                    values = shard.gather([e.get(key, zeros) for e, zeros in zip(entries, empty, strict=True)])
                if distributed.get_rank() == 0:
                    for name, entry in zip(shard.names, entries, strict=True):
                        if key in entry:
                            value = values[name]
                            value = value.cpu().clone() if isinstance(value, Tensor) else value
                            full.setdefault(self.index_of[name], {})[key] = value
        return {"state": dict(sorted(full.items())), "param_groups": state["param_groups"]}

    def local_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        local = {}
        for shard in self.shards:
            for number, name in enumerate(shard.names):
                index = self.index_of[name]
                if index in state["state"]:
                    local[index] = {
                        key: value if key == STEP else shard.slice(number, value)
                        for key, value in state["state"][index].items()
                    }
        return {"state": local, "param_groups": state["param_groups"]}


def _refuse_tied(model: nn.Module, names: dict[nn.Parameter, str]) -> None:
    """Raise UserError if two modules share a parameter, because units would train two copies of it."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name != names[parameter]:
            raise UserError(
                f"training.sharding: fsdp does not support tied weights, but {names[parameter]} and {name} are one "
                "parameter. Set training.sharding: ddp."
            )


def _join(path: str, name: str) -> str:
    """Return the full name of parameter ``name`` of the module at ``path``, without the names of FSDP wrappers."""
    return ".".join(part for part in [*path.split("."), *name.split(".")] if part not in WRAPPERS and part)
