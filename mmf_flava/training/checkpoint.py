"""What a checkpoint holds: safetensors and JSON, never a pickle; how it is written and how it is read."""

import base64
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmf_flava.config.model import FlavaConfig
from mmf_flava.config.run import CheckpointConfig
from mmf_flava.errors import UserError
from mmf_flava.weights.sources import CONFIG_KEY
from mmf_flava.weights.sizes import to_plain
from mmf_flava.models.pretrained import load_image_encoder, load_text_encoder, load_weights


class Stateful(Protocol):
    """A module, an optimizer, or what was gathered of one."""

    def state_dict(self) -> dict[str, Any]: ...


@dataclass
class Gathered:
    """The state dict of a model (with its sizes) or of an optimizer, gathered from all processes."""

    state: dict[str, Any]
    settings: Any = None

    def state_dict(self) -> dict[str, Any]:
        return self.state


@dataclass
class Snapshot:
    """A run between two updates, as it is written.

    weights, optimizer: tensors by name; metadata: of the weights' file; text: the rest, JSON.
    """

    update: int
    weights: dict[str, Tensor]
    metadata: dict[str, str]
    optimizer: dict[str, Tensor]
    text: str

    @classmethod
    def of(cls, update: int, model: Stateful, optimizer: Stateful, state: dict[str, Any], copy: bool) -> "Snapshot":
        """What ``model`` and ``optimizer`` hold now; with ``copy`` in memory of its own, on the CPU."""
        tensors, description = _flatten_optimizer(optimizer.state_dict())
        text = json.dumps({"update": update, "optimizer": description, **state}, indent=1)
        take = _copied if copy else torch.Tensor.contiguous
        return cls(
            update,
            {name: take(tensor) for name, tensor in model.state_dict().items()},
            _metadata(model),
            {name: take(tensor) for name, tensor in tensors.items()},
            text,
        )

    def write(self, folder: Path) -> None:
        """Writes ``model.safetensors``, ``optimizer.safetensors`` and ``state.json`` into ``folder``."""
        save_file(self.weights, folder / "model.safetensors", metadata=self.metadata)
        save_file(self.optimizer, folder / "optimizer.safetensors")
        (folder / "state.json").write_text(self.text, encoding="utf-8")


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _metadata(model: Stateful) -> dict[str, str]:
    """The model's sizes, so that whoever reads the weights needs no recipe."""
    settings = getattr(model, "settings", None)
    return {"format": "pt"} | (
        {CONFIG_KEY: json.dumps(to_plain(settings))} if isinstance(settings, FlavaConfig) else {}
    )


def load_model(path: Path, model: nn.Module) -> None:
    """Loads the weights of a checkpoint folder or of a ``.safetensors`` file into ``model``.

    Raises:
        UserError: no such file, or keys or shapes that do not fit; all of them are named.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise UserError(f"{path} is neither a checkpoint folder of mmf_flava nor a .safetensors file.")
    own, given = model.state_dict(), load_file(file)
    problems = [f"missing {key}" for key in own.keys() - given.keys()]
    problems += [f"unknown {key}" for key in given.keys() - own.keys()]
    problems += [
        f"{key} is {tuple(given[key].shape)}, the model's is {tuple(own[key].shape)}"
        for key in own.keys() & given.keys()
        if own[key].shape != given[key].shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        raise UserError(f"{file} does not fit the model of this recipe ({len(problems)} keys): {shown}.")
    model.load_state_dict(given)


def start(model: nn.Module, whole: str | None, wishes: CheckpointConfig, cache_dir: str | None) -> list[str]:
    """Starts a run from other people's weights: of a whole FLAVA, or else of the encoders that its recipe names.

    Returns one sentence for each source.

    Raises:
        UserError: no such source, an unsafe file, or weights that do not fit and are not allowed by name.
    """
    allowed = {"allow_missing": wishes.allow_missing, "allow_extra": wishes.allow_extra}
    if whole is not None:
        fits = [("model", whole, load_weights(model, whole, cache_dir=cache_dir, **allowed))]
    else:
        fits = []
        loaders = {"image_encoder": load_image_encoder, "text_encoder": load_text_encoder}
        for name, load in loaders.items():
            source = getattr(getattr(model.settings, name), "pretrained", None)  # type: ignore[arg-type]
            if source is not None:
                encoder = getattr(model.flava, name)  # type: ignore[union-attr]
                fits.append((name.replace("_", " "), source, load(encoder, source, cache_dir=cache_dir, **allowed)))  # type: ignore[operator]
    return [
        f"Started the {name} from {source}"
        + (f"; allowed not to fit: {len(fit.allowed)}, such as {fit.allowed[0]}" if fit.allowed else "")
        for name, source, fit in fits
    ]


def load_state(path: Path, optimizer: Any | None) -> dict[str, Any]:
    """Loads the optimizer's state of a checkpoint folder, where one is given, and returns ``state.json``."""
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if optimizer is not None:
        tensors = load_file(path / "optimizer.safetensors")
        optimizer.load_state_dict(_unflatten_optimizer(tensors, state["optimizer"]))
    return state


def restore_rng(rng: dict[str, Any]) -> None:
    """Sets Python's, numpy's and torch's generators as ``rng_state`` found them."""
    version, internal, gauss = rng["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(rng["numpy"])
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(rng["torch"])), dtype=torch.uint8))
    if rng["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(rng["cuda"])), dtype=torch.uint8))


def rng_state() -> dict[str, Any]:
    """This process's generators: Python's, numpy's, torch's, and CUDA's on its current device."""
    numpy: dict[str, Any] = np.random.get_state(legacy=False)
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "python": random.getstate(),
        "numpy": {**numpy, "state": {"key": numpy["state"]["key"].tolist(), "pos": numpy["state"]["pos"]}},
        "torch": base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode(),
        "cuda": base64.b64encode(torch.cuda.get_rng_state().numpy().tobytes()).decode() if cuda else None,
    }


def _flatten_optimizer(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors under ``<parameter>.<name>``; numbers and parameter groups as JSON."""
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
