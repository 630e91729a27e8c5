"""An interpreter of pickles that only puts data together; see ``pickled_tensors`` for what it is for."""

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from mmf_flava.errors import UserError

MAX_PICKLE = 16 * 2**20  # bytes of instructions; encoder.pkl has some 30 kB of them
STAND_IN_ROOTS = ("dall_e.", "torch.nn.modules.")
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
}
# no EXT, INST or OBJ: torch never writes them
OPCODES = frozenset(
    """PROTO FRAME STOP MARK POP POP_MARK DUP MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS LIST EMPTY_DICT SETITEM SETITEMS DICT
    EMPTY_SET ADDITEMS GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID""".split()  # noqa: SIM905
)


class StandIn:
    """In the place of any class of the pickled module: takes whatever it is given and keeps the state."""

    def __new__(cls, *_: Any) -> "StandIn":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    def part(self, name: str) -> dict[str, Any]:
        """``_parameters``, ``_buffers`` or ``_modules``; empty where there is no such thing."""
        found = getattr(self, "state", {}).get(name)
        return found if isinstance(found, dict) else {}


@dataclass(slots=True)
class Storage:
    """A run of numbers in the file; ``data`` comes when the instructions have been read."""

    dtype: torch.dtype
    numel: int
    data: Tensor | None = field(default=None, repr=False)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


class Sketch(NamedTuple):
    """A tensor that is still to be made."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """A view of the storage, which it may not leave, nor repeat by a stride of 0."""
        numbers = (self.offset, *self.size, *self.stride)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if min(numbers) < 0 or max(last + 1, prod(self.size)) > self.storage.numel:
            raise UserError("a tensor reaches beyond its numbers")
        assert self.storage.data is not None
        return torch.as_strided(self.storage.data, self.size, self.stride, self.offset)


class Known(NamedTuple):
    """A function that the file may call; a tuple, so that the file cannot change it."""

    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class StorageType(NamedTuple):
    dtype: torch.dtype


def _sketch(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Sketch:
    numbers = (offset, *size, *stride)
    if not isinstance(storage, Storage) or len(size) != len(stride) or {type(number) for number in numbers} != {int}:
        raise UserError("a tensor is not described as torch does it")
    return Sketch(storage, offset, tuple(size), tuple(stride))


def _parameter(data: Any, *_: Any) -> Any:
    return data


NAMES: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): Known(_sketch),
    ("torch._utils", "_rebuild_parameter"): Known(_parameter),
    ("torch", "device"): Known(lambda *_: None),
    ("collections", "OrderedDict"): Known(OrderedDict),
    ("builtins", "set"): Known(set),
    ("__builtin__", "set"): Known(set),
    **{("torch", name): StorageType(dtype) for name, dtype in DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Knows ``NAMES`` and the stand-ins; nothing is imported, whatever the file names."""

    def __init__(self, file: BinaryIO, storages: dict[str, Storage]) -> None:
        super().__init__(file)
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in NAMES:
            return NAMES[module, name]
        if f"{module}.".startswith(STAND_IN_ROOTS):
            return type("StandIn", (StandIn,), {})  # one of its own, so that the file cannot change ours
        raise UserError(f"it asks for {module}.{name}, which tensors do not need")

    def persistent_load(self, pid: Any) -> Any:
        kind, *rest = pid if isinstance(pid, tuple) and pid else (None,)
        if kind == "module" and rest:  # the older format adds the source of each class, which is left unread
            return rest[0]
        if kind != "storage" or len(rest) < 4 or not isinstance(rest[0], StorageType) or type(rest[3]) is not int:
            raise UserError("it refers to something that is no run of numbers")
        if len(rest) > 4 and rest[4] is not None:
            raise UserError("it holds a view of a storage, which this reader does not know")
        made = Storage(rest[0].dtype, rest[3])
        if made.numel < 0 or self.storages.setdefault(str(rest[1]), made).nbytes != made.nbytes:
            raise UserError("it describes one run of numbers in two ways")
        return self.storages[str(rest[1])]


def unpickle(file: BinaryIO, storages: dict[str, Storage]) -> Any:
    """One pickle from where ``file`` stands, after a look at its instructions."""
    start = file.tell()
    code = file.read(MAX_PICKLE)
    end = 0
    for count, (opcode, argument, place) in enumerate(pickletools.genops(code)):
        if opcode.name not in OPCODES:
            raise UserError(f"its instruction {opcode.name} is not one of those that tensors need")
        if opcode.name.endswith("PUT") and int(argument or 0) > count:
            raise UserError("it numbers its parts beyond their count")  # would make a table of any size
        end = (place or 0) + 1
    result = _Unpickler(io.BytesIO(code[:end]), storages).load()
    file.seek(start + end)
    return result
