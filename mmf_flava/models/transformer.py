"""The pre-norm transformer that all three encoders share (§3.1: "ViT" blocks for image, text and both).

Shapes: B batch, L sequence, D width.
"""

from dataclasses import dataclass
from functools import partial

from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mmf_flava.config.model import TransformerConfig


@dataclass
class Encoded:
    """A sequence after an encoder.

    hidden: (B, L, D), the last block's output *before* the final LayerNorm; what the multimodal encoder projects.
    normed: (B, L, D), after the final LayerNorm; what heads and contrastive projections take.
    """

    hidden: Tensor
    normed: Tensor

    @property
    def cls(self) -> Tensor:
        """(B, D), the first position after the final LayerNorm."""
        return self.normed[:, 0]


class Transformer(nn.Module):
    """timm's ViT blocks and a final LayerNorm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, eps=config.layer_norm_eps)
        self.blocks = nn.ModuleList(
            Block(
                config.hidden_size,
                config.num_heads,
                mlp_ratio=config.mlp_size / config.hidden_size,
                qkv_bias=True,
                proj_drop=config.dropout,
                attn_drop=config.attention_dropout,
                norm_layer=norm,  # type: ignore[arg-type]  # timm takes any callable
            )
            for _ in range(config.num_layers)
        )
        self.norm = norm(config.hidden_size)

    def compile_blocks(self) -> None:
        """Compiles each block by itself ("regional" compilation): blocks of one width share their code.

        Sequence lengths are symbolic from the start, so that a new length compiles nothing anew.
        """
        for block in self.blocks:
            block.compile(dynamic=True)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor | None = None) -> Encoded:
        """Encodes a sequence; ``mask_BL`` is True where a position may be attended to."""
        attention = None if mask_BL is None else mask_BL[:, None, None, :]
        for block in self.blocks:
            x_BLD = block(x_BLD, attn_mask=attention)
        return Encoded(hidden=x_BLD, normed=self.norm(x_BLD))


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
