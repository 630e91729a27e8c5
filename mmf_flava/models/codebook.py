"""Image codebooks: one code a patch, the targets of MIM and MMM-image (§3.2).

Shapes: B batch, h and w pixels of the codebook's view, P patches, K codes, p pixels of a patch's side.
"""

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import unfold

from mmf_flava.config.model import CodebookConfig
from mmf_flava.errors import UserError


class KMeansCodebook(nn.Module):
    """The nearest of K centroids, each a patch of 3 x p x p pixels in [0, 1]; small enough to be trained in seconds."""

    centroids: Tensor

    def __init__(self, centroids_KF: Tensor) -> None:
        super().__init__()
        self.register_buffer("centroids", centroids_KF.float())
        self.patch_size = round((centroids_KF.shape[1] / 3) ** 0.5)

    @torch.no_grad()
    def forward(self, image_B3hw: Tensor) -> Tensor:
        """(B, P) codes of images with values in [0, 1]."""
        # in fp32 whatever autocast says: a code is the smallest of many close distances
        with torch.autocast(image_B3hw.device.type, enabled=False):
            patches = unfold(image_B3hw.float(), self.patch_size, stride=self.patch_size).transpose(1, 2)
            return torch.cdist(patches, self.centroids.expand(len(patches), -1, -1)).argmin(dim=-1)

    def decode(self, codes_BP: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 3, h, w): the picture that the codes stand for, for looking at."""
        patches = self.centroids[codes_BP].transpose(1, 2)
        size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        return torch.nn.functional.fold(patches, size, self.patch_size, stride=self.patch_size)


def build_codebook(config: CodebookConfig) -> KMeansCodebook | None:
    """The codebook that a recipe names; None for ``cached``, where the batch brings its codes.

    Raises:
        UserError: an unknown type, or a file that is missing or holds something else.
    """
    if config.type == "cached":
        return None
    if config.type != "kmeans":
        raise UserError(f"model_config.flava.codebook.type: {config.type!r} is not one of cached, kmeans.")
    if config.path is None:
        raise UserError("model_config.flava.codebook.path must name the centroids of the kmeans codebook.")
    try:
        centroids = load_file(config.path)["centroids"]
    except (OSError, KeyError, SafetensorError) as error:
        raise UserError(
            f"model_config.flava.codebook.path: {config.path} holds no centroids ({error}); "
            "`python -m mmf_flava.data.build demo --out DIR` makes such a file."
        ) from None
    if centroids.shape[0] != config.vocab_size:
        raise UserError(
            f"{config.path} has {centroids.shape[0]} codes, model_config.flava.codebook.vocab_size says "
            f"{config.vocab_size}; make them equal."
        )
    return KMeansCodebook(centroids)
