"""``load_pretrained``: the model that it builds for weights from different files."""

import subprocess
import sys

import pytest
import torch
from transformers import FlavaForPreTraining

from mmf_flava import Flava, load_pretrained
from mmf_flava.config.model import FlavaConfig
from mmf_flava.errors import UserError
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.weights.sources import read_weights
from tests.models.test_pretraining import build
from tests.parity.batches import randomise
from tests.parity.test_hugging_face import small_config


@pytest.fixture(scope="module")
def hf_model():
    torch.manual_seed(0)
    model = FlavaForPreTraining(small_config())
    randomise(model)
    return model


@pytest.fixture(scope="module")
def hf_folder(hf_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    hf_model.save_pretrained(folder)
    return folder


def assert_same(core, hf_model):
    assert isinstance(core, Flava)
    assert torch.equal(core.text_projection.weight, hf_model.flava.text_projection.weight)
    assert core.image_encoder.blocks[0].attn.num_heads == 4


def test_folder_of_hugging_face_needs_no_configuration(hf_folder, hf_model):
    core = load_pretrained(hf_folder)
    assert not core.training
    assert_same(core, hf_model)
    assert_same(load_pretrained(hf_folder / "model.safetensors"), hf_model)  # with config.json of the same folder


def test_shards_and_torch_files_are_loaded(hf_model, tmp_path):
    hf_model.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert_same(load_pretrained(tmp_path / "sharded"), hf_model)
    (tmp_path / "bin").mkdir()
    torch.save(hf_model.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    assert_same(load_pretrained(tmp_path / "bin", num_heads=4), hf_model)


def test_heads_and_codebook_are_loaded_on_request(hf_folder, hf_model):
    model = load_pretrained(hf_folder, heads=True)
    assert not model.training and set(model.heads) == {"mim", "mlm", "mmm_image", "mmm_text", "itm"}
    assert torch.equal(model.heads["mlm"].decoder.weight, hf_model.mlm_head.decoder.weight)
    assert torch.equal(model.codebook.blocks.input.weight, hf_model.image_codebook.blocks.input.weight)


def test_missing_heads_raise_unless_allowed(hf_model, tmp_path):
    hf_model.flava.save_pretrained(tmp_path)  # the core only
    config = read_weights(tmp_path).infer_config()
    config.codebook.vocab_size = 19
    assert_same(load_pretrained(tmp_path), hf_model)
    with pytest.raises(UserError, match=r"missing: \d+\n.*heads\."):
        load_pretrained(tmp_path, heads=True, config=config)
    model = load_pretrained(tmp_path, heads=True, config=config, allow_missing=["heads.*"])
    assert torch.equal(model.flava.logit_scale, hf_model.flava.logit_scale)


def test_importing_the_package_imports_no_torch():
    code = "import sys, mmf_flava; dir(mmf_flava); mmf_flava.UserError; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_checkpoint_of_a_run_stores_its_configuration(tiny, tmp_path):
    tiny.image_encoder.pretrained = "/home/me/vit.pth"  # a local path, which must not be stored
    model = build(tiny)
    path = CheckpointFolder(tmp_path / "run").save(1, model, torch.optim.SGD(model.parameters(), lr=1), {})
    core = load_pretrained(tmp_path / "run")
    assert core.text_encoder.blocks[0].attn.num_heads == 2
    assert read_weights(path).infer_config().codebook.vocab_size == 5
    assert b"vit.pth" not in (path / "model.safetensors").read_bytes()


def test_hub_name_is_downloaded(hub, hf_folder, hf_model):
    hub.upload("facebook/flava-full", {file.name: file.read_bytes() for file in hf_folder.iterdir()})
    assert_same(load_pretrained("facebook/flava-full"), hf_model)


def test_default_configuration_is_not_changed(hf_folder):
    """The sizes of a loaded model must not become those of the next one."""
    load_pretrained(hf_folder, heads=True)
    assert FlavaConfig().codebook.vocab_size == 8192
