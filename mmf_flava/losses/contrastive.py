"""The global contrastive loss (§3.2, "GC").

Shapes: B batch of this rank, G = B x ranks, E projection.
"""

from typing import Any

import torch
from mmf.common.registry import registry
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import cross_entropy

from mmf_flava.models.outputs import Contrast


def gather(vectors_BE: Tensor) -> Tensor:
    """(G, E): the vectors of all ranks, in rank order, with gradients flowing back to every rank."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return vectors_BE
    return torch.cat(all_gather(vectors_BE))


def contrastive_loss(contrast: Contrast) -> Tensor:
    """Mean of image-to-text and text-to-image cross entropy against the whole global batch.

    Pairs that do not belong together have no row of their own, but stay as negatives for the others. A batch without
    a matching pair yields exactly 0 with zero gradient.
    """
    images_GE, texts_GE = gather(contrast.image), gather(contrast.text)
    rank = distributed.get_rank() if len(images_GE) > len(contrast.image) else 0
    targets = torch.arange(len(contrast.image), device=contrast.image.device) + rank * len(contrast.image)
    rows = contrast.positive
    image_to_text = contrast.temperature * contrast.image[rows] @ texts_GE.T
    text_to_image = contrast.temperature * contrast.text[rows] @ images_GE.T
    losses = [cross_entropy(logits, targets[rows], reduction="sum") for logits in (image_to_text, text_to_image)]
    return (losses[0] + losses[1]) / (2 * rows.sum().clamp(min=1))


@registry.register_loss("flava_global_contrastive")
class GlobalContrastive(nn.Module):
    """L_GC over all ranks, back-propagated to all ranks ("global" as opposed to CLIP's local gradient)."""

    needs = "contrast"

    def forward(self, sample_list: Any, model_output: dict[str, Any]) -> Tensor:
        return contrastive_loss(model_output[self.needs])
