"""Restricted unpickler that builds only tensors and plain data; used by ``pickled_tensors``."""

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

# maximum size of a pickle in bytes, without storages; the pickle in OpenAI's encoder.pkl has about 30 kB
MAX_PICKLE = 16 * 2**20
INERT_MODULES = ("dall_e.", "torch.nn.modules.")
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
}
# allowed opcodes; torch never writes EXT, INST and OBJ
OPCODES = frozenset(
    """PROTO FRAME STOP MARK POP POP_MARK DUP MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS LIST EMPTY_DICT SETITEM SETITEMS DICT
    EMPTY_SET ADDITEMS GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID""".split()  # noqa: SIM905
)


class InertObject:
    """Replacement for an instance of a pickled class: accepts any constructor arguments, and stores only the state."""

    def __new__(cls, *_: Any) -> "InertObject":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    def get_dict(self, name: str) -> dict[str, Any]:
        """Return the dictionary ``_parameters``, ``_buffers`` or ``_modules`` of a pickled module; {} if missing."""
        value = getattr(self, "state", {}).get(name)
        return value if isinstance(value, dict) else {}


@dataclass(slots=True)
class Storage:
    """The storage of one or more tensors; ``data`` is set after unpickling."""

    dtype: torch.dtype
    numel: int
    data: Tensor | None = field(default=None, repr=False)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


class TensorSpec(NamedTuple):
    """Description of a tensor whose storage has not been read yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def build(self) -> Tensor:
        """Return the tensor as a view of its storage.

        Raises:
            UserError: an offset, size or stride is negative, or the tensor has more elements than its storage or
                extends beyond the end of its storage.
        """
        numbers = (self.offset, *self.size, *self.stride)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if min(numbers) < 0 or max(last + 1, prod(self.size)) > self.storage.numel:
            raise UserError(
                f"a tensor of size {self.size}, stride {self.stride} and offset {self.offset} does not fit into its "
                f"storage of {self.storage.numel} elements"
            )
        assert self.storage.data is not None
        return torch.as_strided(self.storage.data, self.size, self.stride, self.offset)


class AllowedFunction(NamedTuple):
    """A function that a pickle may call; a tuple, because a pickle cannot modify the attributes of a tuple."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


class StorageType(NamedTuple):
    dtype: torch.dtype


def _tensor_spec(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorSpec:
    numbers = (offset, *size, *stride)
    if not isinstance(storage, Storage) or len(size) != len(stride) or {type(number) for number in numbers} != {int}:
        raise UserError("a tensor has an invalid storage, offset, size or stride")
    return TensorSpec(storage, offset, tuple(size), tuple(stride))


def _parameter(data: Any, *_: Any) -> Any:
    return data


ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): AllowedFunction(_tensor_spec),
    ("torch._utils", "_rebuild_parameter"): AllowedFunction(_parameter),
    ("torch", "device"): AllowedFunction(lambda *_: None),
    ("collections", "OrderedDict"): AllowedFunction(OrderedDict),
    ("builtins", "set"): AllowedFunction(set),
    ("__builtin__", "set"): AllowedFunction(set),
    **{("torch", name): StorageType(dtype) for name, dtype in DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Unpickler that resolves only names in ``ALLOWED`` and modules in ``INERT_MODULES``, and imports nothing."""

    def __init__(self, file: BinaryIO, storages: dict[str, Storage]) -> None:
        super().__init__(file)
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        if f"{module}.".startswith(INERT_MODULES):
            return type("InertObject", (InertObject,), {})  # a new subclass, so that a pickle cannot modify InertObject
        raise UserError(f"the pickle references {module}.{name}, which is not allowed")

    def persistent_load(self, pid: Any) -> Any:
        kind, *rest = pid if isinstance(pid, tuple) and pid else (None,)
        if kind == "module" and rest:  # the legacy format also stores the source code of each class; it is ignored
            return rest[0]
        if kind != "storage" or len(rest) < 4 or not isinstance(rest[0], StorageType) or type(rest[3]) is not int:
            raise UserError("a persistent id does not describe a storage")
        if len(rest) > 4 and rest[4] is not None:
            raise UserError("views of storages are not supported")
        storage = Storage(rest[0].dtype, rest[3])
        if storage.numel < 0 or self.storages.setdefault(str(rest[1]), storage).nbytes != storage.nbytes:
            raise UserError(f"storage {rest[1]} has a negative size, or two different sizes")
        return self.storages[str(rest[1])]


def unpickle(file: BinaryIO, storages: dict[str, Storage]) -> Any:
    """Unpickle one object at the current position of ``file``, after a check of all opcodes.

    Args:
        storages: dictionary to which the storages that the pickle references are added by key.

    Raises:
        UserError: an opcode or a name is not allowed, or a tensor or storage is invalid.
    """
    start = file.tell()
    code = file.read(MAX_PICKLE)
    end = 0
    for count, (opcode, argument, place) in enumerate(pickletools.genops(code)):
        if opcode.name not in OPCODES:
            raise UserError(f"the pickle contains the opcode {opcode.name}, which is not allowed")
        if opcode.name.endswith("PUT") and int(argument or 0) > count:
            raise UserError("a memo index of the pickle is out of range")  # the memo is allocated up to this index
        end = (place or 0) + 1
    result = _Unpickler(io.BytesIO(code[:end]), storages).load()
    file.seek(start + end)
    return result
