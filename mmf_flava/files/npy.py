"""Reading and writing of ``.npy`` files, such as MMF's annotations and features: numbers, text or plain data.

Unlike ``numpy.load`` with ``allow_pickle=True``, nothing in the file is executed.
"""

import re
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmf_flava.files import atomic
from mmf_flava.files.pickle_stack import PickleError
from mmf_flava.files.plain_pickle import array_from_bytes, parse_dtype, read_pickle

MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000
# the header as numpy writes it, without structured dtypes; Python 2 wrote sizes as 3L
HEADER = re.compile(
    rb"\{'descr': '([<>|=]?)(\w+)', 'fortran_order': (True|False), 'shape': \(((?:\d+L?, ?)*(?:\d+L?)?)\), ?\}\s*"
)


def write_npy(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write an array atomically to a ``.npy`` file.

    Raises:
        OSError: writing failed. That of ``np.save`` for a full disk has no error number.
    """
    with atomic.replace_file(path) as temporary, open(temporary, "wb") as file:
        array = np.ascontiguousarray(array)
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def read_npy(file: BinaryIO) -> Any:
    """Return the array in an open ``.npy`` file, or the object if the file is a pickle without numpy's header.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, or its data are not plain; the message is the reason.
    """
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        if magic[:1] != b"\x80":
            raise PickleError("it is not a .npy file")
        return read_pickle(magic + file.read())
    version, width = file.read(2), 2
    if version[:1] in (b"\x02", b"\x03"):
        width = 4
    elif version[:1] != b"\x01":
        raise PickleError("it has an unknown version of the .npy format")
    length = int.from_bytes(file.read(width), "little")
    if length > MAX_HEADER:
        raise PickleError(f"its header has more than {MAX_HEADER} bytes")
    header = HEADER.fullmatch(file.read(length))
    if header is None:
        raise PickleError("its header is damaged, or describes an array of structures, which is not supported")
    byte_order, dtype, fortran_order, shape_text = (group.decode("ascii", "replace") for group in header.groups())
    shape = tuple(int(size.strip().rstrip("L")) for size in shape_text.split(",") if size.strip())
    if dtype == "O":
        return _plain_objects(read_pickle(file.read()), shape)
    values = parse_dtype(dtype, byte_order or "|")
    return array_from_bytes(file.read(), values, shape, fortran_order == "True")


def _plain_objects(array: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    if type(array) is not np.ndarray or array.dtype != object or array.size != prod(shape):
        raise PickleError("its data do not fit its header")
    return array.reshape(shape)
