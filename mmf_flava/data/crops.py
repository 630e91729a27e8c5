"""Boxes of a picture, and what one sees in them at another size.

Shapes: h, w pixels of a picture · s pixels of a view's side.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

CROP_ASPECT = (3 / 4, 4 / 3)
# torch's filters for 8-bit pixels give what Pillow's do, to one step of 255, several times faster; older ones have no
# lanczos
FILTERS = {
    resampling: mode
    for resampling, mode in ((Image.Resampling.BICUBIC, "bicubic"), (Image.Resampling.LANCZOS, "lanczos"))
    if mode in (interpolate.__doc__ or "")
}


def random_crop(rng: np.random.Generator, width: int, height: int, scale: Sequence[float]) -> Box:
    """The box of a ``RandomResizedCrop``: area and aspect ratio as torchvision draws them; corners are not rounded."""
    low, high = math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1])
    for _ in range(10):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * rng.random())
        ratio = math.exp(low + (high - low) * rng.random())
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = (width - w) * rng.random(), (height - h) * rng.random()
            return left, top, min(left + w, width), min(top + h, height)
    w, h = min(width, height * CROP_ASPECT[1]), min(height, width / CROP_ASPECT[0])  # centre, aspect ratio in bounds
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


class Crops:
    """A picture in RGB, decoded once, of which several views are taken."""

    def __init__(self, picture: Image.Image):
        self.picture = picture
        self._pixels: Tensor | None = None  # (h, w, 3) uint8

    def view(self, box: Box, side: int, resampling: Image.Resampling) -> Tensor:
        """(3, s, s) uint8: the pixels in ``box``, squashed to a square.

        A box that is shrunk begins and ends at whole pixels, as torchvision's; one that is enlarged, in a tiny
        picture, is taken as it is, for there a pixel is much.
        """
        left, top, right, bottom = box
        if min(right - left, bottom - top) < side:
            return _channels_first(self.picture.resize((side, side), resampling, box=box))
        whole = (round(left), round(top), round(right), round(bottom))
        if resampling not in FILTERS:
            return _channels_first(self.picture.crop(whole).resize((side, side), resampling))
        if self._pixels is None:
            self._pixels = _channels_first(self.picture)
        inside = self._pixels[None, :, whole[1] : whole[3], whole[0] : whole[2]]
        return interpolate(inside, (side, side), mode=FILTERS[resampling], antialias=True)[0]


def _channels_first(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
