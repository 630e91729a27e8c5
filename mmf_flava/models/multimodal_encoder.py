"""The multimodal encoder over [CLS_M] and the projected image and text states, without position embeddings.

See §3.1 of the FLAVA paper.

Shapes: B = batch size, I = 1 + number of patches, T = number of tokens, D = hidden size of the image or text encoder,
M = hidden size of the multimodal encoder.
"""

import torch
from torch import Tensor, nn

from mmf_flava.config.model import MultimodalEncoderConfig
from mmf_flava.models.last_block import Positions
from mmf_flava.models.padding_mask import to_bool_mask
from mmf_flava.models.transformer import EncodedViews, Transformer


class MultimodalEncoder(Transformer):
    """A transformer over the states of the image and the text encoder *before* their final LayerNorm."""

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
        """Encode image-text pairs to the states of [CLS_M], [CLS_I], the patches and the text tokens, in this order.

        Text padding (False or 0 in ``text_mask_BT``) is not attended to if ``mask_padding`` is set.
        """
        image, text = self.image_projection(image_BID), self.text_projection(text_BTD)
        cls = self.cls_token.expand(image.shape[0], -1, -1).to(image.dtype)
        mask = None
        text_mask_BT = to_bool_mask(text_mask_BT)
        if self.mask_padding and text_mask_BT is not None:
            seen = text_mask_BT.new_ones(image.shape[0], 1 + image.shape[1])
            mask = torch.cat([seen, text_mask_BT], dim=1)
        return super().forward(torch.cat([cls, image, text], dim=1), mask, queries)
