"""Self-attention of the encoders: timm's, with the kernel that is fastest on the device.

Shapes: B = batch size, H = number of heads, L = sequence length, Q = number of queries per sequence, D = hidden size.
"""

import timm.layers
import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

# dtypes whose kernel is slower than that of fp32 on this CPU
SLOW_ON_CPU = () if torch.cpu._is_amx_tile_supported() else (torch.bfloat16, torch.float16)


def attend(
    query_BHQ: Tensor, key_BHL: Tensor, value_BHL: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Return the (B, H, Q, D / H) result of torch's ``scaled_dot_product_attention``, in the dtype of the query.

    On CPUs without AMX, bf16 and fp16 are computed in fp32: its kernel takes about half the time of the bf16 kernel and
    is more accurate.

    Args:
        query_BHQ, key_BHL, value_BHL: also have a last dimension of size D / H.
        mask: True where a key may be attended to, broadcastable to (B, H, Q, L); None for all keys.
        dropout: probability of dropping an attention weight.
    """
    dtype = query_BHQ.dtype
    if query_BHQ.device.type != "cpu" or dtype not in SLOW_ON_CPU:
        return scaled_dot_product_attention(query_BHQ, key_BHL, value_BHL, mask, dropout)
    with torch.autocast("cpu", enabled=False):  # it would cast the inputs to bf16
        query, key, value = query_BHQ.float(), key_BHL.float(), value_BHL.float()
        return scaled_dot_product_attention(query, key, value, mask, dropout).to(dtype)


class Attention(timm.layers.Attention):
    """timm's self-attention that can compute its output at selected positions only."""

    def forward(
        self,
        x_BLD: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        queries_BQD: Tensor | None = None,
    ) -> Tensor:
        """Return the (B, L, D) output, or with ``queries_BQD`` the (B, Q, D) output at the positions of the queries.

        Args:
            attn_mask: see ``attend``.
            is_causal: argument of timm's blocks; must be False.
            queries_BQD: rows of ``x_BLD`` for each sequence.
        """
        assert not is_causal
        if queries_BQD is None:
            query, key, value = self._heads(self.qkv(x_BLD), 3)
        else:
            sizes = [self.attn_dim, 2 * self.attn_dim]
            to_query, to_key_value = self.qkv.weight.split(sizes)
            query_bias, key_value_bias = self.qkv.bias.split(sizes)
            (query,) = self._heads(linear(queries_BQD, to_query, query_bias), 1)
            key, value = self._heads(linear(x_BLD, to_key_value, key_value_bias), 2)
        states = attend(query, key, value, attn_mask, self.attn_drop.p if self.training else 0.0)
        return self.proj_drop(self.proj(states.transpose(1, 2).flatten(2)))

    def _heads(self, projected: Tensor, count: int) -> tuple[Tensor, ...]:
        """Divide the last dimension into ``count`` tensors of shape (B, H, ., D / H)."""
        return projected.unflatten(-1, (count, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
