"""Masked modeling losses: MIM and MLM on unimodal batches, MMM on image-text pairs (FLAVA paper, §3.2).

Shapes: N = number of masked positions, V = vocabulary size.
"""

from typing import Any, ClassVar

from mmf.common.registry import registry
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmf_flava.losses.gather import global_mean
from mmf_flava.models.outputs import MaskedPrediction


def masked_cross_entropy(logits_NV: Tensor, labels_N: Tensor, single_process: bool = True) -> Tensor:
    """Return this rank's term of the mean cross entropy over the masked positions of all ranks.

    The result is 0 if no position is masked.

    The cross entropy is always computed in fp32: a softmax over 30,522 tokens is inaccurate in half precision.

    Args:
        single_process: see ``global_mean``.
    """
    return global_mean(cross_entropy(logits_NV.float(), labels_N, reduction="sum"), len(labels_N), single_process)


class MaskedModeling(nn.Module):
    """Base class of the masked modeling losses: cross entropy of the prediction in ``model_output[needs]``."""

    needs: ClassVar[str]
    mean_over: ClassVar[str]

    def forward(self, sample_list: Any, model_output: dict[str, Any]) -> Tensor:
        prediction: MaskedPrediction = model_output[self.needs]
        return masked_cross_entropy(prediction.logits, prediction.labels, not self.training)


@registry.register_loss("flava_mim")
class MaskedImageModeling(MaskedModeling):
    """Masked image modeling loss L_MIM: predict the codes of masked patches from the masked image."""

    needs, mean_over = "mim", "patches"


@registry.register_loss("flava_mlm")
class MaskedLanguageModeling(MaskedModeling):
    """Masked language modeling loss L_MLM: predict masked tokens from the masked text."""

    needs, mean_over = "mlm", "tokens"


@registry.register_loss("flava_mmm_image")
class MaskedMultimodalModelingImage(MaskedModeling):
    """Image loss of L_MMM: predict the codes of masked patches from the masked image and the masked caption."""

    needs, mean_over = "mmm_image", "patches"


@registry.register_loss("flava_mmm_text")
class MaskedMultimodalModelingText(MaskedModeling):
    """Text loss of L_MMM: predict masked tokens from the masked caption and the masked image."""

    needs, mean_over = "mmm_text", "tokens"
