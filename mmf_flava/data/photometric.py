"""Random flip, colour jitter, conversion to grey, blur and solarisation of an image, as in BYOL and DINO."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from torchvision.transforms.v2 import functional as F

FLIP, JITTER, GREY = 0.5, 0.8, 0.2  # probabilities
# largest change of a factor, and of the hue's angle as a fraction of 360 degrees
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1
SOLARISE_FROM = 128  # smallest value that is inverted


@dataclass(frozen=True)
class Photometric:
    """Random augmentation of a crop with the parameters published with DINO (Caron et al., 2021).

    The image is a PIL image throughout, so that the pixels equal those of torchvision's transforms of PIL images, which
    DINO was published with. torchvision's operations on tensors differ by several values in the hue.

    Args:
        radius: smallest and largest standard deviation of the blur, in pixels.
        blur, solarise: probabilities.
    """

    radius: tuple[float, float]
    blur: float
    solarise: float = 0.0

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the augmented image. All random numbers are drawn from ``rng``."""
        if rng.random() < FLIP:
            image = F.horizontal_flip(image)
        if rng.random() < JITTER:
            image = _jitter(image, rng)
        if rng.random() < GREY:
            image = F.rgb_to_grayscale(image, num_output_channels=3)
        if rng.random() < self.blur:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*self.radius)))
        if self.solarise and rng.random() < self.solarise:
            image = F.solarize(image, SOLARISE_FROM)
        return image


def _jitter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change brightness, contrast, saturation and hue in a random order."""
    changes = (
        (F.adjust_brightness, rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS)),
        (F.adjust_contrast, rng.uniform(1 - CONTRAST, 1 + CONTRAST)),
        (F.adjust_saturation, rng.uniform(1 - SATURATION, 1 + SATURATION)),
        (F.adjust_hue, rng.uniform(-HUE, HUE)),
    )
    for number in rng.permutation(len(changes)):
        change, factor = changes[number]
        image = change(image, factor)
    return image
