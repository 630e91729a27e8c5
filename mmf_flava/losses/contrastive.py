"""The global contrastive loss (§3.2, "GC").

Shapes: B batch of this rank, G = B x ranks, E projection.
"""

from typing import Any

import torch
from mmf.common.registry import registry
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy

from mmf_flava.errors import UserError
from mmf_flava.losses.ranks import gather, mean_share
from mmf_flava.models.outputs import Contrast

GRADIENTS = ("global", "local")


def contrastive_loss(contrast: Contrast, alone: bool = True, gradient: str = "global") -> Tensor:
    """This rank's share of the mean of image-to-text and text-to-image cross entropy over the global batch.

    Each rank computes the rows of its own pairs only: B x G logits, not G x G. Pairs that do not belong together have
    no row of their own, but stay as negatives for the others. A batch without a matching pair yields exactly 0 with
    zero gradient. See ``ranks`` for ``alone`` and ``gradient``.
    """
    images_GE, texts_GE = (gather(vectors, alone, gradient) for vectors in (contrast.image, contrast.text))
    rank = distributed.get_rank() if len(images_GE) > len(contrast.image) else 0
    targets = torch.arange(len(contrast.image), device=contrast.image.device) + rank * len(contrast.image)
    rows = contrast.positive
    image_to_text = contrast.temperature * contrast.image[rows] @ texts_GE.T
    text_to_image = contrast.temperature * contrast.text[rows] @ images_GE.T
    losses = [cross_entropy(logits, targets[rows], reduction="sum") for logits in (image_to_text, text_to_image)]
    return mean_share((losses[0] + losses[1]) / 2, rows.sum(), alone)


@registry.register_loss("flava_global_contrastive")
class GlobalContrastive(nn.Module):
    """L_GC against the samples of all ranks.

    Args:
        gradient: ``global`` back-propagates to every rank, the paper's; ``local`` to this rank's vectors only, CLIP's.
    """

    needs = "contrast"

    def __init__(self, gradient: str = "global") -> None:
        super().__init__()
        if gradient not in GRADIENTS:
            raise UserError(f"flava_global_contrastive: gradient is {gradient!r}; it can be {' or '.join(GRADIENTS)}.")
        self.gradient = gradient

    def forward(self, sample_list: Any, model_output: dict[str, Any]) -> Tensor:
        return contrastive_loss(model_output[self.needs], not self.training, self.gradient)
