"""``.npy`` files give the same arrays as ``numpy.load``, and nothing in them is executed."""

import errno
import io
import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from mmf_flava.files.npy import read_npy, write_npy
from tests.files.hostile_pickles import Canary
from tests.files.test_plain_pickle import PLAIN, assert_same

ROWS = [
    {"dataset_name": "vqa", "version": 1},
    {"image_id": 3, "question_tokens": ["what", "is"], "box": np.arange(4.0)},
]
ARRAYS = [
    *PLAIN["arrays"],
    *PLAIN["objects"],
    np.array(ROWS, object),
    np.array(1.5),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
]


def npy(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), version=version)
    return file.getvalue()


def test_arrays_are_read():
    for array in ARRAYS:
        for version in ((1, 0), (2, 0), (3, 0)):
            assert_same(read_npy(io.BytesIO(npy(array, version))), array)
    assert read_npy(io.BytesIO(pickle.dumps({"data": ROWS[:1]}))) == {"data": ROWS[:1]}
    header = b"{'descr': '<i4', 'fortran_order': False, 'shape': (2L,), }\n"  # Python 2
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\x01\0\0\0\x02\0\0\0"
    assert read_npy(io.BytesIO(data)).tolist() == [1, 2]


def test_pickled_code_is_not_executed(tmp_path):
    for data in (npy(np.array([{"a": Canary(tmp_path / "mark")}])), pickle.dumps(Canary(tmp_path / "mark"))):
        with pytest.raises(ValueError, match="it contains an object of"):
            read_npy(io.BytesIO(data))
        assert not (tmp_path / "mark").exists()


def test_invalid_files_are_errors():
    good = npy(np.arange(6.0))
    structure = npy(np.zeros(2, "i4,f4"))
    cases = {
        "not a .npy file": [b"", b"<html>", b"PK\x03\x04"],
        "unknown version": [b"\x93NUMPY\x07\x00" + good[8:]],
        "more than 10000 bytes": [b"\x93NUMPY\x02\x00" + b"\xff" * 4],
        "header is damaged": [good[:30], structure, good.replace(b"(6,)", b"(-6,)"), good.replace(b"False", b"[[[]]")],
        r"has 0 bytes|has \d+ bytes": [good[:-1], good + b"x", good.replace(b"(6,), }    ", b"(66666,), }")],
        "not supported": [good.replace(b"'<f8'", b"'<V8'")],
        "do not fit its header": [npy(np.array(ROWS, object)).replace(b"(2,)", b"(3,)")],
    }
    for message, files in cases.items():
        for data in files:
            with pytest.raises(ValueError, match=message):
                read_npy(io.BytesIO(data))


def test_flipped_bytes_raise_only_value_errors():
    rng = random.Random(1)
    for array in ARRAYS:
        for _ in range(40):
            data = bytearray(npy(array))
            data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                read_npy(io.BytesIO(data))
            except ValueError as error:
                assert len(str(error)) < 400


@pytest.mark.parametrize("array", [np.arange(6, dtype="<u8"), np.zeros((0, 48), "<f4"), np.ones((3, 2), "<f4").T])
def test_arrays_are_written_as_by_numpy(tmp_path, array):
    write_npy(tmp_path / "a.npy", array)
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    assert (tmp_path / "a.npy").read_bytes() == buffer.getvalue()


def test_full_disk_is_an_error_with_its_number():
    with pytest.raises(OSError) as caught:
        write_npy(Path("/dev/full"), np.arange(10_000))
    assert caught.value.errno == errno.ENOSPC
