"""Single encoders from ViTs, BEiT, pre-norm text encoders and FLAVA."""

import pytest
import timm
import torch
from torch import nn
from transformers import BertConfig, BertModel, RobertaPreLayerNormConfig, RobertaPreLayerNormModel

from mmf_flava.config.model import ImageEncoderConfig, TextEncoderConfig
from mmf_flava.errors import UserError
from mmf_flava.models.image_encoder import ImageEncoder
from mmf_flava.models.text_encoder import TextEncoder
from mmf_flava.weights.encoders import load_image_encoder, load_text_encoder
from mmf_flava.weights.names import STYLES, from_native
from tests.parity.batches import randomise

SIZE = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "mlp_size": 64}


@pytest.fixture
def vit():
    """timm's ViT with random weights, 32 x 32 pixels in 16 patches."""
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
def test_vit_of_timm_or_dino_is_loaded(vit, tmp_path, wrapped):
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
    report = load_image_encoder(encoder, tmp_path / "vit.pth")
    assert report.allowed == ["mask_token"] and torch.equal(encoder.mask_token, before)
    image = torch.randn(2, 3, 32, 32)
    assert torch.allclose(encoder(image).normed, vit.forward_features(image), atol=2e-5)


def test_positions_of_another_resolution_are_interpolated(vit, tmp_path):
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    encoder = image_encoder(48)
    load_image_encoder(encoder, tmp_path / "vit.pth")
    assert encoder.pos_embed.shape == (1, 1 + 36, 32)
    assert torch.equal(encoder.pos_embed[:, 0], vit.pos_embed[:, 0])  # [CLS] is not interpolated
    corner = encoder.pos_embed[0, 1] - vit.pos_embed[0, 1]
    assert corner.abs().mean() < vit.pos_embed.std()


def beit(vit):
    """Return the same ViT with BEiT's keys: layer scale, and separate biases without one for the keys."""
    weights = dict(vit.state_dict())
    for n in range(2):
        bias = weights.pop(f"blocks.{n}.attn.qkv.bias")
        weights[f"blocks.{n}.attn.q_bias"], weights[f"blocks.{n}.attn.v_bias"] = bias[:32], bias[64:]
        weights[f"blocks.{n}.gamma_1"], weights[f"blocks.{n}.gamma_2"] = torch.rand(32) + 0.5, torch.rand(32) + 0.5
    return weights


@torch.no_grad()
def test_layer_scale_and_biases_of_beit_are_folded(vit, tmp_path):
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


def test_relative_positions_raise_unless_allowed(vit, tmp_path):
    table = {"blocks.0.attn.relative_position_bias_table": torch.zeros(52, 4)}
    index = {"blocks.0.attn.relative_position_index": torch.zeros(17, 17)}
    torch.save({"model": {**beit(vit), **table, **index}}, tmp_path / "beit.pth")
    with pytest.raises(UserError, match=r"unexpected: 1\n.*blocks\.0\.attn\.relative_position_bias_table"):
        load_image_encoder(image_encoder(), tmp_path / "beit.pth")
    load_image_encoder(image_encoder(), tmp_path / "beit.pth", allow_extra=["*relative_position_bias_table"])


@pytest.mark.parametrize("style", STYLES)
def test_encoders_of_a_complete_flava_are_loaded(native_weights, style, tmp_path):
    torch.save(from_native(native_weights, style)[0], tmp_path / "flava.pt")
    encoder = ImageEncoder(ImageEncoderConfig(32, 3, 4, 56, image_size=32, patch_size=8))
    assert not load_image_encoder(encoder, tmp_path / "flava.pt").allowed
    assert torch.equal(
        encoder.blocks[2].attn.qkv.weight, native_weights["flava.image_encoder.blocks.2.attn.qkv.weight"]
    )
    text = TextEncoder(TextEncoderConfig(32, 2, 4, 56, vocab_size=41, max_length=20))
    assert not load_text_encoder(text, tmp_path / "flava.pt").allowed
    assert torch.equal(text.norm.bias, native_weights["flava.text_encoder.norm.bias"])


@pytest.mark.parametrize("prefix", ["", "flava.text_model."])
def test_text_model_of_hugging_face_is_loaded(hf_weights, native_weights, prefix, tmp_path):
    start = "flava.text_model."
    weights = {prefix + k.removeprefix(start): v for k, v in hf_weights.items() if k.startswith(start)}
    torch.save(weights, tmp_path / "t.bin")
    text = TextEncoder(TextEncoderConfig(32, 2, 4, 56, vocab_size=41, max_length=20))
    load_text_encoder(text, tmp_path / "t.bin")
    assert torch.equal(text.embedding_norm.weight, native_weights["flava.text_encoder.embedding_norm.weight"])


@torch.no_grad()
def test_pre_norm_roberta_is_loaded(tmp_path):
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


def test_post_norm_encoder_raises_unless_allowed(tmp_path):
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
