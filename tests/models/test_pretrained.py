"""Finding, downloading and reading weights; what is refused, and that nothing of it was executed."""

import argparse
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import FlavaForPreTraining

from mmf_flava import Flava, load_pretrained
from mmf_flava.config.model import FlavaConfig
from mmf_flava.config.run import CheckpointConfig
from mmf_flava.errors import UserError
from mmf_flava.weights.sources import find, read_weights
from mmf_flava.models.pretrained import load_weights
from mmf_flava.training.checkpoint import start
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from tests.models.test_pretraining import build
from tests.parity.batches import randomise
from tests.parity.test_hugging_face import small_config


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    model = FlavaForPreTraining(small_config())
    randomise(model)
    return model


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    theirs.save_pretrained(folder)
    return folder


def same(core, theirs):
    assert isinstance(core, Flava)
    assert torch.equal(core.text_projection.weight, theirs.flava.text_projection.weight)
    assert core.image_encoder.blocks[0].attn.num_heads == 4


# ---------------------------------------------------------------------- local


def test_a_folder_needs_no_configuration(folder, theirs):
    core = load_pretrained(folder)
    assert not core.training
    same(core, theirs)
    same(load_pretrained(folder / "model.safetensors"), theirs)  # config.json lies beside it


def test_shards_and_bins(theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    same(load_pretrained(tmp_path / "sharded"), theirs)
    (tmp_path / "bin").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    same(load_pretrained(tmp_path / "bin", num_heads=4), theirs)


def test_heads_come_when_asked_for(folder, theirs):
    model = load_pretrained(folder, heads=True)
    assert not model.training and set(model.heads) == {"mim", "mlm", "mmm_image", "mmm_text", "itm"}
    assert torch.equal(model.heads["mlm"].decoder.weight, theirs.mlm_head.decoder.weight)
    assert torch.equal(model.codebook.blocks.input.weight, theirs.image_codebook.blocks.input.weight)


def test_missing_heads_are_refused_unless_allowed(theirs, tmp_path):
    theirs.flava.save_pretrained(tmp_path)  # the model alone
    config = read_weights(tmp_path).sizes()
    config.codebook.vocab_size = 19
    same(load_pretrained(tmp_path), theirs)
    with pytest.raises(UserError, match=r"missing: \d+\n.*heads\."):
        load_pretrained(tmp_path, heads=True, config=config)
    model = load_pretrained(tmp_path, heads=True, config=config, allow_missing=["heads.*"])
    assert torch.equal(model.flava.logit_scale, theirs.flava.logit_scale)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="There is no"):
        find(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no weights"):
        find(tmp_path)
    for name in ("a.pt", "b.pt"):
        torch.save({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(UserError, match="2 files of weights"):
        find(tmp_path)


def test_importing_the_package_imports_no_torch():
    code = "import sys, mmf_flava; dir(mmf_flava); mmf_flava.UserError; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


# ---------------------------------------------------------------------- in a recipe


@pytest.fixture
def whole(tiny, tmp_path):
    """A file of a whole model of the tiny size, and the model."""
    model = build(tiny)
    randomise(model)
    file = tmp_path / "whole.safetensors"
    save_file(dict(model.state_dict()), file)
    return file, model


def test_a_recipe_starts_from_whole_weights(tiny, whole):
    file, trained = whole
    model = build(tiny, ["flava_global_contrastive", "flava_itm"])  # fewer heads than the file has
    lines = start(model, str(file), CheckpointConfig(), None)
    assert lines == [f"Started the model from {file}"]
    assert torch.equal(model.heads["itm"].pooler.weight, trained.heads["itm"].pooler.weight)


def test_a_recipe_starts_one_encoder(tiny, whole):
    file, trained = whole
    tiny.text_encoder.pretrained = str(file)
    model = build(tiny)
    image = model.flava.image_encoder.norm.weight.clone()
    assert start(model, None, CheckpointConfig(), None) == [f"Started the text encoder from {file}"]
    assert torch.equal(model.flava.text_encoder.norm.weight, trained.flava.text_encoder.norm.weight)
    assert torch.equal(model.flava.image_encoder.norm.weight, image)


def test_a_recipe_allows_missing_heads_by_name(tiny, whole, tmp_path):
    _, trained = whole
    save_file(dict(trained.flava.state_dict()), tmp_path / "core.safetensors")
    with pytest.raises(UserError, match="allow_missing"):
        start(build(tiny), str(tmp_path / "core.safetensors"), CheckpointConfig(), None)
    lines = start(build(tiny), str(tmp_path / "core.safetensors"), CheckpointConfig(allow_missing=["heads.*"]), None)
    assert "allowed not to fit: 28, such as heads." in lines[0]


def test_larger_images_start_from_the_same_weights(tiny, whole):
    file, trained = whole
    tiny.image_encoder.image_size = 6
    model = build(tiny)
    load_weights(model, file)
    assert model.flava.image_encoder.pos_embed.shape == (1, 10, 8)
    assert torch.equal(model.flava.image_encoder.pos_embed[:, 0], trained.flava.image_encoder.pos_embed[:, 0])


def test_another_number_of_attention_heads_is_noticed(folder):
    config = read_weights(folder).sizes()
    config.image_encoder.num_heads = 2
    with pytest.raises(UserError, match=r"trained with 4 attention heads.*image_encoder\.num_heads to 4"):
        load_weights(build(config), folder)


def test_a_checkpoint_of_a_run_says_its_sizes(tiny, tmp_path):
    tiny.image_encoder.pretrained = "/home/me/vit.pth"  # nobody else's business
    model = build(tiny)
    folder = CheckpointFolder(tmp_path / "run")
    path = folder.save(1, model, torch.optim.SGD(model.parameters(), lr=1), {})
    core = load_pretrained(tmp_path / "run")
    assert core.text_encoder.blocks[0].attn.num_heads == 2
    assert read_weights(path).sizes().codebook.vocab_size == 5
    assert b"vit.pth" not in (path / "model.safetensors").read_bytes()


# ---------------------------------------------------------------------- the network


def serve(server, folder, name):
    for file in Path(folder).iterdir():
        server.files[f"/{name}/resolve/main/{file.name}"] = file.read_bytes()


def test_a_hub_name_is_downloaded_once(server, downloads, folder, theirs, capfd):
    serve(server, folder, "facebook/flava-full")
    same(load_pretrained("facebook/flava-full"), theirs)
    assert "model.safetensors: 100%" in capfd.readouterr().err  # the progress bar
    server.shutdown()  # no network any more
    server.server_close()
    same(load_pretrained("facebook/flava-full"), theirs)
    assert {file.name for file in downloads.rglob("*") if file.is_file()} >= {"model.safetensors", "config.json"}
    assert not list(downloads.rglob("*.part"))


def test_a_hub_name_with_shards_and_a_revision(server, downloads, theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    for file in (tmp_path / "sharded").iterdir():
        server.files[f"/me/flava/resolve/v2/{file.name}"] = file.read_bytes()
    same(load_pretrained("me/flava@v2"), theirs)
    with pytest.raises(UserError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_pretrained("me/nothing")


def test_an_address(server, downloads, theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "x.pt")
    server.files["/some/x.pt"] = (tmp_path / "x.pt").read_bytes()
    same(load_pretrained(f"{server.url}/some/x.pt", num_heads=4), theirs)
    with pytest.raises(UserError, match="404"):
        load_pretrained(f"{server.url}/some/y.pt?token=secret")


# ---------------------------------------------------------------------- malice


class Payload:
    """Creates a file when it is unpickled by a reader that executes."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return (Path.touch, (self.proof,))


@pytest.fixture
def proof(tmp_path):
    file = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(file)))
    assert file.exists()  # the payload works
    file.unlink()
    return file


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["flava.pt", "pytorch_model.bin", "run.ckpt", "weights.safetensors"])
def test_pickled_code_is_refused_and_not_executed(theirs, tmp_path, proof, name, legacy):
    file = tmp_path / name
    content = {"model": theirs.state_dict(), "config": Payload(proof)}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError) as refusal:
        load_pretrained(file)
    assert not proof.exists()
    if not name.endswith("safetensors"):
        assert "would execute" in str(refusal.value) and "save its tensors alone" in str(refusal.value)


def test_a_bare_pickle_is_refused_and_not_executed(tmp_path, proof):
    (tmp_path / "flava.pt").write_bytes(pickle.dumps(Payload(proof)))
    with pytest.raises(UserError):
        load_pretrained(tmp_path / "flava.pt")
    assert not proof.exists()


def test_plain_arguments_are_no_malice(theirs, tmp_path):
    """DINO's full checkpoints hold their arguments as a Namespace."""
    content = {"model": theirs.state_dict(), "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "full.pth")
    same(load_pretrained(tmp_path / "full.pth", num_heads=4), theirs)


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
def test_safetensors_with_wrong_headers_are_refused(tmp_path, content):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match="no safetensors file"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "x.py", 7])
def test_an_index_that_points_outside_of_its_folder_is_refused(tmp_path, name):
    save_file({"x": torch.zeros(1)}, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(UserError, match=r"points to|no index"):
        load_pretrained(folder)


def test_the_default_configuration_is_left_alone(folder):
    """Sizes of one model must not become another's."""
    load_pretrained(folder, heads=True)
    assert FlavaConfig().codebook.vocab_size == 8192
