"""Checksums that sha256sum reads too, and that guard themselves."""

import shutil
import subprocess

import pytest
import torch
from safetensors.torch import save_file

from mmf_flava.files.checksums import CHECKSUMS, Damaged, seal, verify, verify_file
from mmf_flava.weights.weight_files import read_tensors


@pytest.fixture
def sealed(tmp_path):
    save_file({"a": torch.arange(4)}, tmp_path / "model.safetensors")
    (tmp_path / "state.json").write_text("{}")
    seal(tmp_path)
    return tmp_path


def test_every_byte_of_every_file_is_guarded(sealed):
    verify(sealed)
    for file in sorted(sealed.iterdir()):
        content = file.read_bytes()
        for place in range(len(content)):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(Damaged, match=file.name):
                verify(sealed)
        for size in range(len(content)):
            file.write_bytes(content[:size])
            with pytest.raises(Damaged, match=file.name):
                verify(sealed)
        file.write_bytes(content)
    verify(sealed)


def test_what_is_missing_is_named(sealed):
    (sealed / "state.json").unlink()
    with pytest.raises(Damaged, match=r"state\.json is missing"):
        verify(sealed)
    (sealed / CHECKSUMS).unlink()
    with pytest.raises(Damaged, match="no whole checkpoint: it has no checksums"):
        verify(sealed)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sha256sum_reads_them(sealed):
    check = ["sha256sum", "--check", "--strict", CHECKSUMS]
    assert subprocess.run(check, cwd=sealed, capture_output=True).returncode == 0
    (sealed / "state.json").write_text("[]")
    assert subprocess.run(check, cwd=sealed, capture_output=True).returncode == 1


def test_weights_that_are_read_alone_are_checked_where_a_list_names_them(sealed):
    file = sealed / "model.safetensors"
    assert read_tensors(file)[0]["a"].tolist() == [0, 1, 2, 3]
    save_file({"a": torch.arange(4) + 1}, file)
    with pytest.raises(Damaged, match=r"model\.safetensors is damaged"):
        read_tensors(file)
    verify_file(sealed / "another.safetensors")
