"""Attention in bf16 and fp16 on CPUs: at least as accurate as torch's kernel, in forward and backward pass."""

import pytest
import torch
from timm.layers import Attention as TimmAttention
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention

from mmf_flava.models import attention
from mmf_flava.models.attention import Attention, attend
from tests.models.test_drop_path import transformer

HALF = [torch.bfloat16, torch.float16]


@pytest.fixture(params=HALF, ids=str)
def half(request, monkeypatch):
    monkeypatch.setattr(attention, "SLOW_ON_CPU", HALF)
    return request.param


def inputs(std):
    """Query, key and value of 2 sequences of 40 positions; the logits have this standard deviation."""
    generator = torch.Generator().manual_seed(0)
    return [scale * torch.randn(2, 3, 40, 16, generator=generator) for scale in (std**0.5, std**0.5, 1.0)]


def results(function, values, *arguments):
    """Return the output and the gradients of the inputs."""
    leaves = [value.detach().clone().requires_grad_() for value in values]
    output = function(*leaves, *arguments)
    output.backward(torch.linspace(-1, 0.875, 16, dtype=output.dtype).expand_as(output))
    return [output.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("std", [0.5, 2.0, 8.0])
def test_error_is_at_most_that_of_torch(half, std):
    values = [value.to(half) for value in inputs(std)]
    expected = results(scaled_dot_product_attention, [value.double() for value in values])
    for exact, ours, torchs in zip(
        expected, results(attend, values), results(scaled_dot_product_attention, values), strict=True
    ):
        assert ours.dtype == half
        assert (ours - exact).norm() <= 1.1 * (torchs - exact).norm()


def test_padding_is_that_of_torch_with_equal_gradients(half):
    """The second sequence has padding, the third consists of padding."""
    values = [torch.cat([value, value[:1]]).to(half) for value in inputs(1.0)]
    mask = (torch.arange(40) < torch.tensor([[40], [7], [0]]))[:, None, None, :]
    ours = results(attend, values, mask)
    expected = results(scaled_dot_product_attention, [value.float() for value in values], mask)
    for actual, exact in zip(ours, expected, strict=True):
        assert torch.allclose(actual.float(), exact, rtol=0.01, atol=1e-3)
    _, _, key, value = ours
    assert not key[1, :, 7:].any() and not value[1, :, 7:].any() and not value[2].any()


def test_fp32_is_bitwise_torch():
    for ours, torchs in zip(
        results(attend, inputs(1.0)), results(scaled_dot_product_attention, inputs(1.0)), strict=True
    ):
        assert torch.equal(ours, torchs)


def test_module_is_that_of_timm():
    torch.manual_seed(0)
    ours, peer = Attention(8, 2, qkv_bias=True), TimmAttention(8, 2, qkv_bias=True)
    peer.load_state_dict(ours.state_dict())
    states, mask = torch.randn(2, 5, 8), torch.tensor([True, True, False, True, False]).view(1, 1, 1, 5)
    assert torch.equal(ours(states, attn_mask=mask), peer(states, attn_mask=mask))


def test_every_block_has_it():
    assert {type(block.attn) for block in transformer().blocks} == {Attention}


def test_autocast_keeps_fp32_in_the_kernel(monkeypatch):
    dtypes = []
    monkeypatch.setattr(attention, "SLOW_ON_CPU", HALF)
    monkeypatch.setattr(
        attention,
        "scaled_dot_product_attention",
        lambda query, *rest: dtypes.append(query.dtype) or scaled_dot_product_attention(query, *rest),
    )
    module = Attention(8, 2, qkv_bias=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(torch.randn(2, 5, 8)).dtype == torch.bfloat16
    monkeypatch.setattr(attention, "SLOW_ON_CPU", ())
    with torch.autocast("cpu", torch.bfloat16):
        module(torch.randn(2, 5, 8))
    assert dtypes == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("autocast", [False, True])
def test_compiled_blocks_in_bf16_are_one_graph(monkeypatch, autocast):
    monkeypatch.setattr(attention, "SLOW_ON_CPU", HALF)
    torch.manual_seed(0)
    encoder = transformer(drop_path=0.0)
    dtype = torch.float32 if autocast else torch.bfloat16
    encoder.to(dtype)
    states, mask = torch.randn(3, 6, 8).to(dtype), torch.arange(6) < torch.tensor([[6], [2], [4]])

    def run():
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return encoder(states, mask).normed

    expected = run()
    torch._dynamo.reset()
    counters.clear()
    for block in encoder.blocks:
        block.compile(dynamic=True, backend="aot_eager")
    assert torch.allclose(run(), expected, atol=0.03)
    run().sum().backward()
    assert not counters["graph_break"]


def test_exported_bf16_attention_equals_the_module(half):
    module = Attention(8, 2, qkv_bias=True).eval().to(half)
    example = (torch.randn(2, 5, 8).to(half),)
    exported = torch.export.export(module, example, dynamic_shapes=({0: torch.export.Dim("batch")},))
    more = torch.randn(3, 5, 8).to(half)
    assert torch.equal(exported.module()(more), module(more))
