"""Attention of [CLS] to the patches in the last block of an image encoder (DINO, section 4.2.2, Figure 1).

Shapes: B = batch size, L = 1 + number of patches, H = number of attention heads, D = hidden size, R x C = rows and
columns of patches.
"""

from typing import Any

import torch
from torch import Tensor

from mmf_flava.models.image_encoder import ImageEncoder


@torch.no_grad()
def cls_attention(encoder: ImageEncoder, image_BCHW: Tensor) -> Tensor:
    """Return the (B, H, R, C) attention probabilities from [CLS] to the patches, in fp32.

    The probability of [CLS] itself is left out, so each map sums to less than 1. The encoder must be in evaluation
    mode.
    """
    maps: list[Tensor] = []

    def read(attention: Any, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        # a hook, because sharded weights are complete only during the block's forward
        maps.append(_probabilities(attention, inputs[0])[:, :, 1:])

    hook = encoder.blocks[-1].get_submodule("attn").register_forward_hook(read)
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled blocks do not call new hooks
            encoder(image_BCHW)
    finally:
        hook.remove()
    return maps[0].unflatten(-1, encoder.grid(image_BCHW))


def _probabilities(attention: Any, x_BLD: Tensor) -> Tensor:
    """Return the (B, H, L) attention probabilities of position 0."""
    query, key, _ = attention.qkv(x_BLD).unflatten(-1, (3, attention.num_heads, -1)).float().unbind(2)
    logits = torch.einsum("bhd,blhd->bhl", query[:, 0] * attention.scale, key)
    return logits.softmax(dim=-1)
