"""The last block at selected positions equals the complete block there, with equal gradients."""

import pytest
import torch
from timm.models.vision_transformer import Block

from mmf_flava.models.attention import Attention
from mmf_flava.models.last_block import LastBlock, Positions
from tests.models.test_pretraining import build

MASK = torch.tensor([[True, False, True, True], [False, False, False, False], [False, True, False, False]])
COUNTS = [3, 0, 1]


def test_positions_of_a_mask_are_in_order():
    queries = Positions.from_mask(MASK, COUNTS)
    assert queries.index[0].tolist() == [0, 2, 3] and queries.index[2, 0] == 1
    assert queries.valid.tolist() == [[True, True, True], [False, False, False], [True, False, False]]
    states = torch.arange(24.0).view(3, 4, 2)
    assert torch.equal(queries.select(queries.take(states), MASK, 4), states[MASK])
    some = MASK & torch.tensor([False, True, True, False])
    assert torch.equal(queries.select(queries.take(states), some, 2), states[some])


def test_empty_mask_gives_one_invalid_position():
    queries = Positions.from_mask(torch.zeros(2, 3, dtype=torch.bool), [0, 0])
    assert queries.index.shape == (2, 1) and not queries.valid.any()
    assert queries.select(queries.take(torch.ones(2, 3, 5)), torch.zeros(2, 3, dtype=torch.bool), 0).shape == (0, 5)


@pytest.mark.parametrize("padded", [False, True], ids=["unpadded", "padded"])
def test_outputs_and_gradients_equal_the_complete_block(padded):
    torch.manual_seed(0)
    complete = Block(8, 2, qkv_bias=True).double()
    last = LastBlock(8, 2, qkv_bias=True, attn_layer=Attention).double()
    for parameter in complete.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    last.load_state_dict(complete.state_dict())
    attended = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]).bool()[:, None, None, :] if padded else None
    results = []
    for block, queries in ((complete, None), (last, Positions.from_mask(MASK, COUNTS))):
        states = torch.arange(96.0, dtype=torch.double).view(3, 4, 8).sin().requires_grad_()
        if queries is None:
            selected = block(states, attn_mask=attended)[MASK]
        else:
            selected = queries.select(block(states, attn_mask=attended, queries=queries), MASK, 4)
        selected.square().sum().backward()
        results.append([selected, states.grad, *(p.grad for p in block.parameters())])
    for expected, value in zip(*results, strict=True):
        assert torch.allclose(expected, value, atol=1e-12)
    assert torch.equal(last(states, attn_mask=attended), complete(states, attn_mask=attended))


def test_dropout_is_active_in_training_mode_only():
    block = LastBlock(8, 2, qkv_bias=True, attn_drop=0.5, proj_drop=0.5, attn_layer=Attention)
    states, queries = torch.randn(3, 4, 8), Positions.from_mask(MASK, COUNTS)
    assert not torch.equal(block(states, queries=queries), block(states, queries=queries))
    block.eval()
    assert torch.equal(block(states, queries=queries), block(states, queries=queries))


def test_last_blocks_run_at_the_heads_input_positions(tiny, pairs):
    """3 pairs, of which the third does not match: 2 and 1 masked patches, 1 and 1 masked words, [CLS_M] of all."""
    model = build(tiny)
    shapes = {}
    for name in ("image", "text", "multimodal"):
        last = getattr(model.flava, f"{name}_encoder").blocks[-1]
        last.register_forward_hook(lambda m, i, o, name=name: shapes.setdefault(name, []).append(tuple(o.shape)))
    model(pairs)
    assert shapes == {"image": [(3, 1, 8), (3, 5, 8)], "text": [(3, 1, 8), (3, 5, 8)], "multimodal": [(3, 4, 8)]}
