"""Checksum files: compatible with sha256sum, and protected by a checksum of their own."""

import shutil
import subprocess

import pytest
import torch
from safetensors.torch import save_file

from mmf_flava.files.checksums import CHECKSUMS, CorruptFileError, verify_file, verify_folder, write_checksums
from mmf_flava.weights.weight_files import read_tensors


@pytest.fixture
def checkpoint(tmp_path):
    save_file({"a": torch.arange(4)}, tmp_path / "model.safetensors")
    (tmp_path / "state.json").write_text("{}")
    write_checksums(tmp_path)
    return tmp_path


def test_every_flipped_byte_and_every_truncation_is_detected(checkpoint):
    verify_folder(checkpoint)
    for file in sorted(checkpoint.iterdir()):
        content = file.read_bytes()
        for offset in range(len(content)):
            file.write_bytes(content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :])
            with pytest.raises(CorruptFileError, match=file.name):
                verify_folder(checkpoint)
        for size in range(len(content)):
            file.write_bytes(content[:size])
            with pytest.raises(CorruptFileError, match=file.name):
                verify_folder(checkpoint)
        file.write_bytes(content)
    verify_folder(checkpoint)


def test_missing_file_is_named(checkpoint):
    (checkpoint / "state.json").unlink()
    with pytest.raises(CorruptFileError, match=r"state\.json is missing"):
        verify_folder(checkpoint)
    (checkpoint / CHECKSUMS).unlink()
    with pytest.raises(CorruptFileError, match="not a complete checkpoint: it has no checksums"):
        verify_folder(checkpoint)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sha256sum_accepts_the_file(checkpoint):
    check = ["sha256sum", "--check", "--strict", CHECKSUMS]
    assert subprocess.run(check, cwd=checkpoint, capture_output=True).returncode == 0
    (checkpoint / "state.json").write_text("[]")
    assert subprocess.run(check, cwd=checkpoint, capture_output=True).returncode == 1


def test_read_tensors_verifies_listed_files(checkpoint):
    file = checkpoint / "model.safetensors"
    assert read_tensors(file)[0]["a"].tolist() == [0, 1, 2, 3]
    save_file({"a": torch.arange(4) + 1}, file)
    with pytest.raises(CorruptFileError, match=r"model\.safetensors is corrupt"):
        read_tensors(file)
    verify_file(checkpoint / "another.safetensors")
