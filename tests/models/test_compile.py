"""Compiled blocks: one graph each, without graph breaks or recompilation for other lengths."""

import torch
from torch._dynamo.utils import counters

from mmf_flava.models.flava import Flava
from tests.models.conftest import sample_list
from tests.models.test_pretraining import build


def test_compiled_blocks_equal_eager_ones_and_are_compiled_once(tiny):
    tiny.text_encoder.max_length = 32
    eager = Flava(tiny)
    tiny.compile = True
    compiled = Flava(tiny)
    compiled.load_state_dict(eager.state_dict())
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
        for actual, expected in zip(step(compiled, length), step(eager, length), strict=True):
            assert torch.allclose(actual, expected, atol=1e-5)
    graphs = counters["stats"]["unique_graphs"]
    for number in range(100):
        step(compiled, 8 * (1 + number % 4))
    assert 0 < graphs == counters["stats"]["unique_graphs"]
    assert not counters["graph_break"]


def test_all_kinds_of_batches_are_compiled_once(tiny):
    """100 steps on pairs, images and texts of three lengths, with different masks."""
    tiny.text_encoder.max_length, tiny.compile = 32, True
    model = build(tiny)
    torch._dynamo.reset()
    counters.clear()

    def step(number):
        generator = torch.Generator().manual_seed(number)
        length = 8 * (2 + number % 3)
        ids = torch.randint(3, 11, (3, length), generator=generator)
        masked = torch.rand(3, length, generator=generator) < 0.4
        masked[0, :2] = True  # torch.compile specialises on size 1, which does not occur in training
        image = {
            "image": torch.randn(3, 3, 4, 4, generator=generator),
            "image_codes": torch.randint(0, 5, (3, 4), generator=generator),
            "image_patch_mask": torch.tensor([[True, True, False, False]] * 3),
        }
        text = {
            "input_ids": ids,
            "input_ids_masked": ids.masked_fill(masked, 3),
            "lm_label_ids": ids.masked_fill(~masked, -1),
            "input_mask": torch.ones(3, length, dtype=torch.bool),
        }
        pair = {**image, **text, "is_correct": torch.tensor([1, 1, 0])}
        for fields in (pair, image, text):
            sum(model(sample_list("pmd", **fields))["losses"].values()).backward()

    for number in range(3):
        step(number)
    graphs = counters["stats"]["unique_graphs"]
    for number in range(3, 103):
        step(number)
    assert 0 < graphs == counters["stats"]["unique_graphs"]
    assert not counters["graph_break"]
