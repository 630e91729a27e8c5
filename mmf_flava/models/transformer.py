"""The pre-norm transformer that all three encoders share (§3.1: "ViT" blocks for image, text and both).

Shapes: B batch, L sequence, Q needed positions, N masked positions, D width.
"""

from functools import partial
from typing import NamedTuple

from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmf_flava.config.model import TransformerConfig
from mmf_flava.models.last_block import LastBlock, Positions, select


class Encoded(NamedTuple):
    """The output of an encoder at all L positions or, if ``queries`` is set, at Q of them.

    hidden: (B, L or Q, D), the last block's output *before* the final LayerNorm; input of the multimodal encoder.
    normed: (B, L or Q, D), after the final LayerNorm; input of heads and contrastive projections.

    A tuple, because FSDP finds the tensors of a module's output in tuples and dicts only.
    """

    hidden: Tensor
    normed: Tensor
    queries: Positions | None = None

    @property
    def cls(self) -> Tensor:
        """(B, D): the first position after the final LayerNorm; ``queries`` must include position 0."""
        return self.normed[:, 0]

    def at(self, mask_BL: Tensor, count: int) -> Tensor:
        """Return (N, D) after the final LayerNorm where ``mask_BL`` is True, N = ``count``; ``queries`` must include them."""
        if self.queries is None:
            return select(self.normed, mask_BL, count)
        return self.queries.select(self.normed, mask_BL, count)


EncodedViews = Encoded | tuple[Encoded, ...]
Queries = Positions | tuple[Positions | None, ...] | None


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
        """Compile each block separately (regional compilation), so that blocks of one width share their code.

        Sequence lengths are symbolic from the start, so that a new length does not cause a recompilation.
        """
        for block in self.blocks:
            block.compile(dynamic=True)

    def checkpoint_blocks(self) -> None:
        """Enable activation checkpointing: keep the inputs of blocks, and recompute the rest in the backward pass."""
        for block in self.blocks:
            # inside the block's forward, after FSDP, which wraps the block, has gathered its weights
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]

    def forward(self, x_BLD: Tensor, mask_BL: Tensor | None = None, queries: Queries = None) -> EncodedViews:
        """Encode a sequence.

        Args:
            x_BLD: embeddings; n views of B sequences concatenated along the batch if ``queries`` is a tuple of n.
            mask_BL: True where a position may be attended to; the same for all views.
            queries: positions at which the last block and the final LayerNorm run, by default all. The views of a tuple
                go through the other blocks as one batch.

        Returns:
            One ``Encoded``, or a tuple of n.
        """
        views = queries if isinstance(queries, tuple) else (queries,)
        mask = None if mask_BL is None else mask_BL[:, None, None, :]
        all_masks = None if mask is None else mask.repeat(len(views), 1, 1, 1)
        for block in self.blocks[:-1]:
            x_BLD = block(x_BLD, attn_mask=all_masks)
        hidden = [
            self.blocks[-1](x, attn_mask=mask, queries=q) for x, q in zip(x_BLD.chunk(len(views)), views, strict=True)
        ]
        encoded = tuple(Encoded(h, self.norm(h), q) for h, q in zip(hidden, views, strict=True))
        return encoded if isinstance(queries, tuple) else encoded[0]


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Initialise weights with N(0, std), biases and the padding embedding with 0, LayerNorm with 1 and 0.

    Use as ``model.apply(initialise)``. Source: both public implementations, with std 0.02; not specified in the paper.
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
        if isinstance(bias := getattr(module, "bias", None), nn.Parameter):
            nn.init.zeros_(bias)
    elif isinstance(module, nn.LayerNorm):
        module.reset_parameters()
