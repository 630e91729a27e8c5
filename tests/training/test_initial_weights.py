"""Pretrained weights of a run: a complete model, or single encoders."""

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from mmf_flava.config.run import CheckpointConfig
from mmf_flava.data.initial_processors import InitialProcessors
from mmf_flava.data.processor_files import write_processors
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.errors import UserError
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.initial_weights import load_initial_weights, load_pretrained_weights
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


@pytest.mark.parametrize(("name", "update"), [("", 2), ("checkpoints/latest", 2), ("checkpoints/best", 1)])
def test_resume_file_names_a_checkpoint_of_a_run(tiny, tmp_path, name, update):
    model, other = build(tiny), CheckpointFolder(tmp_path / "run")
    for number in (1, 2):
        with torch.no_grad():
            model.flava.text_projection.bias.fill_(number)
        other.save(number, model, torch.optim.SGD(model.parameters(), lr=1), {}, best=number == 1)
    reset = {"all": False, "optimizer": False, "counts": False}
    section = {"resume": False, "resume_best": False, "resume_pretrained": False, "reset": reset}
    config = OmegaConf.create({"checkpoint": {**section, "resume_file": str(tmp_path / "run" / name)}})
    checkpoint = load_initial_weights(model, config, CheckpointFolder(tmp_path / "new"), CheckpointConfig())
    assert model.flava.text_projection.bias[0] == update
    assert checkpoint == other.folder / f"update_{update:08d}"


def test_missing_heads_raise_unless_allowed(tiny, trained, tmp_path):
    source, _ = trained
    core = str(tmp_path / "core.safetensors")
    save_file(dict(source.flava.state_dict()), core)
    with pytest.raises(UserError, match="allow_missing"):
        load_pretrained_weights(build(tiny), core, CheckpointConfig(), None)
    (message,) = load_pretrained_weights(build(tiny), core, CheckpointConfig(allow_missing=["heads.*"]), None)
    assert "allowed mismatches: 28, e.g. heads." in message


def test_text_encoder_of_another_vocabulary_is_refused(tiny, trained, monkeypatch):
    _, file = trained
    tiny.text_encoder.pretrained = str(file)
    initial = InitialProcessors()
    initial.vocabulary_sha256 = "1" * 64
    monkeypatch.setattr("mmf_flava.models.encoder_weights.initial_processors", lambda in_run: initial)
    message = "does not store its vocabulary. It is assumed to be the vocabulary of the run's tokenizer"
    with pytest.warns(UserWarning, match=message):
        load_pretrained_weights(build(tiny), None, CheckpointConfig(), None)
    write_processors(SavedProcessors("", vocabulary_sha256="2" * 64), file.parent)
    with pytest.raises(UserError, match=r"The run's tokenizer: the vocabulary differs .* add 'word_embeddings.weight'"):
        load_pretrained_weights(build(tiny), None, CheckpointConfig(), None)
    model = build(tiny)
    before = model.flava.text_encoder.word_embeddings.weight.clone()
    load_pretrained_weights(model, None, CheckpointConfig(allow_missing=["word_embeddings.weight"]), None)
    assert torch.equal(model.flava.text_encoder.word_embeddings.weight, before)
