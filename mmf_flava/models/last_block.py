"""The last block of an encoder, computed only at the positions whose outputs are needed.

Prediction heads use the outputs at masked positions, and the contrastive loss uses [CLS]. Keys and values are computed
at all positions. Queries, the output projection and the MLP (10/12 of the FLOPs of a block) are computed only at the
needed positions.

Shapes: B = batch size, L = sequence length, Q = needed positions per sequence, D = hidden size, N = masked positions in
the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.models.vision_transformer import Block
from torch import Tensor


def select(values: Tensor, mask: Tensor, count: int) -> Tensor:
    """Return ``values[mask]`` for a mask with ``count`` True entries, without host-device synchronisation."""
    return values[torch.nonzero_static(mask, size=count).unbind(1)]


@dataclass
class Positions:
    """Positions in each sequence of a batch, padded to the same number Q per sequence.

    index: (B, Q) int, sorted within each sequence.
    valid: (B, Q) bool, False for padding.
    """

    index: Tensor
    valid: Tensor

    @classmethod
    def from_mask(cls, mask_BL: Tensor, counts: Sequence[int]) -> "Positions":
        """Create ``Positions`` of the True entries of a mask.

        Args:
            counts: number of True entries per sequence. Integers avoid host-device synchronisation. Their maximum, at
                least 1, is the number of positions per sequence of the result.
        """
        most = max(*counts, 1)
        index = mask_BL.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        return cls(index, torch.arange(most, device=mask_BL.device) < mask_BL.sum(dim=1)[:, None])

    @classmethod
    def first(cls, batch: int, device: torch.device) -> "Positions":
        """Create ``Positions`` that contain only position 0, [CLS], of each sequence."""
        zeros = torch.zeros(batch, 1, dtype=torch.long, device=device)
        return cls(zeros, torch.ones_like(zeros, dtype=torch.bool))

    def take(self, states_BLD: Tensor) -> Tensor:
        """Return the (B, positions per sequence, D) states at these positions. Padding entries are arbitrary states."""
        batch, length, width = states_BLD.shape
        flat_index = self.index + length * torch.arange(batch, device=self.index.device)[:, None]
        return states_BLD.reshape(-1, width).index_select(0, flat_index.flatten()).view(batch, -1, width)

    def select(self, states_BQD: Tensor, mask_BL: Tensor, count: int) -> Tensor:
        """Return the (N, D) states at the N True entries of a mask.

        Args:
            states_BQD: result of ``take``: the states at these positions.
            mask_BL: mask over complete sequences, False outside of these positions.
            count: N.
        """
        return select(states_BQD, self.valid & mask_BL.gather(1, self.index), count)


class LastBlock(Block):
    """timm's transformer block that can compute its output at selected positions only; needs ``attention.Attention``.

    With ``queries``, the result equals ``queries.take(output)``, where ``output`` is the result without ``queries``.
    """

    def forward(  # type: ignore[override]
        self, x: Tensor, attn_mask: Tensor | None = None, queries: Positions | None = None
    ) -> Tensor:
        if queries is None:
            return super().forward(x, attn_mask=attn_mask)
        states, normed = queries.take(x), self.norm1(x)
        attended = self.attn(normed, attn_mask=attn_mask, queries_BQD=queries.take(normed))
        states = states + self.drop_path1(self.ls1(attended))
        return states + self.drop_path2(self.ls2(self.mlp(self.norm2(states))))
