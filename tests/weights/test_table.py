"""The table of names, sizes out of files, the list of what does not fit, and single encoders from elsewhere."""

import pytest
import timm
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    FlavaForPreTraining,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormModel,
)

from mmf_flava.config.model import FlavaConfig, ImageEncoderConfig, TextEncoderConfig
from mmf_flava.errors import UserError
from mmf_flava.models.image_encoder import ImageEncoder
from mmf_flava.weights.fit import compare, demand
from mmf_flava.weights.names import from_ours, to_ours, with_poolers
from mmf_flava.weights.sizes import from_hugging_face, from_plain, from_tensors, to_plain
from mmf_flava.weights.table import STYLES, TABLE, rows
from mmf_flava.models.pretrained import load_image_encoder, load_text_encoder
from mmf_flava.models.text_encoder import TextEncoder
from tests.parity.batches import randomise
from tests.parity.test_hugging_face import small_config

OTHERS = STYLES[1:]
SIZE = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "mlp_size": 64}


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    model = FlavaForPreTraining(small_config())
    randomise(model)
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def ours(theirs):
    return to_ours(theirs).tensors


# ---------------------------------------------------------------------- names


def test_every_row_has_a_name_in_every_style():
    assert len({len(rows(style)) for style in STYLES}) == 1
    assert not any("@" in row.ours + row.theirs for style in STYLES for row in rows(style))
    assert len(TABLE.strip().splitlines()[0].split()) == len(STYLES) + 1  # "Hugging Face" is two words


def test_the_base_model_has_the_released_number_of_tensors():
    layers = {"image": 12, "text": 12, "multimodal": 6}
    blocks = sum(layers.values()) * 16
    embeddings = 5 + 5 + 1
    norms_and_poolers = 3 * 4
    projections = 4 * 2 + 1
    heads = 4 * 7 + 4
    codebook = 2 + 8 * 4 * 2 + 3 * 2 + 2
    assert blocks + embeddings + norms_and_poolers + projections + heads + codebook == 618
    ours_only = 30 * 4  # query, key and value are one tensor
    assert 618 - ours_only - 4 == 494  # and every decoder has one bias


@pytest.mark.parametrize("style", OTHERS)
def test_there_and_back_is_bit_equal(ours, style):
    written, left = from_ours(ours, style)
    assert not left
    back = to_ours(written)
    assert (back.style, back.unknown, back.ignored) == (style, [], [])
    assert back.tensors.keys() == ours.keys()
    assert all(torch.equal(back.tensors[key], ours[key]) for key in ours)
    assert len({value.data_ptr() for value in written.values()}) == len(written)  # no memory is shared


def test_query_key_and_value_become_one_in_this_order(theirs, ours):
    start = "flava.text_model.encoder.layer.1.attention.attention"
    fused = torch.cat([theirs[f"{start}.{name}.bias"] for name in ("query", "key", "value")])
    assert torch.equal(ours["flava.text_encoder.blocks.1.attn.qkv.bias"], fused)


@pytest.mark.parametrize(
    ("style", "prefix"), [("hf", "flava."), ("torchmultimodal", "model."), ("mmf_flava", "flava.")]
)
def test_the_model_alone_has_shorter_names(ours, style, prefix):
    written, _ = from_ours(ours, style)
    short = {key.removeprefix(prefix): value for key, value in written.items() if key.startswith(prefix)}
    found = to_ours(short)
    assert found.style == style and not found.unknown
    assert torch.equal(found.tensors["flava.image_encoder.pos_embed"], ours["flava.image_encoder.pos_embed"])


@pytest.mark.parametrize("style", STYLES)
def test_wrappers_are_taken_off(ours, style):
    written, _ = from_ours(ours, style)
    found = to_ours({f"module.{key}": value for key, value in written.items()})
    assert found.style == style and found.tensors.keys() == ours.keys()


def test_old_files_buffers_and_second_copies_are_ignored(theirs, ours):
    old = {**theirs, "flava.text_model.embeddings.position_ids": torch.arange(20)[None]}
    assert to_ours(old).ignored == ["flava.text_model.embeddings.position_ids"]
    written, _ = from_ours(ours, "mmf")
    found = to_ours({**written, "text_encoder.embeddings.word_embeddings.weight": torch.zeros(41, 32)})
    assert found.ignored == ["text_encoder.embeddings.word_embeddings.weight"] and not found.unknown


def test_what_contradicts_itself_or_is_not_whole_is_not_swallowed(theirs):
    name = "flava.image_model.encoder.layer.0.attention.attention.key.weight"
    lacking = {key: value for key, value in theirs.items() if key != name}
    found = to_ours({**lacking, "mim_head.bias": theirs["mim_head.bias"] + 1})
    assert any(key.startswith("mim_head") for key in found.unknown)
    assert {key.rpartition(".key")[0] or key for key in found.unknown if "layer.0" in key} == {
        name.replace("key", "query"),
        name.replace("key", "value"),
    }
    assert "flava.image_encoder.blocks.0.attn.qkv.weight" not in found.tensors


def test_other_models_are_refused_by_name():
    with pytest.raises(UserError, match=r"holds no FLAVA.*transformer"):
        to_ours({"transformer.h.0.weight": torch.zeros(1)}, "gpt.pt")
    with pytest.raises(UserError, match="no tensors"):
        to_ours({}, "empty.pt")


def test_poolers_are_made_once_and_kept_where_they_are(ours):
    bare = {key: value for key, value in ours.items() if not key.startswith("unused.")}
    made = with_poolers(bare)
    assert made.keys() == ours.keys()
    pooler = made["unused.flava.text_encoder.pooler.weight"]
    assert pooler.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(pooler, with_poolers(bare)["unused.flava.text_encoder.pooler.weight"])
    assert (
        with_poolers(ours)["unused.flava.text_encoder.pooler.weight"] is ours["unused.flava.text_encoder.pooler.weight"]
    )


# ---------------------------------------------------------------------- sizes


def test_sizes_are_told_by_config_and_by_shapes_alike(ours):
    stated = from_hugging_face(small_config().to_dict())
    assert (stated.image_encoder.num_heads, stated.text_encoder.max_length, stated.projection_size) == (4, 20, 24)
    assert stated.codebook.vocab_size == 19
    told = from_tensors(ours, num_heads=4)
    told.logit_scale_init = stated.logit_scale_init  # says nothing of a trained model
    assert told == stated
    assert from_plain(to_plain(stated), "here") == stated


def test_heads_have_64_dimensions_unless_stated(ours):
    assert from_tensors(ours).image_encoder.num_heads == 1  # 32 wide
    assert from_hugging_face({}) == FlavaConfig(logit_scale_init=FlavaConfig().logit_scale_init)


def test_another_activation_is_refused():
    with pytest.raises(UserError, match="hidden_act must be gelu"):
        from_hugging_face({"text_config": {"hidden_act": "relu"}})


# ---------------------------------------------------------------------- fit


def test_what_does_not_fit_is_one_short_list():
    own = {f"flava.blocks.{n}.{k}": torch.zeros(2, 3) for n in range(12) for k in "abcdefghijklmnopqrst"}
    own |= {"wide": torch.zeros(4), "same": torch.zeros(1)}
    fit = compare(own, {"wide": torch.zeros(5), "same": torch.zeros(1), "far": torch.zeros(1)}, ["stranger"])
    with pytest.raises(UserError) as refusal:
        demand(fit, "weights.pt")
    text = str(refusal.value)
    assert "names concerned: 243." in text and len(text.splitlines()) <= 20
    assert "missing: 240" in text and "flava.blocks.#.a (12 of them)" in text
    assert "wide is (5,), the model's is (4,)" in text
    assert "unknown: 2" in text and "stranger" in text
    assert "allow_missing and allow_extra" in text


def test_what_is_allowed_by_name_is_allowed():
    own = {"heads.mim.bias": torch.zeros(3), "heads.itm.bias": torch.zeros(2)}
    given = {"heads.itm.bias": torch.zeros(9), "x.1": torch.zeros(1)}
    fit = compare(own, given, (), ["heads.*"], ["x.?"])
    demand(fit, "weights.pt")
    assert sorted(fit.allowed) == ["heads.itm.bias", "heads.mim.bias", "x.1"]


# ---------------------------------------------------------------------- single encoders


@pytest.fixture
def vit():
    """timm's own ViT with random weights, 32 x 32 pixels in 16 patches."""
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2, num_classes=7
    ).eval()
    randomise(model)
    return model


def image_encoder(size=32):
    encoder = ImageEncoder(ImageEncoderConfig(**SIZE, image_size=size, patch_size=8, layer_norm_eps=1e-6)).eval()
    randomise(encoder)
    return encoder


@pytest.mark.parametrize("wrapped", ["timm", "dino", "dino backbone", "module"])
@torch.no_grad()
def test_a_vit_of_timm_or_dino_starts_the_image_encoder(vit, tmp_path, wrapped):
    weights = vit.state_dict()
    content = {
        "timm": weights,
        "dino": {"teacher": {f"backbone.{k}": v for k, v in weights.items()}, "epoch": 3},
        "dino backbone": {k: v for k, v in weights.items() if not k.startswith("head")},
        "module": {"state_dict": {f"module.backbone.{k}": v for k, v in weights.items()}},
    }[wrapped]
    torch.save(content, tmp_path / "vit.pth")
    encoder = image_encoder()
    before = encoder.mask_token.clone()
    fit = load_image_encoder(encoder, tmp_path / "vit.pth")
    assert fit.allowed == ["mask_token"] and torch.equal(encoder.mask_token, before)
    image = torch.randn(2, 3, 32, 32)
    assert torch.allclose(encoder(image).normed, vit.forward_features(image), atol=2e-5)


def test_another_resolution_interpolates_positions(vit, tmp_path):
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    encoder = image_encoder(48)
    load_image_encoder(encoder, tmp_path / "vit.pth")
    assert encoder.pos_embed.shape == (1, 1 + 36, 32)
    assert torch.equal(encoder.pos_embed[:, 0], vit.pos_embed[:, 0])  # [CLS] has no place
    corner = encoder.pos_embed[0, 1] - vit.pos_embed[0, 1]
    assert corner.abs().mean() < vit.pos_embed.std()


def beit(vit):
    """BEiT's spelling of the same ViT: layer scale, separate biases without one for the keys."""
    weights = dict(vit.state_dict())
    for n in range(2):
        bias = weights.pop(f"blocks.{n}.attn.qkv.bias")
        weights[f"blocks.{n}.attn.q_bias"], weights[f"blocks.{n}.attn.v_bias"] = bias[:32], bias[64:]
        weights[f"blocks.{n}.gamma_1"], weights[f"blocks.{n}.gamma_2"] = torch.rand(32) + 0.5, torch.rand(32) + 0.5
    return weights


@torch.no_grad()
def test_beits_layer_scale_and_biases_are_folded(vit, tmp_path):
    weights = beit(vit)
    torch.save({"model": weights}, tmp_path / "beit.pth")
    encoder = image_encoder()
    load_image_encoder(encoder, tmp_path / "beit.pth")
    for n, block in enumerate(vit.blocks):
        block.attn.qkv.bias[32:64] = 0
        block.ls1, block.ls2 = Scale(weights[f"blocks.{n}.gamma_1"]), Scale(weights[f"blocks.{n}.gamma_2"])
    image = torch.randn(2, 3, 32, 32)
    assert torch.allclose(encoder(image).normed, vit.forward_features(image), atol=2e-5)


class Scale(nn.Module):
    def __init__(self, gamma):
        super().__init__()
        self.gamma = gamma

    def forward(self, x):
        return self.gamma * x


def test_relative_positions_are_refused_unless_allowed_by_name(vit, tmp_path):
    table = {"blocks.0.attn.relative_position_bias_table": torch.zeros(52, 4)}
    index = {"blocks.0.attn.relative_position_index": torch.zeros(17, 17)}
    torch.save({"model": {**beit(vit), **table, **index}}, tmp_path / "beit.pth")
    with pytest.raises(UserError, match=r"unknown: 1\n.*blocks\.0\.attn\.relative_position_bias_table"):
        load_image_encoder(image_encoder(), tmp_path / "beit.pth")
    load_image_encoder(image_encoder(), tmp_path / "beit.pth", allow_extra=["*relative_position_bias_table"])


@pytest.mark.parametrize("style", STYLES)
def test_an_encoder_comes_out_of_a_whole_flava(ours, style, tmp_path):
    torch.save(from_ours(ours, style)[0], tmp_path / "flava.pt")
    encoder = ImageEncoder(ImageEncoderConfig(32, 3, 4, 56, image_size=32, patch_size=8))
    assert not load_image_encoder(encoder, tmp_path / "flava.pt").allowed
    assert torch.equal(encoder.blocks[2].attn.qkv.weight, ours["flava.image_encoder.blocks.2.attn.qkv.weight"])
    text = TextEncoder(TextEncoderConfig(32, 2, 4, 56, vocab_size=41, max_length=20))
    assert not load_text_encoder(text, tmp_path / "flava.pt").allowed
    assert torch.equal(text.norm.bias, ours["flava.text_encoder.norm.bias"])


@pytest.mark.parametrize("prefix", ["", "flava.text_model."])
def test_a_text_model_of_hugging_face_starts_the_text_encoder(theirs, ours, prefix, tmp_path):
    start = "flava.text_model."
    torch.save(
        {prefix + k.removeprefix(start): v for k, v in theirs.items() if k.startswith(start)}, tmp_path / "t.bin"
    )
    text = TextEncoder(TextEncoderConfig(32, 2, 4, 56, vocab_size=41, max_length=20))
    load_text_encoder(text, tmp_path / "t.bin")
    assert torch.equal(text.embedding_norm.weight, ours["flava.text_encoder.embedding_norm.weight"])


@torch.no_grad()
def test_a_pre_norm_roberta_starts_the_text_encoder(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = RobertaPreLayerNormConfig(
        **sizes, vocab_size=41, max_position_embeddings=26, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5
    )
    roberta = RobertaPreLayerNormModel(config).eval()
    randomise(roberta)
    weights = {f"roberta_prelayernorm.{key}": value for key, value in roberta.state_dict().items()}
    torch.save({**weights, "lm_head.dense.weight": torch.zeros(32, 32)}, tmp_path / "roberta.bin")
    settings = TextEncoderConfig(**SIZE, vocab_size=41, max_length=24, type_vocab_size=1, pad_token_id=1)
    settings.layer_norm_eps = 1e-5
    text = TextEncoder(settings).eval()
    load_text_encoder(text, tmp_path / "roberta.bin")
    ids = torch.randint(5, 41, (2, 9))
    expected = roberta(ids).last_hidden_state
    assert torch.allclose(text(ids).normed, expected, atol=2e-5)


def test_post_norm_weights_are_refused_with_the_reason(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    bert = BertModel(BertConfig(**sizes, vocab_size=41, max_position_embeddings=24))
    torch.save({f"bert.{key}": value for key, value in bert.state_dict().items()}, tmp_path / "bert.bin")
    text = TextEncoder(TextEncoderConfig(**SIZE, vocab_size=41, max_length=24))
    with pytest.raises(UserError, match="post-norm"):
        load_text_encoder(text, tmp_path / "bert.bin")
    patterns = {"allow_extra": ["*.output.LayerNorm.*"], "allow_missing": ["blocks.*.norm*", "norm.*"]}
    load_text_encoder(text, tmp_path / "bert.bin", **patterns)
    assert torch.equal(text.word_embeddings.weight, bert.embeddings.word_embeddings.weight)
    assert torch.equal(text.blocks[1].mlp.fc2.weight, bert.encoder.layer[1].output.dense.weight)
