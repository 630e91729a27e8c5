"""The tensors of a pickled module, such as OpenAI's ``encoder.pkl``, read without executing anything in it.

``torch.save(module)`` writes a pickle, which is a program: loading it the usual way runs whatever it says. Here the
program's instructions are looked through first, and only those that put data together are let through. The few names
that such a file needs stand for objects of ``inert_pickle``: a class of the module becomes a ``StandIn`` that keeps
its state and does nothing, a tensor a ``Sketch`` of where its numbers lie. Every other name ends the reading.

Both of torch's formats are read: the zip archive (since torch 1.6) and the older run of pickles.
"""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mmf_flava.errors import UserError
from mmf_flava.weights.inert_pickle import Sketch, StandIn, Storage, unpickle

MAX_MODULES = 10_000  # a module may stand inside itself, or twice in each of thirty others
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_pickled_tensors(path: str | Path) -> dict[str, Tensor]:
    """The parameters and buffers of a module that was saved whole, or of a dictionary of tensors, by name.

    Raises:
        UserError: the file is missing, is no such file, holds anything but a module's tensors, or is not as long as
            it says; the message names what was found. Nothing in the file is executed in any case.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            read = _read_zip if zipfile.is_zipfile(file) else _read_legacy
            file.seek(0)
            root = read(file, path.stat().st_size)
        return _tensors(root)
    except UserError as error:
        raise UserError(f"{path} is refused, nothing in it was executed: {error}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(
            f"{path} is refused, nothing in it was executed: it is no pickled module ({type(error).__name__}: {error})."
        ) from None


def _read_zip(file: BinaryIO, size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = {name.partition("/")[2]: name for name in archive.namelist()}
        if "data.pkl" not in names:
            raise UserError("it is a zip archive without torch's data.pkl")
        if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
            raise UserError("its numbers are not little-endian")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UserError("it is compressed, which torch never does")
        storages: dict[str, Storage] = {}
        root = unpickle(io.BytesIO(archive.read(names["data.pkl"])), storages)
        _check_total(storages, size)
        for key, storage in storages.items():
            entry = archive.getinfo(names.get(f"data/{key}", f"data/{key}"))
            if entry.file_size != storage.nbytes:
                raise UserError(f"data/{key} has {entry.file_size} bytes, {storage.nbytes} were announced")
            _fill(storage, archive.read(entry))
    return root


def _read_legacy(file: BinaryIO, size: int) -> Any:
    storages: dict[str, Storage] = {}
    if unpickle(file, storages) != LEGACY_MAGIC:
        raise UserError("it is not a file of torch.save")
    unpickle(file, storages)  # version of the format
    system = unpickle(file, storages)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UserError("its numbers are not little-endian")
    root = unpickle(file, storages)
    _check_total(storages, size)
    for key in unpickle(file, storages):
        storage = storages[str(key)]
        (numel,) = struct.unpack("<q", file.read(8))
        data = file.read(storage.nbytes)
        if numel != storage.numel or len(data) != storage.nbytes:
            raise UserError(f"its storage {key} is not as long as announced")
        _fill(storage, data)
    return root


def _check_total(storages: dict[str, Storage], size: int) -> None:
    """Keeps a small file from asking for much memory."""
    if (total := sum(storage.nbytes for storage in storages.values())) > size:
        raise UserError(f"it announces {total} bytes of numbers and has {size} in all")


def _fill(storage: Storage, data: bytes) -> None:
    empty = torch.empty(0, dtype=storage.dtype)  # frombuffer refuses a buffer of no bytes
    storage.data = torch.frombuffer(bytearray(data), dtype=storage.dtype) if data else empty


def _tensors(root: Any) -> dict[str, Tensor]:
    """The tensors of a dictionary, or of a module and of those inside it under dotted names."""
    if isinstance(root, dict):
        return {str(name): value.tensor() for name, value in dict.items(root) if isinstance(value, Sketch)}
    found: dict[str, Tensor] = {}
    waiting, seen = [("", root)], 0
    while waiting:
        prefix, module = waiting.pop()
        seen += 1
        if seen > MAX_MODULES:
            raise UserError(f"it has more than {MAX_MODULES} modules")
        if isinstance(module, StandIn):
            named = {**module.part("_parameters"), **module.part("_buffers")}
            found |= {f"{prefix}{name}": value.tensor() for name, value in named.items() if isinstance(value, Sketch)}
            waiting += [(f"{prefix}{name}.", inner) for name, inner in module.part("_modules").items()]
    return found
