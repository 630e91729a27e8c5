"""The ``imagenet`` dataset: images without text, such as ImageNet-1k (paper section 3.5)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmf.common.registry import registry

from mmf_flava.data.annotations import parse_label
from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.stream import StreamBuilder


class ImageNetDataset(ImageStreamDataset):
    """Images with the fields image, image_for_codebook or image_codes, image_patch_mask, targets, sample_id.

    ``targets`` is the label or -1. Pretraining uses no labels; linear probes do.
    """

    REQUIRED_PROCESSORS = ("image_processor",)

    def __init__(self, config: Any, dataset_type: str, paths: Sequence[str | Path]):
        super().__init__("imagenet", config, dataset_type, paths)

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records.read(index)
        return {
            **self._image_fields(record, index, rng),
            "targets": parse_label(record),
            "sample_id": record.key,
        }


@registry.register_builder("imagenet")
class ImageNetBuilder(StreamBuilder):
    """Builder of ``imagenet``. Additional keys: ``image_dir``, ``views`` and ``codes``."""

    NAME = "imagenet"

    def open_split(self, config: Any, dataset_type: str, paths: list[str | Path]) -> ImageNetDataset:
        return ImageNetDataset(config, dataset_type, paths)
