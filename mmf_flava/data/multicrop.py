"""The image processor of DINO, which returns augmented global and local crops of an image.

Shapes: S, s = height and width of a global and of a local crop in pixels, n = number of local crops.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmf_flava.config.processors import IMAGENET, MulticropConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.data.crops import CROP_ASPECT, Crops, sample_crop_box
from mmf_flava.data.initial_processors import InitialProcessors
from mmf_flava.data.photometric import Photometric


class MulticropProcessor:
    """Processor that returns two global and n local crops of an image, each augmented independently of the others.

    The crops are sampled as in torchvision's ``RandomResizedCrop`` and resized with bicubic interpolation. The
    probabilities of the augmentations are the values published with DINO (Caron et al., 2021, section 3.1 and the
    released code): every crop is flipped with probability 0.5, jittered with 0.8 and converted to grey with 0.2. Blur:
    always on the first global crop, with probability 0.1 on the second, and with 0.5 on local crops. Solarisation: with
    probability 0.2 on the second global crop only.

    All random numbers are drawn from the generator of the sample, first those of the global crops, so that the crops do
    not depend on the process and the global crops do not depend on the number of local crops.

    Args:
        config: settings, see ``MulticropConfig``.
        initial: source of the default mean and std.

    Attributes:
        image_size: size of a global crop, S.
        has_crops: whether crops are returned, see ``without_crops``.
    """

    def __init__(self, config: Any, initial: InitialProcessors):
        params = parse_section(MulticropConfig, config, "flava_multicrop")
        self.image_size, self.local_size, self.num_local = params.global_size, params.local_size, params.num_local
        self.global_scale, self.local_scale = tuple(params.global_scale), tuple(params.local_scale)
        self.max_pixels = params.max_pixels
        self.has_crops = True
        radius = (params.blur_radius[0], params.blur_radius[1])
        self.global_augmentations = (Photometric(radius, blur=1.0), Photometric(radius, blur=0.1, solarise=0.2))
        self.local_augmentation = Photometric(radius, blur=0.5)
        self.mean, self.std = initial.statistics(params.global_size, *params.statistics(), IMAGENET)
        mean, std = np.array(self.mean, dtype=np.float32), np.array(self.std, dtype=np.float32)
        self._scale = torch.from_numpy(1 / (255 * std))[:, None, None]
        self._shift = torch.from_numpy(-mean / std)[:, None, None]
        # as in ImageProcessor: the smallest crop of a JPEG that is decoded at a reduced size still has enough pixels
        sizes = [(self.image_size, self.global_scale)] + [(self.local_size, self.local_scale)] * (self.num_local > 0)
        self.decode_size = max(math.ceil(side / math.sqrt(scale[0] * CROP_ASPECT[0])) for side, scale in sizes)

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the crops of an image.

        Args:
            item: {"image": uint8 pixels (height, width, 3) or another input of ``to_pixels``, "rng": numpy Generator,
                "train": bool}.

        Returns:
            A dict with the following float tensors, all normalised:
                crops_global: (2, 3, S, S).
                crops_local: (n, 3, s, s); missing if n is 0.
                image: the entire image, resized to (3, S, S); missing in training.
        """
        rng, crops, sample = item["rng"], Crops(item["image"]), {}
        if self.has_crops:
            views = self._crops(crops, rng, self.image_size, self.global_scale, self.global_augmentations)
            sample["crops_global"] = views
        if self.has_crops and self.num_local:
            local = [self.local_augmentation] * self.num_local
            sample["crops_local"] = self._crops(crops, rng, self.local_size, self.local_scale, local)
        if not (self.has_crops and item["train"]):
            pixels = crops.resize(self.image_size, Image.Resampling.BICUBIC)
            sample["image"] = self._normalise(pixels.to(torch.float32, memory_format=torch.contiguous_format))
        return sample

    def without_crops(self) -> "MulticropProcessor":
        """Return a copy that returns only the field ``image``, for evaluations on entire images."""
        processor = copy.copy(self)
        processor.has_crops = False
        return processor

    def pixels(self, image_3HW: Tensor) -> np.ndarray:
        """Convert a normalised crop back to (H, W, 3) uint8 pixels, for display."""
        pixels = (image_3HW - self._shift) / self._scale
        return pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()

    def _crops(
        self,
        crops: Crops,
        rng: np.random.Generator,
        side: int,
        scale: Sequence[float],
        augmentations: Sequence[Photometric],
    ) -> Tensor:
        """Return one crop per augmentation, (number of augmentations, 3, side, side)."""
        views = torch.empty(len(augmentations), 3, side, side)
        for view, augment in zip(views, augmentations, strict=True):
            box = sample_crop_box(rng, *crops.size, scale)
            image = augment(crops.view_image(box, side, Image.Resampling.BICUBIC), rng)
            view.numpy()[:] = np.asarray(image).transpose(2, 0, 1)
        return self._normalise(views)

    def _normalise(self, pixels: Tensor) -> Tensor:
        return pixels.mul_(self._scale).add_(self._shift)
