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
    """The encoders' outputs for a batch of pairs; None for a forward pass that was not run.

    image, text: clean pass, (B, 1 + P, D) and (B, T, D), or [CLS] only; input of the contrastive loss.
    image_masked, text_masked: masked pass, (B, 1 + P, D) and (B, T, D).
    multimodal: masked pass, (B, L, D): [CLS_M], [CLS_I], P patches, T tokens, or the positions in ``queries``.
    """

    image: Encoded | None = None
    text: Encoded | None = None
    image_masked: Encoded | None = None
    text_masked: Encoded | None = None
    multimodal: Encoded | None = None


class Flava(nn.Module):
    """The core model, without losses, pretraining heads or MMF."""

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
        """Return (B, E) contrastive embeddings of clean images, with unit length."""
        return self.project_image(self.image_encoder(image_BCHW, queries=_cls(image_BCHW)))

    def encode_text(self, input_ids_BT: Tensor, input_mask_BT: Tensor | None = None) -> Tensor:
        """Return (B, E) contrastive embeddings of clean texts, with unit length."""
        return self.project_text(self.text_encoder(input_ids_BT, input_mask_BT, _cls(input_ids_BT)))

    def image_features(self, image_BCHW: Tensor) -> Tensor:
        """Return (B, D): [CLS] of clean images after the image encoder's final LayerNorm, for linear probes (B.2)."""
        return self.image_encoder(image_BCHW, queries=_cls(image_BCHW)).cls

    def encode_multimodal(
        self, image_BCHW: Tensor, input_ids_BT: Tensor, input_mask_BT: Tensor | None = None
    ) -> Tensor:
        """Return (B, L, D) states of clean pairs; position 0 is [CLS_M]."""
        image = self.image_encoder(image_BCHW)
        text = self.text_encoder(input_ids_BT, input_mask_BT)
        return self.multimodal_encoder(image.hidden, text.hidden, input_mask_BT).normed

    def project_image(self, image: Encoded) -> Tensor:
        """Return (B, E) in fp32: the projection of [CLS] *after* the final LayerNorm, normalised to unit length."""
        return normalize(self.image_projection(image.cls).float(), dim=-1)

    def project_text(self, text: Encoded) -> Tensor:
        """Return (B, E), as ``project_image``."""
        return normalize(self.text_projection(text.cls).float(), dim=-1)

    def temperature(self) -> Tensor:
        """Return exp(logit scale), clamped to [0, ln 100] in place as in both public implementations."""
        self.logit_scale.data.clamp_(0, self.logit_scale_max)  # under FSDP a view, which can only be changed via .data
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
        queries: Positions | None = None,
    ) -> PairStates:
        """Encode a batch of pairs; clean and masked inputs go through all blocks but the last as one batch of 2B.

        Args:
            clean, masked: forward passes to run.
            queries: positions of the multimodal states that are needed, including [CLS_M]. The last block of the
                multimodal encoder then runs only there, and the last blocks of the clean pass only at [CLS]. By default
                all states are computed.
        """
        cls_only = None if queries is None else _cls(input_ids_BT)
        # for each forward pass: masked patches, token ids and the positions of the last block
        views = [(None, input_ids_BT, cls_only)] * clean + [(patch_mask_BP, input_ids_masked_BT, None)] * masked
        patch_masks, ids, last_positions = zip(*views, strict=True)
        images = self.image_encoder(image_BCHW, patch_masks, last_positions)
        texts = self.text_encoder(ids, input_mask_BT, last_positions)
        states = PairStates()
        if clean:
            states.image, states.text = images[0], texts[0]
        if masked:
            states.image_masked, states.text_masked = images[-1], texts[-1]
            states.multimodal = self.multimodal_encoder(images[-1].hidden, texts[-1].hidden, input_mask_BT, queries)
        return states


def _cls(batch: Tensor) -> Positions:
    return Positions.first(len(batch), batch.device)
