"""The pre-norm transformer that all three encoders share (§3.1: "ViT" blocks for image, text and both).

Shapes: B batch, L sequence, Q positions read, N masked positions, D width.
"""

from dataclasses import dataclass
from functools import partial

from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mmf_flava.config.model import TransformerConfig
from mmf_flava.models.last_block import LastBlock, Positions


@dataclass
class Encoded:
    """A sequence after an encoder, at all L positions or, where ``read`` says so, at Q of them.

    hidden: (B, L or Q, D), the last block's output *before* the final LayerNorm; the multimodal encoder projects it.
    normed: (B, L or Q, D), after the final LayerNorm; what heads and contrastive projections take.
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

    def begin(self, x_BLD: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """(B, L, D): all blocks but the last."""
        for block in self.blocks[:-1]:
            x_BLD = block(x_BLD, attn_mask=_attention_mask(mask_BL))
        return x_BLD

    def finish(self, x_BLD: Tensor, mask_BL: Tensor | None = None, read: Positions | None = None) -> Encoded:
        """The last block, at the positions that are read (by default all), and the final LayerNorm."""
        hidden = self.blocks[-1](x_BLD, attn_mask=_attention_mask(mask_BL), read=read)
        return Encoded(hidden, self.norm(hidden), read)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor | None = None, read: Positions | None = None) -> Encoded:
        """Encodes a sequence; ``mask_BL`` is True where a position may be attended to."""
        return self.finish(self.begin(x_BLD, mask_BL), mask_BL, read)


def _attention_mask(mask_BL: Tensor | None) -> Tensor | None:
    return None if mask_BL is None else mask_BL[:, None, None, :]


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
