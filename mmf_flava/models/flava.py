"""FLAVA's core: three encoders, two contrastive projections and the logit scale (§3.1, Figure 2).

Shapes: B batch, C channels, H height, W width, P patches, T tokens, L = 1 + (1 + P) + T, D width, E projection.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmf_flava.config.model import CoreConfig
from mmf_flava.models.image_encoder import ImageEncoder
from mmf_flava.models.last_block import Positions
from mmf_flava.models.multimodal_encoder import MultimodalEncoder
from mmf_flava.models.text_encoder import TextEncoder
from mmf_flava.models.transformer import Encoded, initialise


@dataclass
class PairStates:
    """A batch of pairs after the encoders; a pass that was not asked for is None.

    image, text: clean pass, (B, 1 + P, D) and (B, T, D), or [CLS] of it; what the contrastive loss takes.
    image_masked, text_masked: masked pass, (B, 1 + P, D) and (B, T, D).
    multimodal: (B, L, D) of the masked pass: [CLS_M], [CLS_I], P patches, T tokens, or those of them that MMM and ITM
        read.
    """

    image: Encoded | None = None
    text: Encoded | None = None
    image_masked: Encoded | None = None
    text_masked: Encoded | None = None
    multimodal: Encoded | None = None


class Flava(nn.Module):
    """The pure model: no losses, no heads, no MMF."""

    def __init__(self, config: CoreConfig) -> None:
        super().__init__()
        image_size, text_size = config.image_encoder.hidden_size, config.text_encoder.hidden_size
        self.image_encoder = ImageEncoder(config.image_encoder)
        self.text_encoder = TextEncoder(config.text_encoder)
        self.multimodal_encoder = MultimodalEncoder(config.multimodal_encoder, image_size, text_size)
        self.image_projection = nn.Linear(image_size, config.projection_size)
        self.text_projection = nn.Linear(text_size, config.projection_size)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init))
        self.logit_scale_max = config.logit_scale_max
        self.apply(partial(initialise, std=config.initializer_range))
        if config.compile:
            for encoder in (self.image_encoder, self.text_encoder, self.multimodal_encoder):
                encoder.compile_blocks()

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """(B, E) unit vectors of clean images."""
        return self.project_image(self.image_encoder(image_BCHW, read=_cls(image_BCHW)))

    def encode_text(self, input_ids_BT: Tensor, input_mask_BT: Tensor | None = None) -> Tensor:
        """(B, E) unit vectors of clean texts."""
        return self.project_text(self.text_encoder(input_ids_BT, input_mask_BT, _cls(input_ids_BT)))

    def image_features(self, image_BCHW: Tensor) -> Tensor:
        """(B, D) [CLS] of clean images after the image encoder's final LayerNorm, what a linear probe takes (B.2)."""
        return self.image_encoder(image_BCHW, read=_cls(image_BCHW)).cls

    def encode_multimodal(
        self, image_BCHW: Tensor, input_ids_BT: Tensor, input_mask_BT: Tensor | None = None
    ) -> Tensor:
        """(B, L, D) states of clean pairs; position 0 is [CLS_M]."""
        image = self.image_encoder(image_BCHW)
        text = self.text_encoder(input_ids_BT, input_mask_BT)
        return self.multimodal_encoder(image.hidden, text.hidden, input_mask_BT).normed

    def project_image(self, image: Encoded) -> Tensor:
        """(B, E): the contrastive projection takes [CLS] *after* the final LayerNorm; unit length in fp32."""
        return normalize(self.image_projection(image.cls).float(), dim=-1)

    def project_text(self, text: Encoded) -> Tensor:
        """(B, E), as ``project_image``."""
        return normalize(self.text_projection(text.cls).float(), dim=-1)

    def temperature(self) -> Tensor:
        """exp(logit scale), the scale kept within [0, ln 100] in place as both public implementations do."""
        self.logit_scale.data.clamp_(0, self.logit_scale_max)  # of FSDP it is a view, which only .data lets change
        return self.logit_scale.exp()

    def encode_pair(
        self,
        image_BCHW: Tensor,
        patch_mask_BP: Tensor,
        input_ids_BT: Tensor,
        input_ids_masked_BT: Tensor,
        input_mask_BT: Tensor,
        clean: bool = True,
        masked: bool = True,
        read_BL: Tensor | None = None,
    ) -> PairStates:
        """Runs a batch of pairs; clean and masked inputs share one call of all blocks but the last, as a batch of 2B.

        ``read_BL``: where the multimodal states will be read, [CLS_M] among them. The last block of the multimodal
        encoder then runs there only, and that of the clean passes at [CLS]. By default all states are computed.
        """
        only_cls = None if read_BL is None else _cls(input_ids_BT)
        # the views that are wanted: which patches and words are masked, and where the last block is read
        views = [(None, input_ids_BT, only_cls)] * clean + [(patch_mask_BP, input_ids_masked_BT, None)] * masked
        patch_masks, ids, read = zip(*views, strict=True)
        images = self.image_encoder(image_BCHW, patch_masks, read)
        texts = self.text_encoder(ids, input_mask_BT, read)
        states = PairStates()
        if clean:
            states.image, states.text = images[0], texts[0]
        if masked:
            states.image_masked, states.text_masked = images[-1], texts[-1]
            at = None if read_BL is None else Positions.of(read_BL)
            states.multimodal = self.multimodal_encoder(images[-1].hidden, texts[-1].hidden, input_mask_BT, at)
        return states


def _cls(batch: Tensor) -> Positions:
    return Positions.first(len(batch), batch.device)
