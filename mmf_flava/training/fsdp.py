"""``training.sharding: fsdp``: fairseq's FullyShardedDataParallel (FSDP).

Each block, encoder, head and projection is wrapped as an FSDP unit. The parameters of a unit are flattened into one
parameter per parameter group of the optimizer, and each process keeps a shard of every flat parameter. If only some
parameters of a unit received a gradient, Adam would also update the others. Therefore parameters that are not always
used by the same batches are in different units: every head is a unit, and the root unit has only the logit scale.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from fairscale.nn import FlattenParamsWrapper
from fairseq.distributed.fully_sharded_data_parallel import FullyShardedDataParallel
from torch import Tensor, distributed, nn
from torch.nn.functional import pad

from mmf_flava.training.engine import Engine, Masters

COMPUTE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ENCODERS = ("image_encoder", "text_encoder", "multimodal_encoder")
STEP = "step"  # the only scalar in an optimizer's state; the other entries have the parameter's shape
WRAPPERS = ("_fpw_module", "_fsdp_wrapped_module")


@dataclass
class ParameterShard:
    """This process's shard of a flat parameter, with the names and shapes of the flattened parameters."""

    parameter: nn.Parameter
    names: list[str]
    shapes: list[torch.Size]

    def gather(self, values: Tensor) -> dict[str, Tensor]:
        """Gather ``values``, shaped like the shard, from all processes and unflatten them.

        Must be called by all processes.
        """
        flat = values.new_empty(distributed.get_world_size() * len(values))
        distributed.all_gather_into_tensor(flat, values.detach().contiguous())
        sizes = [shape.numel() for shape in self.shapes]
        chunks = flat[: sum(sizes)].split(sizes)
        return {name: chunk.view(shape) for name, chunk, shape in zip(self.names, chunks, self.shapes, strict=True)}

    def flatten_and_shard(self, values: list[Tensor]) -> Tensor:
        """Flatten and concatenate one tensor per parameter, and return this process's shard of the result."""
        flat, size = torch.cat([value.flatten() for value in values]), len(self.parameter)
        padded = pad(flat, (0, size * distributed.get_world_size() - len(flat)))
        return padded[size * distributed.get_rank() :][:size].clone()


class FsdpEngine(Engine):
    """A FLAVA model whose weights, gradients and optimizer state are sharded over all processes.

    Weights and optimizer state are stored in fp32; weights are gathered in the compute precision. All processes must
    take part in every forward pass, including evaluations.
    """

    all_ranks_evaluate = True

    def __init__(self, model: Any, groups: list[dict[str, Any]], precision: str) -> None:
        names = {parameter: name for name, parameter in model.named_parameters()}
        self.group_of = {names[p]: number for number, group in enumerate(groups) for p in group["params"]}
        # index of each parameter in the optimizer state of a single-process run
        self.index_of = {name: i for i, name in enumerate(names[p] for group in groups for p in group["params"])}
        self.untrained = {name: value for name, value in model.state_dict().items() if name not in self.group_of}
        self.shards: list[list[ParameterShard]] = [[] for _ in groups]
        codebook, model.codebook = model.codebook, None  # not sharded: frozen and identical on all processes
        for path in _unit_paths(model):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, self._wrap_unit(model.get_submodule(path), path, precision))
        root = self._wrap_unit(model, "", "fp32")
        model.codebook = codebook
        flat = [[shard.parameter for shard in shards] for shards in self.shards]
        super().__init__(model, root, [{**group, "params": p} for group, p in zip(groups, flat, strict=True)])
        self.evaluated, self.num_shards = root, distributed.get_world_size()

    def _wrap_unit(self, module: nn.Module, path: str, precision: str) -> nn.Module:
        """Wrap a module as an FSDP unit with one flat parameter per parameter group.

        The parameters of inner units are not included.
        """
        groups: dict[int, list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if (number := self.group_of.get(_join(path, name))) is not None:
                groups.setdefault(number, []).append(parameter)
        flattened = FlattenParamsWrapper(module, param_list=list(groups.values()))
        for number, parameter in zip(groups, flattened.flat_params, strict=True):
            names, shapes, _ = parameter.metadata()
            self.shards[number].append(ParameterShard(parameter, [_join(path, name) for name in names], list(shapes)))
        return FullyShardedDataParallel(
            flattened,
            flatten_parameters=False,
            mixed_precision=precision != "fp32",
            fp32_reduce_scatter=precision != "fp32",
            compute_dtype=COMPUTE[precision],
        )

    def skip_gradient_sync(self, enabled: bool) -> AbstractContextManager[None]:
        """Return a context manager that disables gradient averaging over processes if ``enabled``.

        In this context, every process holds the gradients of the complete model.
        """
        return self.module.no_sync() if enabled else nullcontext()  # type: ignore[operator]

    def after_step(self) -> None:
        """Clamp the logit scale, the only parameter of the root unit, and synchronise FSDP's CUDA streams.

        The method ``Flava.temperature`` clamps only a gathered copy of the logit scale. The root unit synchronises
        the streams only in ``forward``, which ``encode_image`` does not call.
        """
        for parameter in self.module.params:  # type: ignore[union-attr]
            parameter.data.clamp_(0, self.model.flava.logit_scale_max)  # type: ignore[union-attr]
        self.module._wait_for_previous_optim_step()  # type: ignore[operator]

    def model_state(self, masters: Masters) -> dict[str, Tensor]:
        """Return the complete fp32 state dict on the CPU of the first process, and an empty dict on other processes."""
        state = {}
        for shard in (shard for shards in self.shards for shard in shards):
            gathered = shard.gather(masters[shard.parameter])
            if distributed.get_rank() == 0:
                state.update({name: value.cpu() for name, value in gathered.items()})
        return {**state, **self.untrained} if state else {}

    def full_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Convert the sharded optimizer state to the state dict of a single-process run.

        The result is on the CPU of the first process and empty on other processes.
        """
        full: dict[int, dict[str, Any]] = {}
        shards = [shard for group in self.shards for shard in group]
        for number, shard in enumerate(shards):
            for key, value in state["state"].get(number, {}).items():
                sharded = isinstance(value, Tensor) and value.shape == shard.parameter.shape
                values = shard.gather(value) if sharded else dict.fromkeys(shard.names, value)
                if distributed.get_rank() == 0:
                    for name, entry in values.items():
                        entry = entry.cpu().clone() if isinstance(entry, Tensor) else entry
                        full.setdefault(self.index_of[name], {})[key] = entry
        groups = [
            {**group, "params": sorted(self.index_of[name] for shard in shards for name in shard.names)}
            for group, shards in zip(state["param_groups"], self.shards, strict=True)
        ]
        return {"state": dict(sorted(full.items())), "param_groups": groups}

    def local_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        local: dict[int, dict[str, Any]] = {}
        shards = [shard for group in self.shards for shard in group]
        for number, shard in enumerate(shards):
            entries = [state["state"].get(self.index_of[name], {}) for name in shard.names]
            for key in max(entries, key=len):
                if key == STEP:  # one step count per flat parameter: the maximum of the step counts of its parameters
                    local.setdefault(number, {})[key] = max(entry[key] for entry in entries if entry)
                else:
                    values = [
                        entry[key] if entry else torch.zeros(shape)
                        for entry, shape in zip(entries, shard.shapes, strict=True)
                    ]
                    local.setdefault(number, {})[key] = shard.flatten_and_shard(values)
        counts = iter(range(len(shards)))
        groups = [
            {**group, "params": [next(counts) for _ in shards]}
            for group, shards in zip(state["param_groups"], self.shards, strict=True)
        ]
        return {"state": local, "param_groups": groups}


def _unit_paths(model: nn.Module) -> list[str]:
    """Return the paths of the modules that become FSDP units, except the root; inner modules come first."""
    blocks = [f"flava.{name}.blocks.{i}" for name in ENCODERS for i in range(len(getattr(model.flava, name).blocks))]  # type: ignore[arg-type]
    encoders = [f"flava.{name}" for name in ENCODERS]
    projections = ["flava.image_projection", "flava.text_projection"]
    return [*blocks, *encoders, *projections, *(f"heads.{name}" for name in model.heads)]  # type: ignore[union-attr]


def _join(path: str, name: str) -> str:
    """Return the full name of parameter ``name`` of the module at ``path``, without the names of FSDP wrappers."""
    return ".".join(part for part in [*path.split("."), *name.split(".")] if part not in WRAPPERS and part)
