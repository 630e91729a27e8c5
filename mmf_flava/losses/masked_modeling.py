"""Masked modeling: MIM and MLM on unimodal batches, MMM on pairs (§3.2).

Shapes: N masked positions, V vocabulary.
"""

from typing import Any, ClassVar

from mmf.common.registry import registry
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmf_flava.losses.ranks import mean_share
from mmf_flava.models.outputs import MaskedPrediction


def masked_cross_entropy(logits_NV: Tensor, labels_N: Tensor, alone: bool = True) -> Tensor:
    """This rank's share of the mean cross entropy over all ranks' masked positions; exactly 0 where there are none.

    In fp32 under any autocast: a softmax over 30,522 words loses digits in half precision.
    """
    return mean_share(cross_entropy(logits_NV.float(), labels_N, reduction="sum"), len(labels_N), alone)


class MaskedModeling(nn.Module):
    """Cross entropy of the prediction named by ``needs``."""

    needs: ClassVar[str]

    def forward(self, sample_list: Any, model_output: dict[str, Any]) -> Tensor:
        prediction: MaskedPrediction = model_output[self.needs]
        return masked_cross_entropy(prediction.logits, prediction.labels, not self.training)


@registry.register_loss("flava_mim")
class MaskedImageModeling(MaskedModeling):
    """L_MIM: the codes of masked patches, from the image alone."""

    needs = "mim"


@registry.register_loss("flava_mlm")
class MaskedLanguageModeling(MaskedModeling):
    """L_MLM: masked words, from the text alone."""

    needs = "mlm"


@registry.register_loss("flava_mmm_image")
class MaskedMultimodalModelingImage(MaskedModeling):
    """L_MMM, image side: the codes of masked patches, from the rest of the image and the caption."""

    needs = "mmm_image"


@registry.register_loss("flava_mmm_text")
class MaskedMultimodalModelingText(MaskedModeling):
    """L_MMM, text side: masked words of the caption, from the rest of it and the image."""

    needs = "mmm_text"
