"""The multimodal encoder: [CLS_M], then the projected image and text states, without positions (§3.1).

Shapes: B batch, I image sequence (1 + patches), T tokens, D width of the encoders, M width of the multimodal encoder.
"""

import torch
from torch import Tensor, nn

from mmf_flava.config.model import MultimodalEncoderConfig
from mmf_flava.models.last_block import Positions
from mmf_flava.models.transformer import EncodedViews, Transformer


class MultimodalEncoder(Transformer):
    """A transformer over the *hidden* states of both encoders, before their final LayerNorm."""

    def __init__(self, config: MultimodalEncoderConfig, image_size: int, text_size: int) -> None:
        super().__init__(config)
        self.mask_padding = config.mask_padding
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.image_projection = nn.Linear(image_size, config.hidden_size)
        self.text_projection = nn.Linear(text_size, config.hidden_size)

    def forward(  # type: ignore[override]
        self,
        image_BID: Tensor,
        text_BTD: Tensor,
        text_mask_BT: Tensor | None = None,
        queries: Positions | None = None,
    ) -> EncodedViews:
        """Encode pairs, (B, 1 + I + T, M); padding of the text (False in ``text_mask_BT``) is not attended to."""
        image, text = self.image_projection(image_BID), self.text_projection(text_BTD)
        cls = self.cls_token.expand(len(image), -1, -1).to(image.dtype)
        mask = None
        if self.mask_padding and text_mask_BT is not None:
            seen = text_mask_BT.new_ones(len(image), 1 + image.shape[1])
            mask = torch.cat([seen, text_mask_BT], dim=1)
        return super().forward(torch.cat([cls, image, text], dim=1), mask, queries)
