"""The pre-norm transformer that all three encoders share (§3.1: "ViT" blocks for image, text and both).

Shapes: B batch, L sequence, Q positions read, N masked positions, D width.
"""

from functools import partial
from typing import NamedTuple

from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmf_flava.config.model import TransformerConfig
from mmf_flava.models.last_block import LastBlock, Positions


class Encoded(NamedTuple):
    """A sequence after an encoder, at all L positions or, where ``read`` says so, at Q of them.

    hidden: (B, L or Q, D), the last block's output *before* the final LayerNorm; the multimodal encoder projects it.
    normed: (B, L or Q, D), after the final LayerNorm; what heads and contrastive projections take.

    A tuple, because FSDP looks for the tensors of a module's output in tuples and dicts only.
    """

    hidden: Tensor
    normed: Tensor
    read: Positions | None = None

    @property
    def cls(self) -> Tensor:
        """(B, D), the first position (it must be among those read) after the final LayerNorm."""
        return self.normed[:, 0]

    def at(self, mask_BL: Tensor) -> Tensor:
        """(N, D), after the final LayerNorm, where ``mask_BL`` is True (these must be among those read)."""
        return self.normed[mask_BL] if self.read is None else self.read.pick(self.normed, mask_BL)


EncodedViews = Encoded | tuple[Encoded, ...]
Read = Positions | tuple[Positions | None, ...] | None


class Transformer(nn.Module):
    """timm's ViT blocks and a final LayerNorm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, eps=config.layer_norm_eps)
        self.blocks = nn.ModuleList(
            block(
                config.hidden_size,
                config.num_heads,
                mlp_ratio=config.mlp_size / config.hidden_size,
                qkv_bias=True,
                proj_drop=config.dropout,
                attn_drop=config.attention_dropout,
                norm_layer=norm,  # type: ignore[arg-type]  # timm takes any callable
            )
            for block in [*[Block] * (config.num_layers - 1), LastBlock]
        )
        self.norm = norm(config.hidden_size)

    def compile_blocks(self) -> None:
        """Compiles each block by itself ("regional" compilation): blocks of one width share their code.

        Sequence lengths are symbolic from the start, so that a new length compiles nothing anew.
        """
        for block in self.blocks:
            block.compile(dynamic=True)

    def checkpoint_blocks(self) -> None:
        """Keeps the inputs of blocks only, and computes the rest a second time when gradients ask for it."""
        for block in self.blocks:
            # in the block's own forward, so that FSDP, which wraps the block, has gathered its weights by then
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]

    def forward(self, x_BLD: Tensor, mask_BL: Tensor | None = None, read: Read = None) -> EncodedViews:
        """Encodes a sequence; ``mask_BL`` is True where a position may be attended to.

        The last block and the final LayerNorm run at the positions that are ``read``, by default all. With a tuple of n
        of them, ``x_BLD`` holds n views of B sequences one after the other, which share the mask and the call of all
        blocks but the last, and n results are returned.
        """
        views = read if isinstance(read, tuple) else (read,)
        mask = None if mask_BL is None else mask_BL[:, None, None, :]
        all_masks = None if mask is None else mask.repeat(len(views), 1, 1, 1)
        for block in self.blocks[:-1]:
            x_BLD = block(x_BLD, attn_mask=all_masks)
        hidden = [
            self.blocks[-1](x, attn_mask=mask, read=r) for x, r in zip(x_BLD.chunk(len(views)), views, strict=True)
        ]
        encoded = tuple(Encoded(h, self.norm(h), r) for h, r in zip(hidden, views, strict=True))
        return encoded if isinstance(read, tuple) else encoded[0]


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """FLAVA's initialisation: N(0, std) for weights, 0 for biases and the padding row, 1 and 0 for LayerNorm.

    Use as ``model.apply(initialise)``. Source: both public implementations, with std 0.02; the paper is silent.
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
        if isinstance(bias := getattr(module, "bias", None), nn.Parameter):
            nn.init.zeros_(bias)
    elif isinstance(module, nn.LayerNorm):
        module.reset_parameters()
