"""Masked modeling: MIM and MLM on unimodal batches, MMM on pairs (§3.2).

Shapes: N masked positions, V vocabulary.
"""

from typing import Any, ClassVar

from mmf.common.registry import registry
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmf_flava.losses.gather import global_mean
from mmf_flava.models.outputs import MaskedPrediction


def masked_cross_entropy(logits_NV: Tensor, labels_N: Tensor, single_process: bool = True) -> Tensor:
    """Return this rank's term of the mean cross entropy over all ranks' masked positions; exactly 0 if there are none.

    It is computed in fp32 under any autocast: a softmax over 30,522 words is inaccurate in half precision.

    Args:
        single_process: see ``global_mean``.
    """
    return global_mean(cross_entropy(logits_NV.float(), labels_N, reduction="sum"), len(labels_N), single_process)


class MaskedModeling(nn.Module):
    """Cross entropy of the prediction ``needs``."""

    needs: ClassVar[str]

    def forward(self, sample_list: Any, model_output: dict[str, Any]) -> Tensor:
        prediction: MaskedPrediction = model_output[self.needs]
        return masked_cross_entropy(prediction.logits, prediction.labels, not self.training)


@registry.register_loss("flava_mim")
class MaskedImageModeling(MaskedModeling):
    """L_MIM: predicts the codes of masked patches from the image."""

    needs = "mim"


@registry.register_loss("flava_mlm")
class MaskedLanguageModeling(MaskedModeling):
    """L_MLM: predicts masked words from the text."""

    needs = "mlm"


@registry.register_loss("flava_mmm_image")
class MaskedMultimodalModelingImage(MaskedModeling):
    """L_MMM, image side: predicts the codes of masked patches from the masked image and the masked caption."""

    needs = "mmm_image"


@registry.register_loss("flava_mmm_text")
class MaskedMultimodalModelingText(MaskedModeling):
    """L_MMM, text side: predicts masked words from the masked caption and the masked image."""

    needs = "mmm_text"
