"""FLAVA's core model: three encoders, two contrastive projections and the logit scale (FLAVA paper, §3.1, Figure 2).

Shapes: B = batch size, C = channels, H = image height, W = image width, P = number of patches, T = number of tokens,
L = 1 + (1 + P) + T = length of the multimodal sequence, D = hidden size, E = projection size.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmf_flava.config.model import CoreConfig
from mmf_flava.models.attention_maps import cls_attention
from mmf_flava.models.image_encoder import ImageEncoder
from mmf_flava.models.last_block import Positions
from mmf_flava.models.multimodal_encoder import MultimodalEncoder
from mmf_flava.models.text_encoder import TextEncoder
from mmf_flava.models.transformer import Encoded, initialise

ENCODERS = ("image_encoder", "text_encoder", "multimodal_encoder")


@dataclass
class PairStates:
    """Encoder outputs for a batch of image-text pairs. A field is None if its inputs were not encoded.

    P is the number of patches, and L = 2 + P + T is the length of the multimodal sequence.

    image, text: outputs for unmasked inputs, (B, 1 + P, D) and (B, T, D), or [CLS] only; used by the contrastive loss.
    image_masked, text_masked: outputs for masked inputs, (B, 1 + P, D) and (B, T, D).
    multimodal: outputs for masked inputs, (B, L, D), at [CLS_M], [CLS_I], P patches and T tokens, or only at the
        positions in the argument ``queries`` of ``Flava.encode_pair``.
    """

    image: Encoded | None = None
    text: Encoded | None = None
    image_masked: Encoded | None = None
    text_masked: Encoded | None = None
    multimodal: Encoded | None = None


class Flava(nn.Module):
    """FLAVA's core model, without pretraining heads and losses. It does not depend on MMF."""

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
            for name in ENCODERS:
                getattr(self, name).compile_blocks()
        self.register_load_state_dict_post_hook(_clamp_loaded)

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """Return the (B, projection size) contrastive embeddings of unmasked images, normalised to unit length."""
        return self.project_image(self.image_encoder(image_BCHW, queries=_cls(image_BCHW)))

    def encode_text(self, input_ids_BT: Tensor, input_mask_BT: Tensor | None = None) -> Tensor:
        """Return the (B, projection size) contrastive embeddings of unmasked texts, normalised to unit length.

        Args:
            input_mask_BT: False or 0 at padding; None means no padding.
        """
        return self.project_text(self.text_encoder(input_ids_BT, input_mask_BT, _cls(input_ids_BT)))

    def image_features(self, image_BCHW: Tensor) -> Tensor:
        """Return the (B, D) [CLS] states of unmasked images after the final LayerNorm, for linear probes."""
        return self.image_encoder(image_BCHW, queries=_cls(image_BCHW)).cls

    def image_attention(self, image_BCHW: Tensor) -> Tensor:
        """Return the (B, heads, rows, columns) attention of [CLS] to the patches in the image encoder's last block."""
        return cls_attention(self.image_encoder, image_BCHW)

    def encode_multimodal(
        self, image_BCHW: Tensor, input_ids_BT: Tensor, input_mask_BT: Tensor | None = None
    ) -> Tensor:
        """Return the (B, L, D) multimodal states of unmasked image-text pairs; position 0 is [CLS_M]."""
        image = self.image_encoder(image_BCHW)
        text = self.text_encoder(input_ids_BT, input_mask_BT)
        return self.multimodal_encoder(image.hidden, text.hidden, input_mask_BT).normed

    def project_image(self, image: Encoded) -> Tensor:
        """Project image [CLS] states *after* the final LayerNorm to contrastive embeddings of unit length, in fp32."""
        return normalize(self.image_projection(image.cls).float(), dim=-1)

    def project_text(self, text: Encoded) -> Tensor:
        """Project text [CLS] states *after* the final LayerNorm to contrastive embeddings of unit length, in fp32."""
        return normalize(self.text_projection(text.cls).float(), dim=-1)

    def temperature(self) -> Tensor:
        """Clamp the logit scale and return its exponential, which multiplies the logits."""
        self.clamp_logit_scale(self.logit_scale.data)  # under FSDP a view, which only .data can modify in place
        return self.logit_scale.exp()

    def clamp_logit_scale(self, logit_scale: Tensor) -> None:
        """Clamp a logit scale to [0, ln 100] in place.

        Hugging Face's and torchmultimodal's implementations do the same.
        """
        logit_scale.clamp_(0, self.logit_scale_max)

    def shard_units(self) -> list[str]:
        """Return the paths of the modules that become FSDP units: blocks, encoders and projections."""
        blocks = [f"{name}.blocks.{number}" for name in ENCODERS for number in range(len(getattr(self, name).blocks))]
        return [*blocks, *ENCODERS, "image_projection", "text_projection"]

    def checkpoint_activations(self) -> None:
        """Enable activation checkpointing of all blocks."""
        for name in ENCODERS:
            getattr(self, name).checkpoint_blocks()

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
        """Encode a batch of image-text pairs, unmasked and masked.

        In all blocks except the last, the unmasked and the masked inputs are processed as one batch of size 2B.

        Args:
            clean: whether to encode the unmasked inputs.
            masked: whether to encode the masked inputs, also with the multimodal encoder.
            queries: positions at which the multimodal states are needed, including [CLS_M]. The last block of the
                multimodal encoder computes only these, and the last blocks of the other two encoders compute only [CLS]
                for the unmasked inputs. None computes all states.
        """
        cls_only = None if queries is None else _cls(input_ids_BT)
        # for unmasked and masked inputs: mask of the patches, token ids, and positions computed by the last block
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


def _clamp_loaded(flava: Flava, _keys: object) -> None:
    flava.clamp_logit_scale(flava.logit_scale.data)


def _cls(batch: Tensor) -> Positions:
    return Positions.first(batch.shape[0], batch.device)
