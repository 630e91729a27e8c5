"""The pre-norm transformer, which is the base class of all three encoders (FLAVA paper, §3.1).

Shapes: B = batch size, L = sequence length, Q = needed positions per sequence, N = masked positions in the batch,
D = hidden size.
"""

from functools import partial
from typing import NamedTuple

from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmf_flava.config.model import TransformerConfig
from mmf_flava.models.attention import Attention
from mmf_flava.models.last_block import LastBlock, Positions, select


class Encoded(NamedTuple):
    """The output of an encoder at all positions or, if ``queries`` is set, only at the positions in ``queries``.

    hidden: (B, number of positions, D), output of the last block *before* the final LayerNorm; input of the multimodal
        encoder.
    normed: same shape, ``hidden`` after the final LayerNorm; input of prediction heads and contrastive projections.

    This is a NamedTuple, because FSDP finds the tensors in a module's output only in tuples and dicts.
    """

    hidden: Tensor
    normed: Tensor
    queries: Positions | None = None

    @property
    def cls(self) -> Tensor:
        """The (B, D) states of position 0 after the final LayerNorm; ``queries`` must include position 0."""
        return self.normed[:, 0]

    def at(self, mask_BL: Tensor, count: int) -> Tensor:
        """Return the (N, D) states after the final LayerNorm at the True positions of ``mask_BL``, N = ``count``.

        If ``queries`` is set, it must include these positions.
        """
        if self.queries is None:
            return select(self.normed, mask_BL, count)
        return self.queries.select(self.normed, mask_BL, count)


EncodedViews = Encoded | tuple[Encoded, ...]
Queries = Positions | tuple[Positions | None, ...] | None


class Transformer(nn.Module):
    """Base class of the encoders: timm's ViT blocks and a final LayerNorm."""

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
                drop_path=config.drop_path * number / max(config.num_layers - 1, 1),  # as in timm and BEiT
                norm_layer=norm,  # type: ignore[arg-type]  # timm takes any callable
                attn_layer=Attention,
            )
            for number, block in enumerate([*[Block] * (config.num_layers - 1), LastBlock])
        )
        self.norm = norm(config.hidden_size)

    def compile_blocks(self) -> None:
        """Compile each block separately (regional compilation), so that blocks of equal size share compiled code.

        Sequence lengths are dynamic shapes, so that a new length does not cause a recompilation.
        """
        for block in self.blocks:
            block.compile(dynamic=True)

    def checkpoint_blocks(self) -> None:
        """Enable activation checkpointing: store only the inputs of blocks, and recompute all other activations."""
        for block in self.blocks:
            # wraps ``forward``, not the module, because FSDP gathers the weights in hooks that run before ``forward``
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]

    def forward(self, x_BLD: Tensor, mask_BL: Tensor | None = None, queries: Queries = None) -> EncodedViews:
        """Encode a batch of sequences.

        Args:
            x_BLD: input embeddings. If ``queries`` is a tuple of length n, these are n versions of the batch, e.g.
                unmasked and masked, concatenated along the batch dimension.
            mask_BL: True where a position may be attended to; the same for all versions.
            queries: positions at which the last block and the final LayerNorm are computed; None for all positions.
                A tuple has one entry per version; the other blocks process all versions as one batch.

        Returns:
            An ``Encoded``, or a tuple with one ``Encoded`` per version if ``queries`` is a tuple.
        """
        views = queries if isinstance(queries, tuple) else (queries,)
        mask = None if mask_BL is None else mask_BL[:, None, None, :]
        all_masks = None if mask is None else mask.repeat(len(views), 1, 1, 1)
        for block in self.blocks[:-1]:
            x_BLD = block(x_BLD, attn_mask=all_masks)
        inputs = x_BLD.unflatten(0, (len(views), -1))  # keeps a dynamic batch size, unlike chunk
        hidden = [self.blocks[-1](x, attn_mask=mask, queries=q) for x, q in zip(inputs, views, strict=True)]
        encoded = tuple(Encoded(h, self.norm(h), q) for h, q in zip(hidden, views, strict=True))
        return encoded if isinstance(queries, tuple) else encoded[0]


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Initialise weights with N(0, std), LayerNorm weights with 1, biases and the padding embedding with 0.

    Use as ``model.apply(initialise)``. The paper does not specify the initialisation; this is the initialisation of
    Hugging Face's and torchmultimodal's implementations, with std 0.02. As in both, [CLS], the mask token and the image
    position embeddings remain 0; docs/initialisation.md compares this with N(0, 0.02).
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
        if isinstance(bias := getattr(module, "bias", None), nn.Parameter):
            nn.init.zeros_(bias)
    elif isinstance(module, nn.LayerNorm):
        module.reset_parameters()
