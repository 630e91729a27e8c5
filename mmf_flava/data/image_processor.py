"""The image processor of pretraining, which creates the inputs of the image encoder and the image codebook.

Shapes: H, W = size of the encoder input and h, w = size of the codebook input, in pixels, P = number of patches.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmf_flava.config.processors import ImageProcessorConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.data.crops import CROP_ASPECT, Box, Crops, sample_crop_box
from mmf_flava.data.initial_processors import InitialProcessors
from mmf_flava.data.masking import block_mask
from mmf_flava.errors import UserError


class ImageProcessor:
    """Processor that creates the encoder input, the codebook input and the patch mask of an image.

    Both inputs show the same region of the image: a random crop in training (``RandomResizedCrop``), otherwise the
    entire image. The region is resized to a square without preserving the aspect ratio, as in the released code (FLAVA
    paper, section 3.2). The sizes and the crop parameters are the defaults of torchmultimodal.

    Args:
        config: settings, see ``ImageProcessorConfig``.
        initial: source of the default mean and std.
    """

    def __init__(self, config: Any, initial: InitialProcessors):
        params = parse_section(ImageProcessorConfig, config, "flava_image")
        self.image_size, self.codebook_size, self.mask = params.image_size, params.codebook_size, params.mask
        self.max_pixels = params.max_pixels
        self.crop_scale = (params.crop_scale[0], params.crop_scale[1])
        side = params.image_size // params.patch_size
        self.grid = (side, side)
        self.target, self.min_block = (0, 0) if self.mask is None else self.mask.block_sizes(side**2)
        self.mean, self.std = initial.statistics(params.image_size, params.mean, params.std)
        mean, std = np.array(self.mean, dtype=np.float32), np.array(self.std, dtype=np.float32)
        self._scale = torch.from_numpy(1 / (255 * std))[:, None, None]
        self._shift = torch.from_numpy(-mean / std)[:, None, None]
        largest = max(self.image_size, self.codebook_size or 0)
        # JPEGs may be decoded at a reduced size, but with at least this many pixels per side, so that the smallest crop
        # still has enough pixels.
        self.decode_size = math.ceil(largest / math.sqrt(self.crop_scale[0] * CROP_ASPECT[0]))

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the encoder input, the codebook input and the patch mask of an image.

        Args:
            item: {"image": uint8 pixels (height, width, 3) or another input of ``to_pixels``, "rng": numpy Generator,
                "train": bool}, and optionally "crop_rng", a separate generator for the crop, and "codebook_view":
                False, which omits the codebook input (used with cached image codes).

        Returns:
            A dict with the following tensors:
                image: the normalised encoder input, (3, H, W) float.
                image_for_codebook: the codebook input, (3, h, w) float in [0, 1]; may be omitted.
                image_patch_mask: (number of patches,) bool, True = masked; missing if masking is disabled.
        """
        rng, crops = item["rng"], Crops(item["image"])
        box = self._box(crops, item.get("crop_rng", rng)) if item["train"] else None
        pixels = _view(crops, box, self.image_size, Image.Resampling.BICUBIC)
        sample = {"image": _floats(pixels).mul_(self._scale).add_(self._shift)}
        if self.codebook_size is not None and item.get("codebook_view", True):
            sample["image_for_codebook"] = self._codebook_view(crops, self.codebook_size, box)
        if self.mask is not None:
            mask = block_mask(rng, self.grid, self.target, self.min_block, exact=self.mask.exact)
            sample["image_patch_mask"] = torch.from_numpy(mask)
        return sample

    def codebook_views(
        self, image: np.ndarray | Image.Image, generators: Sequence[np.random.Generator], train: bool
    ) -> list[Tensor]:
        """Return one codebook input per generator: float tensors (3, height, width) with values in [0, 1].

        In training, each generator samples the crop of its input. Otherwise, all inputs show the entire image.
        """
        if self.codebook_size is None:
            raise UserError("flava_image: codebook_size is null. Set it, for example to 112, to compute image codes.")
        crops = Crops(image)
        return [
            self._codebook_view(crops, self.codebook_size, self._box(crops, generator) if train else None)
            for generator in generators
        ]

    def pixels(self, image_3HW: Tensor) -> np.ndarray:
        """Convert a normalised encoder input back to (H, W, 3) uint8 pixels, for display."""
        pixels = (image_3HW - self._shift) / self._scale
        return pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()

    def codebook_geometry(self, train: bool) -> dict[str, Any]:
        """Return the parameters that determine how codebook inputs are created from an image and a random generator."""
        return {
            "codebook_size": self.codebook_size,
            "decode_size": self.decode_size if train else None,
            "boxes": "of whole pixels where an image is shrunk",
            "crop_scale": list(self.crop_scale) if train else None,
        }

    def _box(self, crops: Crops, rng: np.random.Generator) -> Box:
        width, height = crops.size
        return sample_crop_box(rng, width, height, self.crop_scale)

    @staticmethod
    def _codebook_view(crops: Crops, side: int, box: Box | None) -> Tensor:
        return _floats(_view(crops, box, side, Image.Resampling.LANCZOS)).mul_(1 / 255)


def _view(crops: Crops, box: Box | None, side: int, resampling: Image.Resampling) -> Tensor:
    """Crop ``box`` and resize it to a square. If ``box`` is None, resize the entire image."""
    return crops.resize(side, resampling) if box is None else crops.view(box, side, resampling)


def _floats(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32, memory_format=torch.contiguous_format)
