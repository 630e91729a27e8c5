"""Files of weights, read as data: safetensors and torch's format without its pickled code, whole or in shards."""

import argparse
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmf_flava.errors import UserError
from mmf_flava.files.checksums import verify_file

# looked for in this order
WHOLE_AND_INDEX = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
# where training code puts a model's weights beside its own things; DINO has a teacher and a student
WRAPPERS = ("model", "state_dict", "teacher", "student", "module", "model_ema")


def weight_file(folder: Path) -> Path:
    """The file of weights, or the index of shards, in a folder; in a run's folder that of its newest checkpoint.

    Raises:
        UserError: there is none, or there are several and nothing says which.
    """
    for names in WHOLE_AND_INDEX:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    pointer = next((p for p in (folder / "latest", folder / "checkpoints" / "latest") if p.is_file()), None)
    if pointer is not None:
        newest = pointer.read_text(errors="replace").partition(" ")[0].strip()
        if Path(newest).name == newest and (file := pointer.parent / newest / "model.safetensors").is_file():
            return file
    files = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    if len(files) == 1:
        return files[0]
    if files:
        raise UserError(f"{folder} holds {len(files)} files of weights; name the one you mean, e.g. {files[0]}.")
    raise UserError(
        f"{folder} holds no weights: looked for model.safetensors, pytorch_model.bin and a run's checkpoint."
    )


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file or of an index's shards, in the file's own names, and what the file says besides.

    The second is safetensors' metadata, or the other entries of a torch file whose weights lie under ``model``. Nothing
    in a file is ever executed.

    Raises:
        UserError: the file is damaged, holds something else, or would have to be executed.
    """
    if file.name.endswith(".index.json"):
        return _read_shards(file), {}
    try:
        with open(file, "rb") as handle:
            start = handle.read(9)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    if file.suffix == ".safetensors" or (start[8:9] == b"{" and not start.startswith(b"PK")):
        return _read_safetensors(file)
    return _unwrap(_read_torch(file), file)


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    verify_file(file)
    try:
        with safe_open(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is no safetensors file, or a damaged one ({error}); fetch it again.") from None


def _read_torch(file: Path) -> Any:
    try:
        # Namespace holds plain values only; DINO's full checkpoints keep their arguments in one
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = next(
            (line.strip() for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line), ""
        )
        raise UserError(
            f"{file} was not read: besides tensors it holds Python objects that reading would execute. {wanted[:200]} "
            "If you trust whoever made it, open it where it was made and save its tensors alone, best as safetensors."
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is no file of torch, or a damaged one ({str(error).splitlines()[0]}).") from None


def _unwrap(content: Any, file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Finds the weights among what a training run has put around them."""
    others: dict[str, Any] = {}
    while isinstance(content, Mapping) and not _tensors(content):
        name = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if name is None:
            break
        others.update({key: value for key, value in content.items() if key != name})
        content = content[name]
    tensors = _tensors(content) if isinstance(content, Mapping) else {}
    if not tensors:
        raise UserError(f"{file} holds no weights: neither tensors by name nor a model or state_dict with such.")
    return tensors, others


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {key: value.detach() for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}


def shard_files(index: Path) -> dict[str, list[str]]:
    """Names of the shards that lie beside an index, each with the keys that it must hold.

    Raises:
        UserError: the index is damaged, or points outside of its folder.
    """
    try:
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards: dict[str, list[str]] = {}
        for key, name in placed.items():
            shards.setdefault(name, []).append(key)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index} is no index of shards, or a damaged one ({error!r}).") from None
    for name in shards:
        if not isinstance(name, str) or Path(name).name != name or "\\" in name or not name.endswith(SUFFIXES):
            raise UserError(f"{index} points to {name!r}, which is no file of weights beside it; it was not read.")
    return shards


def _read_shards(index: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, keys in shard_files(index).items():
        found, _ = read_tensors(index.parent / name)
        if lacking := [key for key in keys if key not in found]:
            raise UserError(
                f"{index.parent / name} lacks {len(lacking)} tensors that {index.name} names: {lacking[0]}."
            )
        tensors.update({key: found[key] for key in keys})
    return tensors
