"""The image-text matching loss (FLAVA paper, §3.2)."""

from typing import Any

from mmf.common.registry import registry
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmf_flava.models.outputs import Matching


@registry.register_loss("flava_itm")
class ImageTextMatching(nn.Module):
    """Image-text matching loss L_ITM: binary classification of matching pairs, as mean cross entropy in fp32."""

    needs, mean_over = "itm", "samples"

    def forward(self, sample_list: Any, model_output: dict[str, Any]) -> Tensor:
        matching: Matching = model_output[self.needs]
        return cross_entropy(matching.logits.float(), matching.labels)
