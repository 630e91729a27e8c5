"""The squared error of a number, which MMF 1.0.0rc10 lacks (STS-B, B.2); the main branch has its own ``mse``."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from mmf_flava.compat import mmf_api


@mmf_api.register_loss_of_main("mse")
class SquaredError(nn.Module):
    """Mean of (score - target) squared; scores (B, 1), targets (B,) or (B, 1)."""

    def forward(self, sample_list: Any, model_output: dict[str, Any]) -> Tensor:
        # flat, for (B, 1) against (B,) would compare each with each
        return mse_loss(model_output["scores"].flatten().float(), sample_list["targets"].flatten().float())
