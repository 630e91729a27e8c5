"""Weights files: pickled code is not executed, and invalid files raise."""

import argparse
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmf_flava import load_pretrained
from mmf_flava.errors import UserError
from mmf_flava.weights.sources import read_weights
from mmf_flava.weights.weight_files import find_weights_file, read_tensors


class Payload:
    """An object that creates a file when the standard unpickler loads it."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return (Path.touch, (self.proof,))


@pytest.fixture
def proof(tmp_path):
    """The file that a ``Payload`` creates."""
    file = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(file)))
    assert file.exists()  # the payload works
    file.unlink()
    return file


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["flava.pt", "pytorch_model.bin", "run.ckpt", "weights.safetensors"])
def test_pickled_code_raises_and_is_not_executed(hf_weights, tmp_path, proof, name, legacy):
    file = tmp_path / name
    content = {"model": hf_weights, "config": Payload(proof)}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError) as error:
        load_pretrained(file)
    assert not proof.exists()
    if not name.endswith("safetensors"):
        assert "(getattr) would execute code. Use a safetensors file" in str(error.value)


def test_bare_pickle_raises_and_is_not_executed(tmp_path, proof):
    (tmp_path / "flava.pt").write_bytes(pickle.dumps(Payload(proof)))
    with pytest.raises(UserError):
        load_pretrained(tmp_path / "flava.pt")
    assert not proof.exists()


def test_namespace_of_plain_values_is_allowed(hf_weights, tmp_path):
    """DINO's training checkpoints contain their arguments as a Namespace."""
    content = {"model": hf_weights, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "full.pth")
    weights = read_weights(tmp_path / "full.pth")
    assert torch.equal(weights.tensors["flava.text_projection.weight"], hf_weights["flava.text_projection.weight"])


def header(values, length=None):
    text = json.dumps(values).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 800]}}) + b"\0" * 8,
        header({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 8]}}) + b"\0" * 8,
        header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 1 << 60) + b"\0" * 8,
        header({"x": {"dtype": "object", "shape": [2], "data_offsets": [0, 8]}}) + b"\0" * 8,
        b"",
        b"{}",
    ],
    ids=["beyond the end", "huge shape", "huge header", "objects", "empty", "short"],
)
def test_invalid_safetensors_header_raises(tmp_path, content):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match="not a valid safetensors file"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "x.py", 7])
def test_index_with_a_shard_outside_its_folder_raises(tmp_path, name):
    save_file({"x": torch.zeros(1)}, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(UserError, match=r"not a weights file in the same folder|not a valid index"):
        load_pretrained(folder)


def test_upper_case_suffixes(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "WEIGHTS.SAFETENSORS")
    file = find_weights_file(tmp_path)
    assert file.name == "WEIGHTS.SAFETENSORS" and read_tensors(file)[0]["a"].tolist() == [1, 1]


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>", b'{"a": 1}'])
def test_text_is_not_called_unsafe(tmp_path, content):
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.bin is neither a safetensors file nor a PyTorch file\."):
        read_tensors(tmp_path / "model.bin")
