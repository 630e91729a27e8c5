"""The check of keys and shapes, and loading into a recipe's model."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mmf_flava.errors import UserError
from mmf_flava.weights.configs import CONFIG_KEY, config_to_dict
from mmf_flava.weights.loading import compare_keys, load_checkpoint_weights, load_weights
from mmf_flava.weights.sources import read_weights
from tests.models.test_pretraining import build
from tests.parity.batches import randomise


def test_all_differences_are_in_one_short_message():
    expected = {f"flava.blocks.{n}.{k}": torch.zeros(2, 3) for n in range(12) for k in "abcdefghijklmnopqrst"}
    expected |= {"wide": torch.zeros(4), "same": torch.zeros(1)}
    loaded = {"wide": torch.zeros(5), "same": torch.zeros(1), "extra": torch.zeros(1)}
    with pytest.raises(UserError) as error:
        compare_keys(expected, loaded, ["untranslated"]).check("weights.pt")
    text = str(error.value)
    assert "243 keys differ." in text and len(text.splitlines()) <= 20
    assert "missing: 240" in text and "flava.blocks.#.a (12 layers)" in text
    assert "wide: (5,), expected (4,)" in text
    assert "unexpected: 2" in text and "untranslated" in text
    assert "allow_missing and allow_extra" in text


def test_keys_that_match_a_pattern_are_allowed():
    expected = {"heads.mim.bias": torch.zeros(3), "heads.itm.bias": torch.zeros(2)}
    loaded = {"heads.itm.bias": torch.zeros(9), "x.1": torch.zeros(1)}
    report = compare_keys(expected, loaded, (), ["heads.*"], ["x.?"])
    report.check("weights.pt")
    assert sorted(report.allowed) == ["heads.itm.bias", "heads.mim.bias", "x.1"]


def test_positions_of_larger_images_are_interpolated(tiny, tmp_path):
    trained = build(tiny)
    randomise(trained)
    save_file(dict(trained.state_dict()), tmp_path / "model.safetensors")
    tiny.image_encoder.image_size = 6
    model = build(tiny)
    load_weights(model, tmp_path / "model.safetensors")
    assert model.flava.image_encoder.pos_embed.shape == (1, 10, 8)
    assert torch.equal(model.flava.image_encoder.pos_embed[:, 0], trained.flava.image_encoder.pos_embed[:, 0])


def test_different_number_of_attention_heads_raises(hf_folder):
    config = read_weights(hf_folder).infer_config()
    config.image_encoder.num_heads = 2
    with pytest.raises(UserError, match=r"image_encoder\.num_heads is 2.*trained with 4 attention heads.*Set it to 4"):
        load_weights(build(config), hf_folder)


def test_checkpoint_of_another_number_of_attention_heads_raises(tiny, tmp_path):
    """The shapes of all tensors are equal."""
    header = {CONFIG_KEY: json.dumps(config_to_dict(tiny))}
    save_file(dict(build(tiny).state_dict()), tmp_path / "model.safetensors", metadata=header)
    load_checkpoint_weights(build(tiny), tmp_path)
    heads = tiny.text_encoder.num_heads
    tiny.text_encoder.num_heads = 2 * heads
    with pytest.raises(UserError, match=rf"text_encoder\.num_heads is {2 * heads}, .*trained with {heads} attention"):
        load_checkpoint_weights(build(tiny), tmp_path)


def test_rows_per_token_are_not_loaded_for_another_vocabulary(tiny, tmp_path):
    source = build(tiny)
    randomise(source)
    save_file(dict(source.state_dict()), tmp_path / "model.safetensors")
    model, names = build(tiny), ["flava.text_encoder.word_embeddings.weight", "heads.mlm.decoder.*"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_weights(model, tmp_path / "model.safetensors", allow_missing=names, new_vocabulary=True)
    kept = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    dropped = {names[0], "heads.mlm.decoder.weight", "heads.mlm.decoder.bias"}
    assert {*report.allowed} == dropped <= kept
    assert "heads.mmm_text.decoder.weight" not in kept
