"""Reading of the tensors of a pickled PyTorch module, such as OpenAI's ``encoder.pkl``, without executing code.

``torch.save(module)`` writes a pickle, and unpickling can execute arbitrary code. ``files.pickle_reader`` reads it
without importing the names in it. Instances of the module's classes are replaced by an ``InertObject``, which stores
their state but none of their code. Tensors are replaced by a ``TensorSpec``.

Both file formats of PyTorch are supported: the zip archive (since torch 1.6) and the legacy sequence of pickles.
"""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mmf_flava.errors import UserError
from mmf_flava.files.pickle_stack import PickleError
from mmf_flava.files.regular_file import open_regular_file
from mmf_flava.weights.restricted_pickle import InertObject, Storage, TensorSpec, unpickle

MAX_MODULES = 10_000  # ends the traversal of malicious files, e.g. of a module that contains itself
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_pickled_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return the parameters and buffers of a pickled PyTorch module, or the tensors of a pickled dictionary, by name.

    Raises:
        UserError: the file does not exist, has another format, references a name that is not allowed, or has
            tensors of invalid size. Nothing in the file is executed.
    """
    path = Path(path)
    try:
        with open_regular_file(path) as file:
            read = _read_zip if zipfile.is_zipfile(file) else _read_legacy
            file.seek(0)
            root = read(file, path.stat().st_size)
        return _tensors(root)
    except (UserError, PickleError) as error:
        raise UserError(
            f"{path} was not loaded, and nothing in it was executed: {error}. Download the file again, or convert it "
            "to safetensors."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}. Check the path.") from None
    except MemoryError:
        raise
    except Exception as error:  # a corrupt archive can raise almost any exception
        raise UserError(
            f"{path} was not loaded, and nothing in it was executed: the file is not a valid pickled module "
            f"({type(error).__name__}: {error}). The file may be damaged: download or copy it again from its source."
        ) from None


def _read_zip(file: BinaryIO, size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = {name.partition("/")[2]: name for name in archive.namelist()}
        if "data.pkl" not in names:
            raise UserError("the zip archive has no data.pkl, which torch.save writes")
        if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
            raise UserError("the byte order must be little-endian")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UserError("the zip archive is compressed, which is not supported")
        storages: dict[str, Storage] = {}
        root = unpickle(io.BytesIO(archive.read(names["data.pkl"])), storages)
        _check_total(storages, size)
        for key, storage in storages.items():
            entry = archive.getinfo(names.get(f"data/{key}", f"data/{key}"))
            if entry.file_size != storage.nbytes:
                raise UserError(f"data/{key} has {entry.file_size} bytes, expected {storage.nbytes}")
            _fill(storage, archive.read(entry))
    return root


def _read_legacy(file: BinaryIO, size: int) -> Any:
    storages: dict[str, Storage] = {}
    if unpickle(file, storages) != LEGACY_MAGIC:
        raise UserError("the file was not written by torch.save")
    unpickle(file, storages)  # version of the file format
    system = unpickle(file, storages)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UserError("the byte order must be little-endian")
    root = unpickle(file, storages)
    _check_total(storages, size)
    for key in unpickle(file, storages):
        storage = storages[str(key)]
        (numel,) = struct.unpack("<q", file.read(8))
        data = file.read(storage.nbytes)
        if numel != storage.numel or len(data) != storage.nbytes:
            raise UserError(
                f"storage {key} has {numel} elements in {len(data)} bytes, expected {storage.numel} elements in "
                f"{storage.nbytes} bytes"
            )
        _fill(storage, data)
    return root


def _check_total(storages: dict[str, Storage], size: int) -> None:
    """Raise UserError if the tensor storages of a pickle are larger than the file, so that memory use is limited."""
    if (total := sum(storage.nbytes for storage in storages.values())) > size:
        raise UserError(f"the storages have {total} bytes, but the file has {size} bytes")


def _fill(storage: Storage, data: bytes) -> None:
    empty = torch.empty(0, dtype=storage.dtype)  # frombuffer does not accept an empty buffer
    storage.data = torch.frombuffer(bytearray(data), dtype=storage.dtype) if data else empty


def _tensors(root: Any) -> dict[str, Tensor]:
    """Return the tensors of a dictionary, or the tensors of a module and its submodules under dotted names."""
    if isinstance(root, dict):
        return {str(name): value.build() for name, value in dict.items(root) if isinstance(value, TensorSpec)}
    tensors: dict[str, Tensor] = {}
    stack, count = [("", root)], 0
    while stack:
        prefix, module = stack.pop()
        count += 1
        if count > MAX_MODULES:
            raise UserError(f"the pickle has more than {MAX_MODULES} modules")
        if isinstance(module, InertObject):
            named = {**module.get_dict("_parameters"), **module.get_dict("_buffers")}
            specs = {name: value for name, value in named.items() if isinstance(value, TensorSpec)}
            tensors |= {f"{prefix}{name}": spec.build() for name, spec in specs.items()}
            stack += [(f"{prefix}{name}.", inner) for name, inner in module.get_dict("_modules").items()]
    return tensors
