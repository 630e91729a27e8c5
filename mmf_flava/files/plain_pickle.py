"""Reading of pickles of plain data: dictionaries, lists, tuples, sets, text, bytes, numbers, None and numpy arrays.

MMF's ``imdb_*.npy`` files and features are such pickles. ``read_pickle`` returns the same objects as ``pickle.loads``,
and executes nothing (see ``pickle_reader``). All other contents are errors that name the class.
"""

import re
from math import prod
from typing import Any

import numpy as np

from mmf_flava.files.pickle_reader import PickleReader
from mmf_flava.files.pickle_stack import Name, PickleError, Unfinished, add_items, check_keys

MAX_DEPTH = 100  # maximum nesting of containers
# A list may be part of several other lists, for example the answers of two questions. Code that visits all parts visits
# it several times. This is the maximum number of visits per value in the pickle.
MAX_VISITS = 20
# type, and size in bytes or characters; no pointers ("O") except for arrays of plain data
DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,9}")
LEAVES = frozenset({str, bytes, bytearray, int, float, complex, bool, type(None)})
CONTAINERS = frozenset({dict, list, tuple, set, frozenset})


def read_pickle(data: bytes) -> Any:
    """Return the object of a pickle of plain data.

    Raises:
        PickleError: the pickle is damaged, contains anything else, or is nested too deeply.
    """
    reader = PickleReader(data, lambda module, name: FUNCTIONS.get((module, name)))
    result = reader.load()
    _check(result, MAX_VISITS * (reader.values + 1))
    return result


def parse_dtype(text: str, byte_order: str = "|") -> np.dtype[Any]:
    """Return the dtype of numbers, bytes or text, for example ``parse_dtype("f4", "<")``.

    Raises:
        PickleError: the text describes another dtype, such as pointers or structures.
    """
    if not DTYPE.fullmatch(text) or byte_order not in ("<", ">", "=", "|"):
        raise PickleError(f"it contains an array of the dtype {byte_order}{text[:20]}, which is not supported")
    return np.dtype(byte_order + text)


def _check(root: Any, max_visits: int) -> None:
    """Raise PickleError unless ``root`` consists of plain data and has at most ``max_visits`` parts."""
    measured: dict[int, tuple[int, int]] = {}  # by id: height and number of parts

    def measure(value: Any, depth: int) -> tuple[int, int]:
        known = measured.get(id(value))
        height, visits = known or (0, 1)
        if depth + height > MAX_DEPTH:
            raise PickleError(f"its data are nested more than {MAX_DEPTH} levels deep")
        if known is None:
            parts = list(value.values()) if type(value) is dict else _parts(value)
            kinds = set(map(type, parts)) - LEAVES
            visits += len(parts)
            for part in parts if kinds else ():
                if type(part) not in LEAVES:
                    inner_height, inner_visits = measure(part, depth + 1)
                    height, visits = max(height, inner_height + 1), visits + inner_visits
            measured[id(value)] = height, visits
        if visits > max_visits:
            raise PickleError("its lists or dictionaries contain the same parts many times")
        return height, visits

    if type(root) not in LEAVES:
        measure(root, 1)


def _parts(value: Any) -> Any:
    kind = type(value)
    if kind in CONTAINERS:
        return value
    if kind is np.ndarray:
        return value.reshape(-1) if value.dtype == object else ()
    if isinstance(value, np.generic):
        return ()
    raise PickleError(f"it contains {value if kind is Name else f'an incomplete value of type {kind.__name__}'}")


class _DtypeState(Unfinished):
    """A numpy dtype before its state, which contains the byte order."""

    def __init__(self, text: Any, *_: Any) -> None:
        super().__init__()
        # Python 2 wrote bytes
        self.text = text.decode("ascii") if type(text) is bytes else text

    def finish(self, state: Any) -> np.dtype[Any] | type[object]:
        _, byte_order, subarray, names, *_ = state
        byte_order = byte_order.decode("ascii") if type(byte_order) is bytes else byte_order
        if subarray is not None or names is not None:
            raise PickleError("it contains an array of structures, which is not supported")
        if self.text in ("O", "O8", "O4"):
            return object
        return parse_dtype(self.text, byte_order)


class _ArrayState(Unfinished):
    """A numpy array before its state, which contains shape, dtype and values."""

    def __init__(self, kind: Any, *_: Any) -> None:
        super().__init__()
        if type(kind) is not Name or (kind.module, kind.name) != ("numpy", "ndarray"):
            raise PickleError(f"it contains an object of {kind}")

    def finish(self, state: Any) -> np.ndarray[Any, Any]:
        _, shape, dtype, fortran_order, values = state
        if dtype is object:
            return _object_array(values, shape)  # always in C order
        return array_from_bytes(_to_bytes(values), dtype, shape, bool(fortran_order))


def array_from_bytes(
    data: bytes | bytearray, dtype: np.dtype[Any], shape: tuple[int, ...], fortran_order: bool
) -> np.ndarray[Any, Any]:
    """Return a writable array of the values in ``data``.

    Raises:
        PickleError: dtype and shape do not fit the length of ``data``.
    """
    _check_shape(shape)
    if not isinstance(dtype, np.dtype) or prod(shape) * dtype.itemsize != len(data):
        raise PickleError(f"an array of shape {shape} has {len(data):,} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C").copy(order="K")


def _object_array(values: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    _check_shape(shape)
    if type(values) is not list or prod(shape) != len(values):
        raise PickleError(f"an array of shape {shape} has another number of objects")
    array = np.empty(len(values), object)
    for number, value in enumerate(values):
        array[number] = value
    return array.reshape(shape)


def _check_shape(shape: Any) -> None:
    if type(shape) is not tuple or any(type(size) is not int or not 0 <= size < 2**48 for size in shape):
        raise PickleError("an array has an invalid shape")


def _to_bytes(value: Any) -> bytes | bytearray:
    if type(value) is str:  # str of Python 2
        return value.encode("ascii")
    if type(value) not in (bytes, bytearray):
        raise PickleError(f"an array has values of type {type(value).__name__}, expected bytes")
    return value


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    return array_from_bytes(_to_bytes(data), dtype, shape, order == "F")


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, np.dtype):
        raise PickleError("it contains a number of an unsupported dtype")
    return array_from_bytes(_to_bytes(data), dtype, (1,), False)[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    # Python 3 writes bytes as text in the protocols 0 to 2
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise PickleError("it contains an object of _codecs.encode")
    return text.encode("latin-1")


def _bytes(value: Any = b"", *encoding: Any) -> bytes:
    if encoding:
        return _encode(value, *encoding)
    if type(value) not in (bytes, bytearray):
        raise PickleError("bytes have an invalid argument")
    return bytes(value)


def ordered_dict(items: Any = ()) -> dict[Any, Any]:
    """Return a dictionary for a pickled ``OrderedDict``; ``items`` are pairs of keys and values."""
    result: dict[Any, Any] = {}
    pairs = [(key, value) for key, value in items]
    add_items(result, [key for key, _ in pairs], [value for _, value in pairs])
    return result


def _functions() -> dict[tuple[str, str], Any]:
    functions: dict[tuple[str, str], Any] = {
        ("numpy", "dtype"): _DtypeState,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): ordered_dict,
    }
    for core in ("core", "_core"):  # renamed in numpy 2
        functions[f"numpy.{core}.multiarray", "_reconstruct"] = _ArrayState
        functions[f"numpy.{core}.multiarray", "scalar"] = _scalar
        functions[f"numpy.{core}.numeric", "_frombuffer"] = _from_buffer
    for builtins in ("builtins", "__builtin__"):  # Python 3 and 2
        functions[builtins, "set"] = lambda values=(): set(check_keys(list(values)))
        functions[builtins, "frozenset"] = lambda values=(): frozenset(check_keys(list(values)))
        functions[builtins, "bytes"] = _bytes
        functions[builtins, "bytearray"] = lambda *arguments: bytearray(_bytes(*arguments))
        functions[builtins, "complex"] = lambda real, imaginary: complex(float(real), float(imaginary))
    return functions


FUNCTIONS = _functions()
