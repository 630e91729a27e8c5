"""Reading of pickled modules, which the tests write with a temporary ``dall_e`` package."""

import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from mmf_flava.errors import UserError
from mmf_flava.weights.pickled_tensors import read_pickled_tensors


class Conv2d(nn.Module):
    """Like ``dall_e.utils.Conv2d``, with attributes other than parameters, such as a device."""

    def __init__(self, before, after, kernel):
        super().__init__()
        self.n_in, self.n_out, self.kw, self.device = before, after, kernel, torch.device("cpu")
        self.w = nn.Parameter(torch.randn(after, before, kernel, kernel), requires_grad=False)
        self.b = nn.Parameter(torch.randn(after))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        blocks = [("input", Conv2d(3, 4, 7)), ("relu", nn.ReLU()), ("output", Conv2d(4, 5, 1))]
        self.blocks = nn.Sequential(OrderedDict(blocks))
        self.register_buffer("scale", torch.randn(3).half())


@pytest.fixture
def dall_e(monkeypatch):
    """Return ``save(module, path, zipped)``, which saves while the classes of this file are classes of ``dall_e``."""

    def save(saved, path, zipped=True):
        package, encoder, utils = (types.ModuleType(name) for name in ("dall_e", "dall_e.encoder", "dall_e.utils"))
        encoder.Encoder, utils.Conv2d = Encoder, Conv2d
        with monkeypatch.context() as patch:
            for module in (package, encoder, utils):
                patch.setitem(sys.modules, module.__name__, module)
            patch.setattr(Encoder, "__module__", "dall_e.encoder")
            patch.setattr(Conv2d, "__module__", "dall_e.utils")
            torch.save(saved, path, _use_new_zipfile_serialization=zipped)
        return path

    return save


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # the legacy format searches the classes' sources
def test_tensors_of_a_pickled_module_are_read(dall_e, tmp_path, zipped):
    encoder = Encoder()
    path = dall_e(encoder, tmp_path / "encoder.pkl", zipped)
    assert not [name for name in sys.modules if name.startswith("dall_e")]
    found = read_pickled_tensors(path)
    expected = encoder.state_dict()
    assert found.keys() == expected.keys() and "blocks.input.w" in found
    assert all(torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in expected.items())
    assert not [name for name in sys.modules if name.startswith("dall_e")]


def test_views_in_a_dictionary_are_read(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    torch.save({"transposed": base.t(), "row": base[1], "number": 3}, tmp_path / "x.pkl")
    found = read_pickled_tensors(tmp_path / "x.pkl")
    assert found.keys() == {"transposed", "row"}
    assert torch.equal(found["transposed"], base.t()) and found["row"].tolist() == [4, 5, 6, 7]


class Payload:
    """An object that runs ``call(*arguments)`` when it is unpickled."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


class WithState:
    """An object that creates a folder when the opcode BUILD calls ``__setstate__``."""

    def __setstate__(self, state):
        os.mkdir(state["path"])


def malicious_modules(mark):
    """Return modules that create the folder ``mark`` when the standard unpickler loads them."""
    plain, nested, hook = Encoder(), Encoder(), Encoder()
    plain.extra = Payload(os.mkdir, mark)
    nested.blocks.input.extra = {"deep": [(Payload(eval, f"__import__('os').mkdir({mark!r})"),)]}
    build = WithState()
    build.path = mark
    hook._forward_hooks[0] = build
    return {"GLOBAL and REDUCE": plain, "nested": nested, "BUILD": hook}


@pytest.mark.parametrize("case", ["GLOBAL and REDUCE", "nested", "BUILD"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pickled_code_raises_and_is_not_executed(dall_e, tmp_path, case, zipped):
    mark = tmp_path / "executed"
    path = dall_e(malicious_modules(str(mark))[case], tmp_path / "encoder.pkl", zipped)
    with pytest.raises(
        UserError, match=r"nothing in it was executed: it contains an object of .*(mkdir|eval|WithState)"
    ):
        read_pickled_tensors(path)
    assert not mark.exists()


def archive(path, code, **storages):
    """Write a zip file in torch's format that contains a hand-written pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", code)
        for key, data in storages.items():
            file.writestr(f"archive/data/{key.removeprefix('_')}", data)
    return path


HAND_WRITTEN = {
    "os.system": b"cos\nsystem\n(S'touch MARK'\ntR.",
    "posix.system by STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0atouch MARK\x85R.",
    "builtins.getattr": b"cbuiltins\ngetattr\n(cbuiltins\nset\nS'__class__'\ntR.",
    "a dotted name": b"\x80\x04\x8c\x0ecollections.abc\x8c\x12OrderedDict.update\x93.",
    "a submodule's function": b"ctorch.nn.modules\nmodule.os.system\n(S'touch MARK'\ntR.",
    "INST": b"(S'touch MARK'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch MARK'\no.",
    "EXT1": b"\x80\x02\x82\x01.",
    "a table of 4 GB": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "no end": b"\x80\x02}",
    "another persistent id": b"\x80\x02X\x03\x00\x00\x00abcQ.",
}


@pytest.mark.parametrize("case", HAND_WRITTEN)
def test_hand_written_pickle_is_not_executed(tmp_path, case, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = archive(tmp_path / "encoder.pkl", HAND_WRITTEN[case].replace(b"MARK", b"mark"))
    # a function becomes an InertObject, and a memo index needs no memory
    if case in ("a submodule's function", "a table of 4 GB"):
        assert read_pickled_tensors(path) == {}
    else:
        with pytest.raises(UserError, match="nothing in it was executed"):
            read_pickled_tensors(path)
    assert not (tmp_path / "mark").exists()


def test_allowed_functions_cannot_be_modified(tmp_path):
    for target in (b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"):
        for state in (b"}S'dtype'\nNs", b"N}S'function'\nNs\x86"):
            with pytest.raises(UserError, match="was not loaded"):
                read_pickled_tensors(archive(tmp_path / "encoder.pkl", b"\x80\x02" + target + state + b"b."))
    torch.save({"x": torch.ones(2)}, tmp_path / "x.pkl")
    assert read_pickled_tensors(tmp_path / "x.pkl")["x"].tolist() == [1, 1]


def tensor_code(numel=4, offset=0, size=(2, 2), stride=(2, 1)):
    """Return a pickle of {"x": a tensor over storage 0} with the given description."""

    class Writer(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if obj == "the storage" else None

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, ("the storage", offset, size, stride, False, OrderedDict())

    buffer = io.BytesIO()
    Writer(buffer, 2).dump({"x": Tensor()})
    return buffer.getvalue()


def test_wrong_sizes_raise(tmp_path):
    path, data = tmp_path / "encoder.pkl", struct.pack("<4f", 1, 2, 3, 4)
    assert read_pickled_tensors(archive(path, tensor_code(), _0=data))["x"].tolist() == [[1, 2], [3, 4]]
    for wrong in (
        {"offset": 1},
        {"offset": -1},
        {"size": (3, 2)},
        {"stride": (3, 1)},
        {"stride": (-1, 1)},
        {"size": (1000, 1000), "stride": (0, 0)},
        {"size": (2,)},
        {"size": ("2", 2)},
    ):
        with pytest.raises(UserError, match="was not loaded"):
            read_pickled_tensors(archive(path, tensor_code(**wrong), _0=data))
    with pytest.raises(UserError, match="storages have 4000000000000 bytes, but the file has"):
        read_pickled_tensors(archive(path, tensor_code(numel=10**12), _0=data))
    with pytest.raises(UserError, match="has 16 bytes, expected 20"):
        read_pickled_tensors(archive(path, tensor_code(numel=5), _0=data))


def test_compressed_corrupt_and_missing_files_raise(tmp_path):
    path = tmp_path / "encoder.pkl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", tensor_code())
    with pytest.raises(UserError, match="compressed"):
        read_pickled_tensors(path)
    for content in (b"", b"<html>", pickle.dumps([1, 2]), os.urandom(300)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="was not loaded"):
            read_pickled_tensors(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_pickled_tensors(tmp_path / "nowhere.pkl")


def test_module_that_contains_itself_raises(dall_e, tmp_path):
    encoder = Encoder()
    encoder.blocks._modules["again"] = encoder
    with pytest.raises(UserError, match="more than 10000 modules"):
        read_pickled_tensors(dall_e(encoder, tmp_path / "encoder.pkl"))
