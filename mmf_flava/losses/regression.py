"""The loss ``mse`` (mean squared error, used for STS-B), which MMF's main branch has and MMF 1.0.0rc10 lacks."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from mmf_flava.compat import mmf_api


@mmf_api.register_loss_if_missing("mse")
class SquaredError(nn.Module):
    """Mean squared error of scores (B, 1) and targets (B,) or (B, 1), B = batch size."""

    def forward(self, sample_list: Any, model_output: dict[str, Any]) -> Tensor:
        # flattened, because (B, 1) and (B,) would broadcast to (B, B)
        return mse_loss(model_output["scores"].flatten().float(), sample_list["targets"].flatten().float())
