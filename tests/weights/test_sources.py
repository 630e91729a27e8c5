"""Weights from folders, URLs and the Hugging Face hub."""

import os
import re

import pytest
import torch
from safetensors.torch import save_file

from mmf_flava.errors import UserError
from mmf_flava.files.checkpoint_names import pointer_text
from mmf_flava.files.checksums import write_checksums
from mmf_flava.files.hub import open_repository
from mmf_flava.weights.sources import find_weights, read_weights


def assert_same(weights, hf_weights):
    assert torch.equal(weights.tensors["flava.text_projection.weight"], hf_weights["flava.text_projection.weight"])
    assert not weights.unknown


def test_missing_and_ambiguous_sources_raise(tmp_path):
    with pytest.raises(UserError, match="was not found"):
        find_weights(tmp_path / "nothing")
    with pytest.raises(UserError, match="has no weights"):
        find_weights(tmp_path)
    for name in ("a.pt", "b.pt"):
        torch.save({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(UserError, match="2 weights files"):
        find_weights(tmp_path)


def test_config_json_is_read_for_a_folder_and_for_its_file(hf_folder):
    for source in (hf_folder, hf_folder / "model.safetensors"):
        weights = read_weights(source)
        assert weights.style == "hf" and weights.has_heads and weights.config.image_encoder.num_heads == 4


@pytest.fixture
def run(tmp_path):
    """The folder of a run with two checkpoints. The text projection's bias is the update; the first is the best."""
    for update in (1, 2):
        checkpoint = tmp_path / "checkpoints" / f"update_{update:08d}"
        checkpoint.mkdir(parents=True)
        save_file({"flava.text_projection.bias": torch.full((4,), float(update))}, checkpoint / "model.safetensors")
        write_checksums(checkpoint)
        for name in ("latest", "best")[: 3 - update]:
            (tmp_path / "checkpoints" / name).write_text(pointer_text(checkpoint))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "update"),
    [
        ("", 2),
        ("checkpoints", 2),
        ("checkpoints/latest", 2),
        ("checkpoints/best", 1),
        ("checkpoints/update_00000001", 1),
        ("checkpoints/update_00000001/model.safetensors", 1),
    ],
)
def test_checkpoints_of_a_run_are_found(run, name, update):
    assert read_weights(run / name).tensors["flava.text_projection.bias"][0] == update
    assert read_weights(os.path.relpath(run / name)).file.name == "model.safetensors"


def test_missing_and_corrupt_pointers_raise(run):
    best, checkpoints = run / "checkpoints/best", run / "checkpoints"
    with open(best, "a") as file:
        file.write("x")
    message = f"{best} does not name a checkpoint. Use a checkpoint in {checkpoints}, e.g. update_00000002."
    with pytest.raises(UserError, match=re.escape(message)):
        read_weights(best)
    best.unlink()
    with pytest.raises(UserError, match=re.escape(message)):
        read_weights(best)
    (checkpoints / "latest").write_text("../x\0\n")
    with pytest.raises(UserError, match="latest does not name a checkpoint"):
        read_weights(run)


@pytest.mark.parametrize("content", [b"", b"update_00000002", b"hello\n", b"PK\x03\x04"])
def test_file_that_is_not_a_weights_file_raises(tmp_path, content):
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(UserError, match=r"weights (is not a valid PyTorch file|has no weights|was not loaded)"):
        read_weights(tmp_path / "weights")


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_hub_name_is_downloaded_once(hub, hf_folder, hf_weights):
    hub.upload("facebook/flava-full", content(hf_folder))
    assert_same(read_weights("facebook/flava-full"), hf_weights)
    hub.shutdown()  # no network any more
    hub.server_close()
    open_repository.cache_clear()
    weights = read_weights("facebook/flava-full")
    assert_same(weights, hf_weights)
    assert weights.config.image_encoder.num_heads == 4
    with pytest.raises(UserError, match=r"model\.safetensors, has sha256 .*, expected 0000"):
        find_weights("facebook/flava-full", sha256="0" * 64)


def test_hub_name_with_shards_and_a_revision_is_downloaded(hub, hf_model, hf_weights, tmp_path):
    hf_model.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    files = content(tmp_path / "sharded")
    hub.upload("me/flava", files, "v2")
    assert_same(read_weights("me/flava@v2"), hf_weights)
    hub.upload("me/empty", {"config.json": files["config.json"]})
    with pytest.raises(UserError, match=r"me/empty has neither model\.safetensors nor pytorch_model\.bin"):
        read_weights("me/empty")
    files.pop(next(name for name in files if name.startswith("model-")))
    hub.upload("me/part", files)
    with pytest.raises(UserError, match=r"me/part has no file model-.*, which model\.safetensors\.index\.json lists"):
        read_weights("me/part")


def test_incomplete_cache_raises_the_error_of_the_hub(hub, hf_folder):
    files = content(hf_folder)
    hub.upload("me/flava", {"config.json": files["config.json"]})
    with pytest.raises(UserError, match="neither"):
        read_weights("me/flava")
    hub.shutdown()
    hub.server_close()
    open_repository.cache_clear()
    with pytest.raises(UserError, match="me/flava: the Hugging Face Hub cannot be reached"):
        read_weights("me/flava")


def test_url_is_downloaded(server, downloads, hf_weights, tmp_path):
    torch.save(hf_weights, tmp_path / "x.pt")
    server.files["/some/x.pt"] = (tmp_path / "x.pt").read_bytes()
    assert_same(read_weights(f"{server.url}/some/x.pt"), hf_weights)
    with pytest.raises(UserError, match="404"):
        read_weights(f"{server.url}/some/y.pt?token=secret")
    assert read_weights(f"{server.url}/some/x.pt?token=secret").source == f"{server.url}/some/x.pt?***"
