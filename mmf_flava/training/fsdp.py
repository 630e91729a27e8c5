"""``training.sharding: fsdp``: fairseq's FullyShardedDataParallel around each block, encoder, head and projection.

A unit's parameters are flattened into one for each parameter group of the optimizer, and each process keeps a shard of
it. Parameters that a batch may use apart must not share one, for Adam would move what had no gradient: so every head is
a unit, and what is left for the root is the logit scale.
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
STEP = "step"  # the one entry of an optimizer's state that is a number; others have the parameter's shape
WRAPPERS = ("_fpw_module", "_fsdp_wrapped_module")


@dataclass
class Shard:
    """This process's shard of a flat parameter, and the names and shapes of what is in the whole of it."""

    parameter: nn.Parameter
    names: list[str]
    shapes: list[torch.Size]

    def gather(self, values: Tensor) -> dict[str, Tensor]:
        """What all processes have of ``values``, shaped as the shard, put together; every process must call it."""
        whole = values.new_empty(distributed.get_world_size() * len(values))
        distributed.all_gather_into_tensor(whole, values.detach().contiguous())
        sizes = [shape.numel() for shape in self.shapes]
        parts = whole[: sum(sizes)].split(sizes)
        return {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}

    def cut(self, values: list[Tensor]) -> Tensor:
        """This process's shard of what the named parameters have."""
        whole, size = torch.cat([value.flatten() for value in values]), len(self.parameter)
        padded = pad(whole, (0, size * distributed.get_world_size() - len(whole)))
        return padded[size * distributed.get_rank() :][:size].clone()


class Sharded(Engine):
    """A FLAVA whose weights, gradients and optimizer state are spread over all processes.

    Weights and optimizer state are kept in fp32; weights are gathered in the precision that is computed with. Every
    process must take part in every forward pass, evaluations included.
    """

    all_evaluate = True

    def __init__(self, model: Any, groups: list[dict[str, Any]], precision: str) -> None:
        names = {parameter: name for name, parameter in model.named_parameters()}
        self.group_of = {names[p]: number for number, group in enumerate(groups) for p in group["params"]}
        # how a single process's optimizer numbers the parameters
        self.numbers = {name: i for i, name in enumerate(names[p] for group in groups for p in group["params"])}
        self.untrained = {name: value for name, value in model.state_dict().items() if name not in self.group_of}
        self.shards: list[list[Shard]] = [[] for _ in groups]
        codebook, model.codebook = model.codebook, None  # frozen, and the same everywhere
        for path in _units(model):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, self._unit(model.get_submodule(path), path, precision))
        root = self._unit(model, "", "fp32")
        model.codebook = codebook
        flat = [[shard.parameter for shard in shards] for shards in self.shards]
        super().__init__(model, root, [{**group, "params": p} for group, p in zip(groups, flat, strict=True)])
        self.evaluated = root

    def _unit(self, module: nn.Module, path: str, precision: str) -> nn.Module:
        """Flattens what no inner unit has, group by group, and shards it."""
        groups: dict[int, list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if (number := self.group_of.get(_join(path, name))) is not None:
                groups.setdefault(number, []).append(parameter)
        flattened = FlattenParamsWrapper(module, param_list=list(groups.values()))
        for number, parameter in zip(groups, flattened.flat_params, strict=True):
            names, shapes, _ = parameter.metadata()
            self.shards[number].append(Shard(parameter, [_join(path, name) for name in names], list(shapes)))
        return FullyShardedDataParallel(
            flattened,
            flatten_parameters=False,
            mixed_precision=precision != "fp32",
            fp32_reduce_scatter=precision != "fp32",
            compute_dtype=COMPUTE[precision],
        )

    def without_communication(self, wanted: bool) -> AbstractContextManager[None]:
        """See ``Engine``; each process has the gradients of the whole model in the meantime."""
        return self.module.no_sync() if wanted else nullcontext()  # type: ignore[operator]

    def total_norm(self, norm: Tensor) -> Tensor:
        squares = norm.to(self.weights[0].device).square()
        distributed.all_reduce(squares)
        return squares.sqrt()

    def after_step(self) -> None:
        """Clamps the logit scale, the root's only parameter: what ``temperature`` clamps is a gathered copy."""
        for parameter in self.module.params:  # type: ignore[union-attr]
            parameter.data.clamp_(0, self.model.flava.logit_scale_max)  # type: ignore[union-attr]

    def model_state(self, masters: Masters) -> dict[str, Tensor]:
        """See ``Engine``; on the CPU of the first process, empty on others."""
        state = {}
        for shard in (shard for shards in self.shards for shard in shards):
            whole = shard.gather(masters[shard.parameter])
            if distributed.get_rank() == 0:
                state.update({name: value.cpu() for name, value in whole.items()})
        return {**state, **self.untrained} if state else {}

    def whole_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """See ``Engine``; on the CPU of the first process, empty on others."""
        whole: dict[int, dict[str, Any]] = {}
        shards = [shard for group in self.shards for shard in group]
        for number, shard in enumerate(shards):
            for key, value in state["state"].get(number, {}).items():
                flat = isinstance(value, Tensor) and value.shape == shard.parameter.shape
                values = shard.gather(value) if flat else dict.fromkeys(shard.names, value)
                if distributed.get_rank() == 0:
                    for name, part in values.items():
                        part = part.cpu().clone() if isinstance(part, Tensor) else part
                        whole.setdefault(self.numbers[name], {})[key] = part
        groups = [
            {**group, "params": sorted(self.numbers[name] for shard in shards for name in shard.names)}
            for group, shards in zip(state["param_groups"], self.shards, strict=True)
        ]
        return {"state": dict(sorted(whole.items())), "param_groups": groups}

    def own_optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        own: dict[int, dict[str, Any]] = {}
        shards = [shard for group in self.shards for shard in group]
        for number, shard in enumerate(shards):
            parts = [state["state"].get(self.numbers[name], {}) for name in shard.names]
            for key in max(parts, key=len):
                if key == STEP:  # a unit has one; a parameter that was used less often follows the others
                    own.setdefault(number, {})[key] = max(part[key] for part in parts if part)
                else:
                    values = [
                        part[key] if part else torch.zeros(shape)
                        for part, shape in zip(parts, shard.shapes, strict=True)
                    ]
                    own.setdefault(number, {})[key] = shard.cut(values)
        counts = iter(range(len(shards)))
        groups = [
            {**group, "params": [next(counts) for _ in shards]}
            for group, shards in zip(state["param_groups"], self.shards, strict=True)
        ]
        return {"state": own, "param_groups": groups}


def _units(model: nn.Module) -> list[str]:
    """Paths of what becomes a unit below the root, inner ones first."""
    blocks = [f"flava.{name}.blocks.{i}" for name in ENCODERS for i in range(len(getattr(model.flava, name).blocks))]  # type: ignore[arg-type]
    encoders = [f"flava.{name}" for name in ENCODERS]
    projections = ["flava.image_projection", "flava.text_projection"]
    return [*blocks, *encoders, *projections, *(f"heads.{name}" for name in model.heads)]  # type: ignore[union-attr]


def _join(path: str, name: str) -> str:
    """The name in the model of what ``name`` is in the module at ``path``, wrapped or not."""
    return ".".join(part for part in [*path.split("."), *name.split(".")] if part not in WRAPPERS and part)
