"""The head and the encoder of DINO on small inputs."""

import math

import pytest
import torch

from mmf_flava.config.dino import DinoHeadConfig
from mmf_flava.models.dino.network import DinoHead, DinoNetwork, LastLayer
from tests.models.dino.toys import ENCODER, HEAD


def test_the_last_layer_has_weights_of_unit_length_by_hand():
    layer = LastLayer(2, 3, has_length=False)
    layer.weight_v.data = torch.tensor([[3.0, 4.0], [0.0, -2.0], [1.0, 1.0]])
    expected = [[0.6 * 2 + 0.8, -1.0, 3 / math.sqrt(2)]]
    assert layer(torch.tensor([[2.0, 1.0]])).tolist()[0] == pytest.approx(expected[0])
    assert [name for name, _ in layer.named_parameters()] == ["weight_v"]


def test_trained_lengths_multiply_the_outputs_by_hand():
    layer = LastLayer(2, 2, has_length=True)
    assert layer.weight_g.tolist() == [[1.0], [1.0]]
    layer.weight_v.data, layer.weight_g.data = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[10.0], [-1.0]])
    assert layer(torch.tensor([[1.0, 1.0]])).tolist()[0] == pytest.approx([14.0, -1.0])


def test_the_gradient_of_a_weight_is_orthogonal_to_it():
    layer = LastLayer(4, 3, has_length=False)
    layer(torch.randn(2, 4)).square().sum().backward()
    assert (layer.weight_v.grad * layer.weight_v).sum(dim=1).abs().max() < 1e-6 < layer.weight_v.grad.abs().max()


def test_the_head_has_three_layers_and_gelu_by_hand():
    """Identity layers: x -> gelu(gelu(x)), then its direction."""
    head = DinoHead(2, DinoHeadConfig(2, 2, 2))
    for number in (0, 2, 4):
        head.mlp[number].weight.data, head.mlp[number].bias.data = torch.eye(2), torch.zeros(2)
    head.last_layer.weight_v.data = torch.eye(2)
    gelu = lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2  # noqa: E731
    first, second = gelu(gelu(1.0)), gelu(gelu(-2.0))
    length = math.hypot(first, second)
    assert head(torch.tensor([[1.0, -2.0]])).tolist()[0] == pytest.approx([first / length, second / length])


def test_logits_are_fp32_cosine_similarities_under_autocast():
    head = DinoHead(8, HEAD)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(100 * torch.randn(5, 8))
    assert logits.dtype == torch.float32 and logits.shape == (5, 10) and logits.abs().max() <= 1 + 1e-6
    head.mlp.half()
    head.last_layer.half()
    assert head(torch.randn(5, 8).half()).dtype == torch.float32


def test_outputs_of_crops_of_two_sizes_are_concatenated():
    torch.manual_seed(0)
    network = DinoNetwork(ENCODER, HEAD)
    large, small = torch.randn(2, 3, 8, 8), torch.randn(3, 3, 4, 4)
    expected = torch.cat([network.head(network.encoder(images).cls) for images in (large, small)])
    torch.testing.assert_close(network([large, small]), expected)


def test_initial_weights_are_those_of_the_published_code():
    torch.manual_seed(0)
    network = DinoNetwork(ENCODER, DinoHeadConfig(64, 32, 500))
    assert not hasattr(network.encoder, "mask_token")
    assert 0.015 < network.encoder.pos_embed.std() < 0.025 and network.encoder.cls_token.abs().max() > 0
    assert 0.018 < network.head.mlp[2].weight.std() < 0.022 and not network.head.mlp[2].bias.any()
    bound = 1 / math.sqrt(32)  # torch's initialisation of a linear layer with 32 inputs
    assert 0.99 * bound < network.head.last_layer.weight_v.abs().max() <= bound
