"""Finetuning takes tokenizer, max_length and image statistics from the pretrained weights, and stores them too."""

import json
import warnings

import pytest
import torch
from safetensors.torch import save_file

from mmf_flava import UserError
from mmf_flava.config.model import ClassificationConfig
from mmf_flava.data.processor_files import read_processors, write_processors
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, build_wordpiece, compute_vocabulary_hash
from mmf_flava.models.flava import Flava
from tests.finetuning.toys import WORDS

MEAN, STD = (0.2, 0.5, 0.7), (0.1, 0.3, 0.2)
SIZE = {"hidden_size": 64, "num_layers": 1, "num_heads": 1, "mlp_size": 64}
PARAMS = "dataset_config.hateful_memes.processors"
SECTION = "model_config.flava_classification"
OPTIONS = [
    f"{PARAMS}.text_processor.params.max_length=null",
    *(
        f"{SECTION}.{part}.{key}={value}"
        for part in ("image_encoder", "text_encoder", "multimodal_encoder")
        for key, value in SIZE.items()
    ),
    f"{SECTION}.text_encoder.vocab_size=64",
    "training.max_updates=2",
    "training.batch_size=8",
    "training.evaluation_interval=2",
    "training.checkpoint_interval=2",
]
WITHOUT_TOKENIZER = f"{PARAMS}.text_processor.params.tokenizer=null"


@pytest.fixture(scope="module")
def tokenizer():
    return build_wordpiece([*SPECIAL_TOKENS, *reversed(WORDS)])


@pytest.fixture(scope="module")
def pretrained(tokenizer, tmp_path_factory):
    """A checkpoint with random weights, a permuted vocabulary and other image statistics."""
    torch.manual_seed(0)
    config = ClassificationConfig(num_labels=2)
    for encoder in (config.image_encoder, config.text_encoder, config.multimodal_encoder):
        for key, value in SIZE.items():
            setattr(encoder, key, value)
    config.image_encoder.image_size, config.image_encoder.patch_size = 24, 6
    config.text_encoder.vocab_size, config.text_encoder.max_length = 64, 64
    config.projection_size = 64
    folder = tmp_path_factory.mktemp("pretrained")
    save_file(
        {f"flava.{name}": value.contiguous() for name, value in Flava(config).state_dict().items()},
        folder / "model.safetensors",
    )
    sha256 = compute_vocabulary_hash(tokenizer)
    write_processors(SavedProcessors("", tokenizer.to_str(), sha256, 11, 24, MEAN, STD), folder)
    return folder


def test_processors_are_those_of_the_weights(finetune, pretrained, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(does not state|is set to)")
        finetune("demo_hateful_memes", tmp_path, f"{SECTION}.pretrained={pretrained}", WITHOUT_TOKENIZER, *OPTIONS)
    (folder,) = (tmp_path / "checkpoints").glob("update_*")
    stored, before = json.loads((folder / "processors.json").read_text()), read_processors(pretrained).to_json()
    tokenizer = (folder / "tokenizer.json").read_text()
    assert {**stored, "tokenizer": tokenizer, "classes": None} == json.loads(json.dumps(before))
    assert read_processors(tmp_path).vocabulary_sha256 == read_processors(pretrained).vocabulary_sha256


def test_another_vocabulary_is_refused(finetune, pretrained, tmp_path):
    """The recipe names the usual tokenizer."""
    options = [f"{SECTION}.pretrained={pretrained}", *OPTIONS]
    with pytest.raises(UserError, match=r"the vocabulary differs from the vocabulary that .* was trained with"):
        finetune("demo_hateful_memes", tmp_path, *options)
    allowed = "checkpoint.allow_missing=[flava.text_encoder.word_embeddings.weight]"
    finetune("demo_hateful_memes", tmp_path, *options, allowed)


def test_other_image_statistics_give_a_warning(finetune, pretrained, tmp_path):
    options = [f"{SECTION}.pretrained={pretrained}", WITHOUT_TOKENIZER, *OPTIONS]
    with pytest.warns(
        UserWarning, match=r"mean is set to \[0\.5, 0\.5, 0\.5\], but .* was trained with mean \[0\.2, 0\.5"
    ):
        finetune("demo_hateful_memes", tmp_path, *options, f"{PARAMS}.image_processor.params.mean=[0.5,0.5,0.5]")


def test_weights_without_processors_give_one_warning(finetune, pretrained, tmp_path):
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes((pretrained / "model.safetensors").read_bytes())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finetune("demo_hateful_memes", tmp_path / "run", f"{SECTION}.pretrained={bare}", *OPTIONS)
    assert len([w for w in caught if "does not state" in str(w.message) and "CLIP" in str(w.message)]) == 1
