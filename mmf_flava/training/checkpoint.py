"""Reading and writing of checkpoint contents: safetensors and JSON, no pickle files."""

import base64
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmf_flava.data.processor_files import write_processors
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.files.json_data import read_object
from mmf_flava.training.model_interface import metadata
from mmf_flava.weights.weight_files import AVERAGES, read_safetensors

TENSOR_HEADER = 128  # bytes of the entry of a tensor in the header of a safetensors file, in addition to its name


class Stateful(Protocol):
    """Object with a ``state_dict``: a module, an optimizer or a ``GatheredState``."""

    def state_dict(self) -> dict[str, Any]: ...


@dataclass
class GatheredState:
    """State dict of a model or an optimizer, gathered from all processes.

    Attributes:
        header: metadata of the weights file; {} for an optimizer.
    """

    state: dict[str, Any]
    header: dict[str, str] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def metadata(self) -> dict[str, str]:
        return self.header


@dataclass
class Snapshot:
    """The contents of a checkpoint: the state of a run after an update.

    Attributes:
        weights: the model's tensors by name.
        metadata: header of the weights file. As in ``safetensors.torch.save_model``, it maps each further name of a
            tied weight to the name under which it is saved.
        optimizer: the optimizer's tensors under keys ``<parameter index>.<name>``.
        state_json: content of ``state.json``.
        processors: the image and text processors of the run.
        averages: tensors of the model with averages as weights.
    """

    update: int
    weights: dict[str, Tensor]
    metadata: dict[str, str]
    optimizer: dict[str, Tensor]
    state_json: str
    processors: SavedProcessors | None = None
    averages: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def take(
        cls,
        update: int,
        model: Stateful,
        optimizer: Stateful,
        state: dict[str, Any],
        processors: SavedProcessors | None,
        copy: bool,
        averages: Mapping[str, Tensor] | None = None,
    ) -> "Snapshot":
        """Take a snapshot of ``model``, ``optimizer`` and ``averages``. If ``copy``, copy their tensors to the CPU."""
        tensors, description = _flatten_optimizer(optimizer.state_dict())
        state_json = json.dumps({"update": update, "optimizer": description, **state}, indent=1)
        convert = _copy_to_cpu if copy else torch.Tensor.contiguous
        weights, tied = _split_tied(model.state_dict())
        return cls(
            update,
            {name: convert(tensor) for name, tensor in weights.items()},
            {"format": "pt", **metadata(model), **tied},
            {name: convert(tensor) for name, tensor in tensors.items()},
            state_json,
            processors,
            {name: convert(tensor) for name, tensor in _split_tied(averages or {})[0].items()},
        )

    def write(self, folder: Path) -> None:
        """Write the tensors (``.safetensors``), ``state.json`` and the processors to ``folder``."""
        save_file(self.weights, folder / "model.safetensors", metadata=self.metadata)
        if self.averages:
            save_file(self.averages, folder / AVERAGES, metadata=self.metadata)
        save_file(self.optimizer, folder / "optimizer.safetensors")
        (folder / "state.json").write_text(self.state_json, encoding="utf-8")
        if self.processors is not None:
            write_processors(self.processors, folder)

    def file_sizes(self) -> list[int]:
        """Return the approximate sizes of the files that ``write`` writes, in bytes."""
        processors = "" if self.processors is None else json.dumps(self.processors.to_json())
        return [
            *(
                sum(tensor.nbytes + len(name) + TENSOR_HEADER for name, tensor in tensors.items())
                for tensors in (self.weights, self.optimizer, self.averages)
            ),
            len(self.state_json) + len(str(self.metadata)) + len(processors),
        ]


def is_finite(checkpoint: Path) -> bool:
    """Return whether all weights and the optimizer state of a checkpoint are finite.

    Args:
        checkpoint: a checkpoint whose checksums have been verified.
    """
    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                if not tensors.get_tensor(name).isfinite().all():
                    return False
    return True


def _split_tied(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split a state dict into tensors of different memory and a mapping of the other names to these.

    Tensors that share only a part of their memory are copied, because safetensors refuses them.
    """
    tensors, tied = dict[str, Tensor](), dict[str, str]()
    names, storages = dict[Any, str](), set[Any]()
    for name, tensor in state.items():
        view = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        storage = (tensor.untyped_storage().data_ptr(), tensor.device)
        if tensor.numel() and view in names:
            tied[name] = names[view]
            continue
        tensors[name] = tensor.clone() if storage in storages else tensor
        names[view] = name
        storages.add(storage)
    return tensors, tied


def _copy_to_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def load_state(path: Path, optimizer: Any | None) -> dict[str, Any]:
    """Return the content of a checkpoint's ``state.json``. Load the optimizer state if ``optimizer`` is not None."""
    state = read_object(path / "state.json")
    if optimizer is not None:
        tensors = read_safetensors(path / "optimizer.safetensors")[0]
        optimizer.load_state_dict(_unflatten_optimizer(tensors, state["optimizer"]))
    return state


def restore_rng(rng: dict[str, Any]) -> None:
    """Restore the random number generators of Python, numpy, torch and CUDA from ``rng_state``."""
    version, internal, gauss = rng["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(rng["numpy"])
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(rng["torch"])), dtype=torch.uint8))
    if rng["cuda"] is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(rng["cuda"])), dtype=torch.uint8))


def rng_state() -> dict[str, Any]:
    """Return the states of this process's random number generators: Python, numpy, torch, current CUDA device."""
    numpy: dict[str, Any] = np.random.get_state(legacy=False)
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "python": random.getstate(),
        "numpy": {**numpy, "state": {"key": numpy["state"]["key"].tolist(), "pos": numpy["state"]["pos"]}},
        "torch": base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode(),
        "cuda": base64.b64encode(torch.cuda.get_rng_state().numpy().tobytes()).decode() if cuda else None,
    }


def _flatten_optimizer(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state dict into tensors (keys ``<parameter index>.<name>``) and JSON-serialisable values."""
    tensors, numbers = {}, {}
    for parameter, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{parameter}.{name}"] = value
            else:
                numbers[f"{parameter}.{name}"] = value
    return tensors, {"numbers": numbers, "param_groups": state["param_groups"]}


def _unflatten_optimizer(tensors: dict[str, Tensor], description: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *description["numbers"].items()]:
        parameter, _, name = key.partition(".")
        state.setdefault(int(parameter), {})[name] = value
    return {"state": state, "param_groups": description["param_groups"]}
