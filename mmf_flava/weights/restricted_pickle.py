"""Reading of a pickled PyTorch module as inert objects and descriptions of tensors; used by ``pickled_tensors``."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from mmf_flava.errors import UserError
from mmf_flava.files.pickle_reader import PickleReader
from mmf_flava.files.pickle_stack import Name, Unfinished
from mmf_flava.files.plain_pickle import FUNCTIONS, ordered_dict

# maximum size of a pickle in bytes, without storages; the pickle in OpenAI's encoder.pkl has about 30 kB
MAX_PICKLE = 16 * 2**20
INERT_MODULES = ("dall_e.", "torch.nn.modules.")
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
}


class InertObject(Unfinished):
    """Replacement for an instance of a pickled class: accepts any constructor arguments, and stores only the state."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}

    def finish(self, state: Any) -> "InertObject":
        self.state = state if isinstance(state, dict) else {}
        return self

    def get_dict(self, name: str) -> dict[str, Any]:
        """Return the dictionary ``_parameters``, ``_buffers`` or ``_modules`` of a pickled module; {} if missing."""
        value = self.state.get(name)
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


def _tensor_spec(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorSpec:
    numbers = (offset, *size, *stride)
    if not isinstance(storage, Storage) or len(size) != len(stride) or {type(number) for number in numbers} != {int}:
        raise UserError("a tensor has an invalid storage, offset, size or stride")
    return TensorSpec(storage, offset, tuple(size), tuple(stride))


def _parameter(data: Any, *_: Any) -> Any:
    return data


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor_spec,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "device"): lambda *_: None,
    ("collections", "OrderedDict"): ordered_dict,
    **{(module, "set"): FUNCTIONS[module, "set"] for module in ("builtins", "__builtin__")},
}


def _find_function(module: str, name: str) -> Callable[..., Any] | None:
    return InertObject if f"{module}.".startswith(INERT_MODULES) else ALLOWED.get((module, name))


def unpickle(file: BinaryIO, storages: dict[str, Storage]) -> Any:
    """Unpickle one object at the current position of ``file``.

    Args:
        storages: dictionary to which the storages that the pickle references are added by key.

    Raises:
        PickleError: the pickle is damaged, or contains an object of another class.
        UserError: a tensor or storage is invalid.
    """

    def load_storage(pid: Any) -> Any:
        kind, *rest = pid if isinstance(pid, tuple) and pid else (None,)
        if kind == "module" and rest:  # the legacy format also stores the source code of each class; it is ignored
            return rest[0]
        dtype = DTYPES.get(rest[0].name) if rest and type(rest[0]) is Name and rest[0].module == "torch" else None
        if kind != "storage" or len(rest) < 4 or dtype is None or type(rest[3]) is not int:
            raise UserError("a persistent id does not describe a storage")
        if len(rest) > 4 and rest[4] is not None:
            raise UserError("views of storages are not supported")
        storage = Storage(dtype, rest[3])
        if storage.numel < 0 or storages.setdefault(str(rest[1]), storage).nbytes != storage.nbytes:
            raise UserError(f"storage {rest[1]} has a negative size, or two different sizes")
        return storages[str(rest[1])]

    start = file.tell()
    reader = PickleReader(file.read(MAX_PICKLE), _find_function, load_persistent=load_storage)
    result = reader.load()
    file.seek(start + reader.position)
    return result
