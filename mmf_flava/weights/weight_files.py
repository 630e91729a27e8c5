"""Reading of weights files without executing pickled code: safetensors and PyTorch files, single or sharded."""

import argparse
import io
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from mmf_flava.compat.imports.checkpoint import safe_globals
from mmf_flava.errors import UserError
from mmf_flava.files.checkpoint_names import BEST, LATEST, NAME, read_pointer
from mmf_flava.files.checksums import verify_file
from mmf_flava.files.damaged_file import damaged_file
from mmf_flava.files.json_data import read_object
from mmf_flava.files.regular_file import open_regular_file

# (single file, index of shards), in order of preference
WEIGHTS_NAMES = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
AVERAGES = "ema.safetensors"  # in a checkpoint: the weights with the averages of training.ema
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
# classes in MMF's checkpoints, which store the configuration of the run
IN_MMF = ("omegaconf.", "numpy.", "mmf.")
REMEDY = "The file may be damaged: download or copy it again from its source."
# texts in torch's errors for files that are no pickles, for example HTML and pointers of Git LFS
NOT_A_PICKLE = ("Unsupported operand", "invalid load key")
# keys under which training code saves a model's weights; DINO saves both a teacher and a student
WRAPPERS = ("model", "state_dict", "teacher", "student", "module", "model_ema")


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint folder that a path stands for.

    A run folder and its folder ``checkpoints`` stand for the newest checkpoint. The pointer files ``latest`` and
    ``best`` in ``checkpoints`` contain the name of a checkpoint. Other paths, such as a checkpoint folder itself, are
    returned unchanged.

    Raises:
        UserError: a pointer file is missing or corrupt.
    """
    folders = (path, path / "checkpoints")
    pointer = next((file for folder in folders if (file := folder / LATEST).is_file()), None)
    if path.name in (LATEST, BEST) and not path.is_dir() and path.parent.is_dir():
        pointer = path
    if pointer is None:
        return path
    if (checkpoint := read_pointer(pointer)) is None:
        names = sorted(found.name for found in pointer.parent.glob("update_*") if NAME.fullmatch(found.name))
        known = f"Use a checkpoint in {pointer.parent}, e.g. {names[-1]}." if names else "Use other weights."
        raise UserError(f"{pointer} does not name a checkpoint. {known}")
    return checkpoint


def find_averages(path: Path) -> Path:
    """Return the file with the averages of a checkpoint, which is given as a folder or by its weights file.

    Raises:
        UserError: the checkpoint has no averages.
    """
    file = (path if path.is_dir() else path.parent) / AVERAGES
    if not file.is_file():
        raise UserError(
            f"{path} has no averages of the weights ({AVERAGES}). Use a checkpoint of a run with training.ema.enabled: "
            "true, or use its weights, without evaluation.ema or --ema."
        )
    return file


def find_weights_file(folder: Path) -> Path:
    """Return the weights file (or the index of shards) in a folder, or in the newest checkpoint of a run folder.

    Raises:
        UserError: the folder has no weights file or more than one.
    """
    for names in WEIGHTS_NAMES:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    if (checkpoint := find_checkpoint(folder)) != folder:
        return checkpoint / "model.safetensors"
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if len(files) == 1:
        return files[0]
    if files:
        raise UserError(f"{folder} has {len(files)} weights files. Set the path of one of them, e.g. {files[0]}.")
    raise UserError(
        f"{folder} has no weights. Expected model.safetensors, pytorch_model.bin or a run folder with a checkpoint."
    )


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of a weights file, or of all shards of an index, without executing pickled code.

    Returns:
        The tensors under the keys of the file, and the metadata: the header of a safetensors file, or the other entries
        of a PyTorch checkpoint whose weights are under one of the keys in ``WRAPPERS``.

    Raises:
        UserError: the file is corrupt, has no weights, or contains pickled code.
    """
    if file.name.endswith(".index.json"):
        return _read_shards(file), {}
    try:
        with open_regular_file(file) as handle:
            start = handle.read(9)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}. Check the path.") from None
    if file.suffix.lower() == ".safetensors" or (start[8:9] == b"{" and not start.startswith(b"PK")):
        verify_file(file)
        return read_safetensors(file)
    return _unwrap(_read_torch(file), file)


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file. Tied weights get all of their names.

    Raises:
        UserError: the file is missing or damaged.
    """
    with damaged_file(file, "safetensors file", REMEDY), safe_open(file, framework="pt") as opened:
        tensors, metadata = {key: opened.get_tensor(key) for key in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118
    # safetensors.torch.save_model and mmf_flava store a tied weight once
    tied = {name: tensors[saved] for name, saved in metadata.items() if saved in tensors and name not in tensors}
    return {**tensors, **tied}, metadata


def read_header(file: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file without reading tensors; {} if the file is not valid."""
    try:
        with damaged_file(file, "safetensors file", REMEDY), safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except UserError:
        return {}


def _read_torch(file: Path) -> Any:
    with damaged_file(file, "PyTorch file", REMEDY):
        return _load_tensors(file)


class _BoundedFile(io.BufferedReader):
    """A file whose ``read`` allocates at most the rest of the file, whatever length a damaged file claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        rest = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
        return super().read(rest if size is None or size < 0 else min(size, rest))


def _load_tensors(file: Path, classes: tuple[Any, ...] = (argparse.Namespace,)) -> Any:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            # torch.save does not compress, so all entries fit into the file; larger ones could exhaust the memory
            if sum(entry.file_size for entry in archive.infolist()) > file.stat().st_size:
                raise ValueError("its entries are compressed or overlap")
    try:
        # DINO's full checkpoints contain a Namespace with the training arguments; loading it executes no code
        with torch.serialization.safe_globals([*classes]), _BoundedFile(io.FileIO(file)) as opened:
            is_zip = opened.peek(4)[:4] == b"PK\3\4"  # as torch.load decides, which reads zip files by their path
            return torch.load(file if is_zip else opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if any(text in str(error) for text in NOT_A_PICKLE):
            raise UserError(f"{file} is neither a safetensors file nor a PyTorch file. {REMEDY}") from None
        found = re.search(r"GLOBAL (\S+)", str(error))
        if len(classes) == 1 and found and found[1].startswith(IN_MMF):
            return _load_tensors(file, (*classes, *safe_globals()))
        name = f" ({found[1]})" if found else ""
        raise UserError(
            f"{file} was not loaded: unpickling its Python objects{name} would execute code. "
            "Use a safetensors file, or a file that contains only tensors."
        ) from None


def _unwrap(content: Any, file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split the content of a training checkpoint into the weights and the other entries."""
    metadata: dict[str, Any] = {}
    while isinstance(content, Mapping) and not _tensors(content):
        name = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if name is None:
            break
        metadata.update({key: value for key, value in content.items() if key != name})
        content = content[name]
    tensors = _tensors(content) if isinstance(content, Mapping) else {}
    if not tensors:
        raise UserError(
            f"{file} has no weights. Expected a dictionary of tensors at the top level or under one of the keys "
            f"{', '.join(WRAPPERS)}."
        )
    return tensors, metadata


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {key: value.detach() for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}


def shard_files(index: Path) -> dict[str, list[str]]:
    """Read an index of shards; return shard file name -> keys of the tensors in that shard.

    Raises:
        UserError: the index is invalid, or a shard is not a weights file in the same folder.
    """
    try:
        weight_map = read_object(index)["weight_map"]
        shards: dict[str, list[str]] = {}
        for key, name in weight_map.items():
            shards.setdefault(name, []).append(key)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{index} is not a valid index of shards ({error!r}). The file may be damaged: download or copy it again "
            "from its source."
        ) from None
    for name in shards:
        if not isinstance(name, str) or Path(name).name != name or "\\" in name or not name.endswith(SUFFIXES):
            raise UserError(f"{index}: shard {name!r} is not a weights file in the same folder. Correct the index.")
    return shards


def _read_shards(index: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, keys in shard_files(index).items():
        shard, _ = read_tensors(index.parent / name)
        if missing := [key for key in keys if key not in shard]:
            raise UserError(
                f"{index.parent / name}: {len(missing)} tensors listed in {index.name} are missing, e.g. {missing[0]}. "
                "Download or copy the shard again from its source."
            )
        tensors.update({key: shard[key] for key in keys})
    return tensors
