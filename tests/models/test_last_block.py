"""The last block at some positions gives the numbers and the gradients of the whole block at these positions."""

import pytest
import torch
from timm.models.vision_transformer import Block

from mmf_flava.models.last_block import LastBlock, Positions
from tests.models.test_pretraining import build

MASK = torch.tensor([[True, False, True, True], [False, False, False, False], [False, True, False, False]])


def test_positions_of_a_mask_are_its_true_ones_in_order():
    read = Positions.of(MASK)
    assert read.index[0].tolist() == [0, 2, 3] and read.index[2, 0] == 1
    assert read.valid.tolist() == [[True, True, True], [False, False, False], [True, False, False]]
    states = torch.arange(24.0).view(3, 4, 2)
    assert torch.equal(read.pick(read.take(states), MASK), states[MASK])
    some = MASK & torch.tensor([False, True, True, False])
    assert torch.equal(read.pick(read.take(states), some), states[some])


def test_a_mask_without_a_true_position_reads_one_that_nobody_picks():
    read = Positions.of(torch.zeros(2, 3, dtype=torch.bool))
    assert read.index.shape == (2, 1) and not read.valid.any()
    assert read.pick(read.take(torch.ones(2, 3, 5)), torch.zeros(2, 3, dtype=torch.bool)).shape == (0, 5)


@pytest.mark.parametrize("padded", [False, True], ids=["unpadded", "padded"])
def test_numbers_and_gradients_are_those_of_the_whole_block(padded):
    torch.manual_seed(0)
    plain, ours = (block(8, 2, qkv_bias=True).double() for block in (Block, LastBlock))
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours.load_state_dict(plain.state_dict())
    seen = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]).bool()[:, None, None, :] if padded else None
    found = []
    for block, read in ((plain, None), (ours, Positions.of(MASK))):
        states = torch.arange(96.0, dtype=torch.double).view(3, 4, 8).sin().requires_grad_()
        if read is None:
            picked = block(states, attn_mask=seen)[MASK]
        else:
            picked = read.pick(block(states, attn_mask=seen, read=read), MASK)
        picked.square().sum().backward()
        found.append([picked, states.grad, *(p.grad for p in block.parameters())])
    for expected, value in zip(*found, strict=True):
        assert torch.allclose(expected, value, atol=1e-12)
    assert torch.equal(ours(states, attn_mask=seen), plain(states, attn_mask=seen))


def test_the_last_block_drops_out_in_training_alone():
    block = LastBlock(8, 2, qkv_bias=True, attn_drop=0.5, proj_drop=0.5)
    states, read = torch.randn(3, 4, 8), Positions.of(MASK)
    assert not torch.equal(block(states, read=read), block(states, read=read))
    block.eval()
    assert torch.equal(block(states, read=read), block(states, read=read))


def test_a_pair_reads_the_last_blocks_where_heads_look(tiny, pairs):
    """3 pairs, the third not matching: masked patches 2 and 1, masked words 1 and 1, [CLS_M] of all."""
    model = build(tiny)
    shapes = {}
    for name in ("image", "text", "multimodal"):
        last = getattr(model.flava, f"{name}_encoder").blocks[-1]
        last.register_forward_hook(lambda m, i, o, name=name: shapes.setdefault(name, []).append(tuple(o.shape)))
    model(pairs)
    assert shapes == {"image": [(3, 1, 8), (3, 5, 8)], "text": [(3, 1, 8), (3, 5, 8)], "multimodal": [(3, 4, 8)]}
