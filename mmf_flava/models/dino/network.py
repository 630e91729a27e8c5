"""The network of student and teacher: an image encoder and a projection head (DINO, section 3.1).

Shapes: B = number of images, C = channels, H = image height, W = image width, D = hidden size, N = number of crops in
the batch, E = bottleneck size, K = number of outputs.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from mmf_flava.config.dino import DinoEncoderConfig, DinoHeadConfig
from mmf_flava.models.image_encoder import ImageEncoder
from mmf_flava.models.last_block import Positions


class LastLayer(nn.Module):
    """A linear layer without bias whose weights have unit length, or a trained length (weight normalisation).

    The parameter names are those of torch's weight normalisation, which the published weights have.

    Args:
        has_length: whether the weights of each output have a trained length, which starts at 1.
    """

    def __init__(self, bottleneck_size: int, out_dim: int, has_length: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_dim, 1)) if has_length else None
        self.weight_v = nn.Parameter(torch.empty(out_dim, bottleneck_size))
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))  # torch's default of a linear layer

    def forward(self, x_NE: Tensor) -> Tensor:
        """Return (N, K) logits in fp32.

        bf16 would round logits near 1 in steps of 0.004, which the teacher's temperature of 0.04 makes steps of 0.1.
        """
        with torch.autocast(x_NE.device.type, enabled=False):
            weight_KE = normalize(self.weight_v.float(), dim=1)
            if self.weight_g is not None:
                weight_KE = self.weight_g.float() * weight_KE
            return linear(x_NE.float(), weight_KE)


class DinoHead(nn.Module):
    """The projection head: three linear layers with GELU, L2 normalisation, and the last layer.

    The parameter names are those of the published weights.
    """

    def __init__(self, width: int, config: DinoHeadConfig) -> None:
        super().__init__()
        hidden_size = config.hidden_size
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, config.bottleneck_size),
        )
        self.last_layer = LastLayer(config.bottleneck_size, config.out_dim, not config.norm_last_layer)

    def forward(self, cls_ND: Tensor) -> Tensor:
        """Return (N, K) logits in fp32: cosine similarities if ``norm_last_layer``."""
        return self.last_layer(normalize(self.mlp(cls_ND).float(), dim=-1))


class DinoNetwork(nn.Module):
    """An image encoder and a projection head on [CLS].

    Args:
        initializer_range: standard deviation of the initial weights of linear layers, [CLS] and position embeddings.
    """

    def __init__(self, encoder: DinoEncoderConfig, head: DinoHeadConfig, initializer_range: float = 0.02) -> None:
        super().__init__()
        self.encoder = ImageEncoder(encoder, has_mask_token=False)
        self.head = DinoHead(encoder.hidden_size, head)
        self.apply(partial(_initialise, std=initializer_range))
        for embedding in (self.encoder.cls_token, self.encoder.pos_embed):
            nn.init.trunc_normal_(embedding, std=initializer_range)

    def features(self, image_BCHW: Tensor) -> Tensor:
        """Return the (B, D) [CLS] states after the final LayerNorm. The last block runs for [CLS] alone."""
        cls = Positions.first(len(image_BCHW), image_BCHW.device)
        return self.encoder(image_BCHW, queries=cls).cls

    def forward(self, crops: Sequence[Tensor]) -> Tensor:
        """Return the (N, K) logits of N crops, given as a batch (B, C, H, W) for each size of crops."""
        return self.head(torch.cat([self.features(crops_BCHW) for crops_BCHW in crops]))


def _initialise(module: nn.Module, std: float) -> None:
    """Initialise linear layers as published; convolutions and the last layer keep torch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=std)
        nn.init.zeros_(module.bias)
