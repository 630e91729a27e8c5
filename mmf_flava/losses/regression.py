"""The squared error of a number, ``mse`` in MMF's main line, which 1.0.0rc10 lacks (STS-B, B.2)."""

from typing import Any

from mmf.common.registry import registry
from torch import Tensor, nn
from torch.nn.functional import mse_loss


@registry.register_loss("mse")
class SquaredError(nn.Module):
    """Mean of (score - target) squared; scores (B, 1), targets (B,) or (B, 1)."""

    def forward(self, sample_list: Any, model_output: dict[str, Any]) -> Tensor:
        # flat, for (B, 1) against (B,) would compare each with each
        return mse_loss(model_output["scores"].flatten().float(), sample_list["targets"].flatten().float())
