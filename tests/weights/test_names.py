"""Translation of keys between the naming styles."""

import pytest
import torch

from mmf_flava.errors import UserError
from mmf_flava.weights.names import STYLES, TABLE, from_native, key_mappings, to_native

FOREIGN_STYLES = STYLES[1:]


def test_every_style_has_a_key_for_every_entry():
    assert len({len(key_mappings(style)) for style in STYLES}) == 1
    assert not any("@" in mapping.native + mapping.foreign for style in STYLES for mapping in key_mappings(style))
    assert len(TABLE.strip().splitlines()[0].split()) == len(STYLES) + 1  # "Hugging Face" is two words


def test_base_model_has_the_released_number_of_tensors():
    layers = {"image": 12, "text": 12, "multimodal": 6}
    blocks = sum(layers.values()) * 16
    embeddings = 5 + 5 + 1
    norms_and_poolers = 3 * 4
    projections = 4 * 2 + 1
    heads = 4 * 7 + 4
    codebook = 2 + 8 * 4 * 2 + 3 * 2 + 2
    assert blocks + embeddings + norms_and_poolers + projections + heads + codebook == 618
    fused = 30 * 4  # query, key and value are one native tensor
    assert 618 - fused - 4 == 494  # each decoder has one native bias


@pytest.mark.parametrize("style", FOREIGN_STYLES)
def test_round_trip_is_bit_equal(native_weights, style):
    translated, untranslated = from_native(native_weights, style)
    assert not untranslated
    restored = to_native(translated)
    assert (restored.style, restored.unknown, restored.ignored) == (style, [], [])
    assert restored.tensors.keys() == native_weights.keys()
    assert all(torch.equal(restored.tensors[key], native_weights[key]) for key in native_weights)
    assert len({value.data_ptr() for value in translated.values()}) == len(translated)  # no memory is shared


def test_query_key_and_value_are_fused_in_this_order(hf_weights, native_weights):
    prefix = "flava.text_model.encoder.layer.1.attention.attention"
    fused = torch.cat([hf_weights[f"{prefix}.{name}.bias"] for name in ("query", "key", "value")])
    assert torch.equal(native_weights["flava.text_encoder.blocks.1.attn.qkv.bias"], fused)


@pytest.mark.parametrize(
    ("style", "prefix"), [("hf", "flava."), ("torchmultimodal", "model."), ("mmf_flava", "flava.")]
)
def test_keys_of_the_core_alone_have_no_prefix(native_weights, style, prefix):
    translated, _ = from_native(native_weights, style)
    core = {key.removeprefix(prefix): value for key, value in translated.items() if key.startswith(prefix)}
    restored = to_native(core)
    assert restored.style == style and not restored.unknown
    key = "flava.image_encoder.pos_embed"
    assert torch.equal(restored.tensors[key], native_weights[key])


@pytest.mark.parametrize("style", STYLES)
def test_prefixes_of_wrappers_are_removed(native_weights, style):
    translated, _ = from_native(native_weights, style)
    restored = to_native({f"module.{key}": value for key, value in translated.items()})
    assert restored.style == style and restored.tensors.keys() == native_weights.keys()


def test_old_buffers_and_duplicates_are_ignored(hf_weights, native_weights):
    old = {**hf_weights, "flava.text_model.embeddings.position_ids": torch.arange(20)[None]}
    assert to_native(old).ignored == ["flava.text_model.embeddings.position_ids"]
    translated, _ = from_native(native_weights, "mmf")
    restored = to_native({**translated, "text_encoder.embeddings.word_embeddings.weight": torch.zeros(41, 32)})
    assert restored.ignored == ["text_encoder.embeddings.word_embeddings.weight"] and not restored.unknown


def test_different_aliases_and_incomplete_attention_are_unknown(hf_weights):
    name = "flava.image_model.encoder.layer.0.attention.attention.key.weight"
    incomplete = {key: value for key, value in hf_weights.items() if key != name}
    restored = to_native({**incomplete, "mim_head.bias": hf_weights["mim_head.bias"] + 1})
    assert any(key.startswith("mim_head") for key in restored.unknown)
    assert {key.rpartition(".key")[0] or key for key in restored.unknown if "layer.0" in key} == {
        name.replace("key", "query"),
        name.replace("key", "value"),
    }
    assert "flava.image_encoder.blocks.0.attn.qkv.weight" not in restored.tensors


def test_keys_of_other_models_raise():
    with pytest.raises(UserError, match=r"gpt\.pt has no FLAVA.*transformer"):
        to_native({"transformer.h.0.weight": torch.zeros(1)}, "gpt.pt")
    with pytest.raises(UserError, match="no tensors"):
        to_native({}, "empty.pt")
