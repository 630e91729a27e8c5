"""Drop path (stochastic depth): the rates of the blocks, its statistics, and the exact gradients when checkpointed."""

import pytest
import torch

from mmf_flava.config.model import TransformerConfig
from mmf_flava.models.attention import Attention
from mmf_flava.models.last_block import LastBlock, Positions
from mmf_flava.models.transformer import Transformer


def transformer(num_layers: int = 3, drop_path: float = 0.5) -> Transformer:
    torch.manual_seed(0)
    return Transformer(TransformerConfig(8, num_layers, 2, 16, drop_path=drop_path)).train()


def test_rate_increases_linearly_over_the_blocks():
    rates = [
        [getattr(layer, "drop_prob", 0) for layer in (block.drop_path1, block.drop_path2)]
        for block in transformer().blocks
    ]
    assert rates == [[0, 0], [0.25, 0.25], [0.5, 0.5]]
    assert not hasattr(transformer(1).blocks[0].drop_path1, "drop_prob")


@pytest.mark.parametrize("selected", [False, True])
@torch.no_grad()
def test_a_sample_skips_each_branch_of_a_block_with_the_rate(selected):
    """At rate 0.5, a quarter of the samples skips the block; the branches of other samples are multiplied by two."""
    torch.manual_seed(0)
    block = LastBlock(8, 2, qkv_bias=True, drop_path=0.5, attn_layer=Attention)
    states = torch.randn(1, 4, 8)
    queries = Positions.first(2000, states.device) if selected else None
    change = block(states.expand(2000, -1, -1), queries=queries)[:, 0] - states[:, 0]
    attention = 2 * block.attn(block.norm1(states))
    mlp, both = (2 * block.mlp(block.norm2(x)) for x in (states, states + attention))
    for expected in (torch.zeros_like(states), attention, mlp, attention + both):
        share = (change - expected[:, 0]).abs().amax(dim=1).lt(1e-5).float().mean()
        assert 0.22 < share < 0.28
    block.eval()
    changes = block(states.expand(9, -1, -1), queries=Positions.first(9, states.device) if selected else None)
    assert torch.allclose(changes, block(states)[:, : changes.shape[1]])


def test_activation_checkpointing_recomputes_the_same_branches():
    gradients = []
    for checkpointed in (False, True):
        encoder = transformer()
        if checkpointed:
            encoder.checkpoint_blocks()
        torch.manual_seed(1)
        encoder(torch.randn(16, 4, 8)).normed.square().sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    assert all(map(torch.equal, *gradients))
