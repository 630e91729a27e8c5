"""The last block of an encoder, computed at the positions that somebody reads.

Heads look at masked positions, the contrastive loss at [CLS]. Every position still gives a key and a value, but
queries, the output projection and the MLP (ten twelfths of a block's products) are needed only where somebody reads.

Shapes: B batch, L sequence, Q positions read, H heads, D width, N masked positions of the batch.
"""

from dataclasses import dataclass
from typing import cast

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention


@dataclass
class Positions:
    """index: (B, Q) int, ascending in each row; valid: (B, Q) bool, False where a row has fewer than Q positions."""

    index: Tensor
    valid: Tensor

    @classmethod
    def of(cls, mask_BL: Tensor) -> "Positions":
        """The True positions of a mask; Q is the largest number of them in a row, at least 1."""
        counts = mask_BL.sum(dim=1)
        most = max(int(counts.max()), 1)
        index = mask_BL.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        return cls(index, torch.arange(most, device=mask_BL.device) < counts[:, None])

    @classmethod
    def first(cls, batch: int, device: torch.device) -> "Positions":
        """[CLS] alone."""
        zeros = torch.zeros(batch, 1, dtype=torch.long, device=device)
        return cls(zeros, torch.ones_like(zeros, dtype=torch.bool))

    def take(self, states_BLD: Tensor) -> Tensor:
        """(B, Q, D): the states at these positions; rows that have fewer repeat others."""
        batch, length, width = states_BLD.shape
        rows = self.index + length * torch.arange(batch, device=self.index.device)[:, None]
        return states_BLD.reshape(-1, width).index_select(0, rows.flatten()).view(batch, -1, width)

    def pick(self, states_BQD: Tensor, mask_BL: Tensor) -> Tensor:
        """(N, D): of the states that were taken, those where the mask is True, in the order of ``states_BLD[mask]``."""
        return states_BQD[self.valid & mask_BL.gather(1, self.index)]


class LastBlock(Block):
    """timm's block; with ``read`` it returns (B, Q, D), the same numbers as ``read.take`` of its whole output."""

    def forward(  # type: ignore[override]
        self, x: Tensor, attn_mask: Tensor | None = None, read: Positions | None = None
    ) -> Tensor:
        if read is None:
            return super().forward(x, attn_mask=attn_mask)
        states = read.take(x)
        states = states + self.drop_path1(self.ls1(self._attend(self.norm1(x), attn_mask, read)))
        return states + self.drop_path2(self.ls2(self.mlp(self.norm2(states))))

    def _attend(self, x_BLD: Tensor, attn_mask: Tensor | None, read: Positions) -> Tensor:
        """(B, Q, D): attention whose queries are the positions that are read."""
        attention = cast(Attention, self.attn)
        heads, width = attention.num_heads, attention.attn_dim
        to_query, to_key_value = attention.qkv.weight.split([width, 2 * width])
        query_bias, key_value_bias = attention.qkv.bias.split([width, 2 * width])
        query = linear(read.take(x_BLD), to_query, query_bias).unflatten(-1, (heads, -1)).transpose(1, 2)
        key_value = linear(x_BLD, to_key_value, key_value_bias).unflatten(-1, (2, heads, -1))
        key, value = key_value.permute(2, 0, 3, 1, 4)
        dropout = attention.attn_drop.p if self.training else 0.0
        states = scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, dropout_p=dropout)
        return attention.proj_drop(attention.proj(states.transpose(1, 2).flatten(2)))
