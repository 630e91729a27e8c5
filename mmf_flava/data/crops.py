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
    """A picture, decoded once, of which several views are taken; ``size`` is (w, h).

    Args:
        picture: (h, w, 3) uint8, or a PIL image of any kind.
    """

    def __init__(self, picture: np.ndarray | Image.Image):
        self._pixels = np.array(to_rgb(picture)) if isinstance(picture, Image.Image) else picture
        self.size = (self._pixels.shape[1], self._pixels.shape[0])

    def view(self, box: Box, side: int, resampling: Image.Resampling) -> Tensor:
        """(3, s, s) uint8: the pixels in ``box``, squashed to a square.

        A box that is shrunk begins and ends at whole pixels, as torchvision's; one that is enlarged, in a tiny
        picture, is taken as it is, for there a pixel is much.
        """
        left, top, right, bottom = box
        if min(right - left, bottom - top) < side:
            return _channels_first(np.array(Image.fromarray(self._pixels).resize((side, side), resampling, box=box)))
        inside = self._pixels[round(top) : round(bottom), round(left) : round(right)]
        if resampling not in FILTERS:
            return _channels_first(np.array(Image.fromarray(inside).resize((side, side), resampling)))
        mode = FILTERS[resampling]
        return interpolate(_channels_first(inside)[None], (side, side), mode=mode, antialias=True)[0]


def _channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def to_rgb(picture: Image.Image) -> Image.Image:
    """Grey, palette and CMYK pictures as RGB; transparent ones on white."""
    if picture.mode == "RGB":
        return picture
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")
