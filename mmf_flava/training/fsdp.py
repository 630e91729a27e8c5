"""``training.sharding: fsdp``: fairseq's FullyShardedDataParallel around each block, encoder, head and projection.

The parameters of a unit are flattened into one parameter per parameter group of the optimizer, and each process keeps a
shard of it. Parameters that are not always used by the same batches must be in different units, because Adam would
update those without a gradient. Therefore every head is a unit, and the root unit has only the logit scale.
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
        """Gather ``values``, shaped like the shard, from all processes and unflatten them; all must call it."""
        flat = values.new_empty(distributed.get_world_size() * len(values))
        distributed.all_gather_into_tensor(flat, values.detach().contiguous())
        sizes = [shape.numel() for shape in self.shapes]
        chunks = flat[: sum(sizes)].split(sizes)
        return {name: chunk.view(shape) for name, chunk, shape in zip(self.names, chunks, self.shapes, strict=True)}

    def flatten_and_shard(self, values: list[Tensor]) -> Tensor:
        """Flatten one tensor per parameter and return this process's shard."""
        flat, size = torch.cat([value.flatten() for value in values]), len(self.parameter)
        padded = pad(flat, (0, size * distributed.get_world_size() - len(flat)))
        return padded[size * distributed.get_rank() :][:size].clone()


class FsdpEngine(Engine):
    """A FLAVA whose weights, gradients and optimizer state are sharded over all processes.

    Weights and optimizer state are stored in fp32; weights are gathered in the compute precision. All processes must
    take part in every forward pass, including evaluations.
    """

    all_ranks_evaluate = True

    def __init__(self, model: Any, groups: list[dict[str, Any]], precision: str) -> None:
        names = {parameter: name for name, parameter in model.named_parameters()}
        self.group_of = {names[p]: number for number, group in enumerate(groups) for p in group["params"]}
        # the index of each parameter in the optimizer state of a single process
        self.index_of = {name: i for i, name in enumerate(names[p] for group in groups for p in group["params"])}
        self.untrained = {name: value for name, value in model.state_dict().items() if name not in self.group_of}
        self.shards: list[list[ParameterShard]] = [[] for _ in groups]
        codebook, model.codebook = model.codebook, None  # frozen and identical on all processes
        for path in _unit_paths(model):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, self._wrap_unit(model.get_submodule(path), path, precision))
        root = self._wrap_unit(model, "", "fp32")
        model.codebook = codebook
        flat = [[shard.parameter for shard in shards] for shards in self.shards]
        super().__init__(model, root, [{**group, "params": p} for group, p in zip(groups, flat, strict=True)])
        self.evaluated = root

    def _wrap_unit(self, module: nn.Module, path: str, precision: str) -> nn.Module:
        """Flatten and shard the parameters of a module that are not in an inner unit, by parameter group."""
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
        """See ``Engine``; every process accumulates the gradients of the complete model in the meantime."""
        return self.module.no_sync() if enabled else nullcontext()  # type: ignore[operator]

    def total_norm(self, norm: Tensor) -> Tensor:
        squares = norm.to(self.weights[0].device).square()
        distributed.all_reduce(squares)
        return squares.sqrt()

    def after_step(self) -> None:
        """Clamp the logit scale, the root's only parameter; the model's own ``temperature`` clamps a gathered copy.

        Then make FSDP's streams wait: the root itself does so in ``forward`` only, which ``encode_image`` skips.
        """
        for parameter in self.module.params:  # type: ignore[union-attr]
            parameter.data.clamp_(0, self.model.flava.logit_scale_max)  # type: ignore[union-attr]
        self.module._wait_for_previous_optim_step()  # type: ignore[operator]

    def model_state(self, masters: Masters) -> dict[str, Tensor]:
        """See ``Engine``; the result is on the CPU of the first process and empty on others."""
        state = {}
        for shard in (shard for shards in self.shards for shard in shards):
            gathered = shard.gather(masters[shard.parameter])
            if distributed.get_rank() == 0:
                state.update({name: value.cpu() for name, value in gathered.items()})
        return {**state, **self.untrained} if state else {}

    def full_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """See ``Engine``; the result is on the CPU of the first process and empty on others."""
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
                if key == STEP:  # one per unit; parameters that were updated less often take the maximum
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
    """Return the paths of the modules that become units below the root, inner ones first."""
    blocks = [f"flava.{name}.blocks.{i}" for name in ENCODERS for i in range(len(getattr(model.flava, name).blocks))]  # type: ignore[arg-type]
    encoders = [f"flava.{name}" for name in ENCODERS]
    projections = ["flava.image_projection", "flava.text_projection"]
    return [*blocks, *encoders, *projections, *(f"heads.{name}" for name in model.heads)]  # type: ignore[union-attr]


def _join(path: str, name: str) -> str:
    """Return the model's name of the parameter ``name`` of the module at ``path``, without the names of wrappers."""
    return ".".join(part for part in [*path.split("."), *name.split(".")] if part not in WRAPPERS and part)
