"""Attention of [CLS]: uniform without keys, and equal to the attention of timm's ViT."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from mmf_flava.config.model import ImageEncoderConfig
from mmf_flava.models.attention_maps import cls_attention
from mmf_flava.models.image_encoder import ImageEncoder

SIZE = {"hidden_size": 16, "num_heads": 4, "mlp_size": 8, "image_size": 12, "patch_size": 4}


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = ImageEncoder(ImageEncoderConfig(num_layers=2, layer_norm_eps=1e-6, **SIZE)).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder


def test_attention_without_keys_is_uniform(encoder):
    with torch.no_grad():
        encoder.blocks[-1].attn.qkv.weight.zero_()
        encoder.blocks[-1].attn.qkv.bias.zero_()
    maps = cls_attention(encoder, torch.randn(5, 3, 12, 12))
    assert maps.shape == (5, 4, 3, 3)
    assert torch.allclose(maps, torch.full_like(maps, 1 / 10))  # nine patches and [CLS]


def test_grid_of_another_image_size(encoder):
    maps = cls_attention(encoder, torch.randn(1, 3, 8, 20))
    assert maps.shape == (1, 4, 2, 5) and (maps.sum(dim=(2, 3)) < 1).all()


def test_attention_is_that_of_timm(encoder):
    peer = VisionTransformer(img_size=12, patch_size=4, embed_dim=16, depth=2, num_heads=4, mlp_ratio=0.5).eval()
    missing, unexpected = peer.load_state_dict(encoder.state_dict(), strict=False)
    assert (missing, unexpected) == (["head.weight", "head.bias"], ["mask_token"])
    attention, found, image = peer.blocks[-1].attn, [], torch.randn(3, 3, 12, 12)
    attention.fused_attn = False  # the probabilities are then the input of a module
    attention.attn_drop.register_forward_hook(lambda _module, inputs, _output: found.append(inputs[0]))
    with torch.no_grad():
        peer(image)
    assert torch.allclose(cls_attention(encoder, image).flatten(2), found[0][:, :, 0, 1:], atol=1e-6)


def test_hook_is_removed(encoder):
    cls_attention(encoder, torch.randn(1, 3, 12, 12))
    assert not encoder.blocks[-1].attn._forward_hooks


def test_maps_of_a_compiled_encoder(encoder):
    image = torch.randn(2, 3, 12, 12)
    expected = cls_attention(encoder, image)
    for block in encoder.blocks:
        block.compile(backend="eager")
    encoder(image)
    assert torch.allclose(cls_attention(encoder, image), expected, atol=1e-6)
