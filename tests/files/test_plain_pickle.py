"""Pickles of plain data give the same objects as the standard unpickler; nothing else is accepted or executed."""

import collections
import datetime
import pickle
import pickletools
import random
import time

import numpy as np
import pytest

from mmf_flava.files.pickle_stack import PickleError
from mmf_flava.files.plain_pickle import read_pickle
from tests.files.hostile_pickles import Canary, doubled, nested_key

SHARED = [1, 2]
PLAIN = {
    "containers": {
        "a": [SHARED, SHARED, (1, 2, 3, 4), ()],
        "b": {"c": {}},
        3: set(),
        None: {1, "x"},
        b"d": frozenset("e"),
    },
    "numbers": [0, 255, 256, -1, 65536, -(2**31), 2**70, -(2**70), True, False, None, 1.5, float("inf"), 1 - 2j],
    "text": ["", "a", "é\ud800\n", "x" * 300, "y" * 70_000, b"", b"\x00\xff", b"z" * 300, bytearray(b"w")],
    "arrays": [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(3, dtype=">i2"),
        np.array(["a", "bcd"]),
        np.zeros((0, 3), bool),
    ],
    "scalars": [np.float32(0.5), np.int64(-3), np.bool_(True), np.str_("abc")],
    "objects": [
        np.array({"x": np.arange(3)}),
        np.array([[{"a": 1}, [1, 2]], [None, "b"]], object).T,
        np.array([], object),
    ],
    "long": [list(range(3000)), {n: str(n) for n in range(3000)}, [f"w{n}" for n in range(400)] * 2],
}


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype and found.shape == expected.shape and found.flags.writeable
        if expected.dtype == object:
            assert_same(found.reshape(-1).tolist(), expected.reshape(-1).tolist())
        else:
            assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, dict):
        assert_same(list(found.items()), list(expected.items()))
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", PLAIN)
def test_plain_data_are_read(name, protocol):
    assert_same(read_pickle(pickle.dumps(PLAIN[name], protocol)), PLAIN[name])


def test_pickles_of_python_2_and_of_old_numpy_are_read():
    # {'a': 'b', 'c': numpy.array([1, 2], dtype='<i4')}, written by Python 2
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n"
        b"(S'i4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x01\\x00\\x00\\x00\\x02\\x00\\x00\\x00'\ntb"
    )
    found = read_pickle(b"(dS'a'\nS'b'\nsS'c'\n" + array + b"s.")
    assert found["a"] == "b" and found["c"].dtype == "<i4" and found["c"].tolist() == [1, 2]
    assert read_pickle(b"\x80\x02U\x03\xc3\xa9x.") == b"\xc3\xa9x"  # text of an unknown encoding stays bytes


class Plain:
    pass


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_executed_and_the_class_is_named(tmp_path, protocol):
    for content in (Canary(tmp_path / "mark"), {"a": [Canary(tmp_path / "mark")]}):
        data = pickle.dumps(content, protocol)
        with pytest.raises(PickleError, match=r"it contains an object of posix\.mkdir"):
            read_pickle(data)
        assert not (tmp_path / "mark").exists()
        pickle.loads(data)  # the canary works
        assert (tmp_path / "mark").exists()
        (tmp_path / "mark").rmdir()
    with pytest.raises(PickleError, match=r"it contains an object of tests\.files\.test_plain_pickle\.Plain"):
        read_pickle(pickle.dumps([Plain()], protocol))


OTHERS = {
    "class": (Plain, r"it contains tests\.files\.test_plain_pickle\.Plain"),
    "function": (print, r"it contains (__builtin__|builtins)\.print"),
    "defaultdict": (collections.defaultdict(list), r"an object of collections\.defaultdict"),
    "date": (datetime.date(2000, 1, 1), r"an object of datetime\.date"),
    "tuple as key": ({(1, 2): 3}, "a key is of type tuple"),
    "large integer as key": ({2**61: 1}, "a key is an integer of more than 61 bits"),
    "structures": (np.array([(1, 2)], dtype="i4,f4"), "structures"),
    "time": (np.array(["2000"], dtype="M8[D]"), "dtype <M8"),
    "subclass of an array": (np.arange(3).view(np.recarray), r"an object of numpy.*\.recarray"),
    "doubled tuples": (doubled(tuple), "the same parts many times"),
    "doubled lists": (doubled(list), "the same parts many times"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_data_are_errors(name):
    content, message = OTHERS[name]
    for protocol in (0, 2, 4):
        with pytest.raises(PickleError, match=message):
            read_pickle(pickle.dumps(content, protocol))


def test_time_memory_and_depth_are_limited():
    recursive = []
    recursive.append(recursive)
    hostile = {
        "nested more than 100 levels deep": [
            pickle.dumps(recursive),
            b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
        ],
        "a key is of type tuple": [nested_key()],
        "cut off": [b"\x80\x04\x8e" + b"\xff" * 8 + b".", b"\x80\x04\x8d" + b"\xff" * 8, b"\x80\x04\x95" + b"\xff" * 7],
        "bytes": [b"\x80\x04\x8b\xff\xff\x00\x00" + b"\x01" * 65_535 + b".", b"I" + b"9" * 5000 + b"\n."],
        "much larger than the pickle": [
            b"\x80\x04]\x94cbuiltins\nbytearray\n\x94B\x10\x27\x00\x00" + b"x" * 10_000 + b"\x94("
            + b"h\x01h\x02\x85R" * 1000 + b"e."
        ],
        "another number of objects": [_array(b"O8", (2**40,), b"]")],
        "invalid shape": [_array(b"i4", (2**62, 4), b"C\x04abcd")],
        "has 4 bytes": [_array(b"i4", (2**47,), b"C\x04abcd")],
    }  # fmt: skip
    for message, pickles in hostile.items():
        for data in pickles:
            start = time.process_time()
            with pytest.raises(PickleError, match=message):
                read_pickle(data)
            assert time.process_time() - start < 5
    assert read_pickle(b"\x80\x02Nr\xff\xff\xff\x7f.") is None  # a memo index needs no table


def _array(dtype, shape, values):
    """Return the pickle of an array; ``values`` are the opcodes of its values."""
    sizes = b"(" + b"".join(b"L%dL\n" % size for size in shape) + b"t"
    return (
        b"\x80\x04cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR(I1\n" + sizes
        + b"cnumpy\ndtype\n(U"
        + bytes([len(dtype)]) + dtype + b"\x89\x88tR(I3\nU\x01|NNNI-1\nI-1\nI0\ntb\x89" + values + b"tb."
    )  # fmt: skip


def test_damaged_pickles_are_errors_or_plain_data(tmp_path):
    rng = random.Random(0)
    for content in PLAIN.values():
        data = pickle.dumps([content, Canary(tmp_path / "mark")], 4)
        for _ in range(60):
            damaged = bytearray(data if len(data) < 5000 else data[:5000])
            for _ in range(rng.choice((1, 3, 30))):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            try:
                read_pickle(bytes(damaged[: rng.choice((len(damaged), rng.randrange(len(damaged))))]))
            except PickleError as error:
                assert len(str(error)) < 400
    assert not (tmp_path / "mark").exists()


def test_every_opcode_of_plain_data_is_known():
    used = {
        opcode.name
        for content in PLAIN.values()
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        for opcode, _, _ in pickletools.genops(pickle.dumps(content, protocol))
    }
    assert {"BYTEARRAY8", "FROZENSET", "LONG_BINPUT", "LONG_BINGET", "BINUNICODE", "LONG", "STACK_GLOBAL"} <= used
