"""Pretrained weights of a run: a complete model, or single encoders."""

import pytest
import torch
from safetensors.torch import save_file

from mmf_flava.config.run import CheckpointConfig
from mmf_flava.errors import UserError
from mmf_flava.training.initial_weights import load_pretrained_weights
from tests.models.test_pretraining import build
from tests.parity.batches import randomise


@pytest.fixture
def trained(tiny, tmp_path):
    """A tiny model with random weights, and its weights file."""
    model = build(tiny)
    randomise(model)
    file = tmp_path / "model.safetensors"
    save_file(dict(model.state_dict()), file)
    return model, file


def test_complete_model_is_loaded(tiny, trained):
    source, file = trained
    model = build(tiny, ["flava_global_contrastive", "flava_itm"])  # fewer heads than in the file
    messages = load_pretrained_weights(model, str(file), CheckpointConfig(), None)
    assert messages == [f"Loaded the model from {file}"]
    assert torch.equal(model.heads["itm"].pooler.weight, source.heads["itm"].pooler.weight)


def test_single_encoder_is_loaded(tiny, trained):
    source, file = trained
    tiny.text_encoder.pretrained = str(file)
    model = build(tiny)
    image_norm = model.flava.image_encoder.norm.weight.clone()
    messages = load_pretrained_weights(model, None, CheckpointConfig(), None)
    assert messages == [f"Loaded the text encoder from {file}"]
    assert torch.equal(model.flava.text_encoder.norm.weight, source.flava.text_encoder.norm.weight)
    assert torch.equal(model.flava.image_encoder.norm.weight, image_norm)


def test_missing_heads_raise_unless_allowed(tiny, trained, tmp_path):
    source, _ = trained
    core = str(tmp_path / "core.safetensors")
    save_file(dict(source.flava.state_dict()), core)
    with pytest.raises(UserError, match="allow_missing"):
        load_pretrained_weights(build(tiny), core, CheckpointConfig(), None)
    (message,) = load_pretrained_weights(build(tiny), core, CheckpointConfig(allow_missing=["heads.*"]), None)
    assert "allowed mismatches: 28, e.g. heads." in message
