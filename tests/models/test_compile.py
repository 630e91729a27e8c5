"""Compiled blocks: one graph each, no graph break, nothing compiled anew when lengths change."""

import torch
from torch._dynamo.utils import counters

from mmf_flava.models.flava import Flava


def test_compiled_blocks_equal_plain_ones_and_are_compiled_once(tiny):
    tiny.text_encoder.max_length = 32
    plain = Flava(tiny)
    tiny.compile = True
    compiled = Flava(tiny)
    compiled.load_state_dict(plain.state_dict())
    torch._dynamo.reset()
    counters.clear()

    def step(model, length):
        ids = torch.arange(2 * length).view(2, length) % 11
        mask = torch.ones(2, length, dtype=torch.bool)
        mask[1, length // 2 :] = False
        model.zero_grad()
        embedded = model.encode_text(ids, mask)
        embedded.sum().backward()
        return embedded, model.text_encoder.blocks[0].attn.qkv.weight.grad

    for length in (8, 16):
        for ours, theirs in zip(step(compiled, length), step(plain, length), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)
    graphs = counters["stats"]["unique_graphs"]
    for number in range(100):
        step(compiled, 8 * (1 + number % 4))
    assert 0 < graphs == counters["stats"]["unique_graphs"]
    assert not counters["graph_break"]
