"""Random crop boxes and resized crops of an image.

Shapes: h, w = height and width of an image in pixels.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from mmf_flava.data.image_decoding import to_pixels

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

CROP_ASPECT = (3 / 4, 4 / 3)
# torch's filters for uint8 images are several times faster than Pillow's; pixel values differ by at most 1. Older
# versions of torch have no lanczos filter.
FILTERS = {
    resampling: mode
    for resampling, mode in ((Image.Resampling.BICUBIC, "bicubic"), (Image.Resampling.LANCZOS, "lanczos"))
    if mode in (interpolate.__doc__ or "")
}


def sample_crop_box(rng: np.random.Generator, width: int, height: int, scale: Sequence[float]) -> Box:
    """Sample a crop box as in torchvision's ``RandomResizedCrop``, but without rounding to integer pixels."""
    low, high = math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1])
    for _ in range(10):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * rng.random())
        ratio = math.exp(low + (high - low) * rng.random())
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = (width - w) * rng.random(), (height - h) * rng.random()
            return left, top, min(left + w, width), min(top + h, height)
    w, h = min(width, height * CROP_ASPECT[1]), min(height, width / CROP_ASPECT[0])  # fallback: a centre crop
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


class Crops:
    """A decoded image with methods to crop and resize it. ``size`` is (width, height).

    Args:
        image: (h, w, 3) uint8, or another input of ``to_pixels``.
    """

    def __init__(self, image: np.ndarray | Image.Image):
        decoded = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,)
        self._pixels: np.ndarray = image if decoded else to_pixels(image)  # type: ignore[assignment]
        self.size = (self._pixels.shape[1], self._pixels.shape[0])

    def resize(self, side: int, resampling: Image.Resampling) -> Tensor:
        """Resize the entire image to a square, (3, ``side``, ``side``) uint8, with Pillow.

        The pixels are identical to the output of Hugging Face's Pillow-based image processor.
        """
        return _channels_first(np.array(self._image.resize((side, side), resampling)))

    def view(self, box: Box, side: int, resampling: Image.Resampling) -> Tensor:
        """Crop ``box`` and resize it to a square, (3, ``side``, ``side``) uint8.

        For downscaling, the box is rounded to integer pixels, as in torchvision. For upscaling, the box is not rounded,
        because one pixel is a large fraction of a small box.
        """
        if _is_smaller(box, side):
            return _channels_first(np.array(self._image.resize((side, side), resampling, box=box)))
        left, top, right, bottom = box
        cropped = self._pixels[round(top) : round(bottom), round(left) : round(right)]
        if resampling not in FILTERS:
            return _channels_first(np.array(Image.fromarray(cropped).resize((side, side), resampling)))
        mode = FILTERS[resampling]
        return interpolate(_channels_first(cropped)[None], (side, side), mode=mode, antialias=True)[0]

    def view_image(self, box: Box, side: int, resampling: Image.Resampling) -> Image.Image:
        """Return the pixels of ``view`` as a PIL image, with fewer copies."""
        if _is_smaller(box, side):
            return self._image.resize((side, side), resampling, box=box)
        planes = self.view(box, side, resampling).numpy()
        return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])

    @cached_property
    def _image(self) -> Image.Image:
        return Image.fromarray(self._pixels)


def _is_smaller(box: Box, side: int) -> bool:
    left, top, right, bottom = box
    return min(right - left, bottom - top) < side


def _channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)
