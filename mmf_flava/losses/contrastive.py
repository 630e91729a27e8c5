"""The global contrastive loss (FLAVA paper, §3.2, "GC").

Shapes: B = batch size per rank, G = B x number of ranks, E = projection size.
"""

from typing import Any

import torch
from mmf.common.registry import registry
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy

from mmf_flava.errors import UserError
from mmf_flava.losses.gather import gather_embeddings, global_mean
from mmf_flava.models.outputs import Contrast

GRADIENTS = ("global", "local")


def contrastive_loss(contrast: Contrast, single_process: bool = True, gradient: str = "global") -> Tensor:
    """Return this rank's term of the symmetric (image-to-text and text-to-image) cross entropy over the global batch.

    Each rank computes only the logits of its own pairs, not of all pairs in the global batch. Pairs that do not match
    are only used as negatives of other pairs. For a batch without matching pairs, loss and gradient are exactly 0.

    The logits are always computed in fp32: at the maximum temperature of 100, bf16 rounds logits in steps of 0.5.

    Args:
        single_process, gradient: see ``gather_embeddings``.
    """
    images_GE, texts_GE = (
        gather_embeddings(embeddings, single_process, gradient) for embeddings in (contrast.image, contrast.text)
    )
    rank = distributed.get_rank() if len(images_GE) > len(contrast.image) else 0
    targets = torch.arange(len(contrast.image), device=contrast.image.device) + rank * len(contrast.image)
    positive = contrast.positive
    with torch.autocast(targets.device.type, enabled=False):
        image_to_text = contrast.temperature * contrast.image[positive] @ texts_GE.T
        text_to_image = contrast.temperature * contrast.text[positive] @ images_GE.T
    losses = [cross_entropy(logits, targets[positive], reduction="sum") for logits in (image_to_text, text_to_image)]
    return global_mean((losses[0] + losses[1]) / 2, len(image_to_text), single_process)


@registry.register_loss("flava_global_contrastive")
class GlobalContrastive(nn.Module):
    """The global contrastive loss L_GC, with the samples of all ranks as negatives.

    Args:
        gradient: ``global`` back-propagates to the embeddings of all ranks, as in the paper; ``local`` back-propagates
            only to the embeddings of this rank, as in CLIP.
    """

    needs, mean_over = "contrast", "pairs"

    def __init__(self, gradient: str = "global") -> None:
        super().__init__()
        if gradient not in GRADIENTS:
            raise UserError(f"flava_global_contrastive.gradient must be {' or '.join(GRADIENTS)}, got {gradient!r}.")
        self.gradient = gradient

    def forward(self, sample_list: Any, model_output: dict[str, Any]) -> Tensor:
        return contrastive_loss(model_output[self.needs], not self.training, self.gradient)
