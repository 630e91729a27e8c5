"""``imagenet``: images without text (the paper's ImageNet-1k, section 3.5), from class folders, shards or lists."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmf.common.registry import registry

from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.record import Record
from mmf_flava.data.stream import StreamBuilder


class ImageNetDataset(ImageStreamDataset):
    """Images: fields image, image_for_codebook or image_codes, image_patch_mask, targets (label or -1), sample_id.

    Pretraining uses no labels; probes do.
    """

    NEEDS = ("image_processor",)

    def __init__(self, config: Any, dataset_type: str, paths: Sequence[str | Path]):
        super().__init__("imagenet", config, dataset_type, paths)

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records.read(index)
        return {
            **self._image(record, index, rng),
            "targets": class_number(record),
            "sample_id": record.key,
        }


def class_number(record: Record) -> int:
    """The label in ``cls`` (a number in ASCII) or in ``json`` {"label": n}; -1 when there is none."""
    try:
        if "cls" in record.parts:
            return int(record.parts["cls"])
        return int(json.loads(record.parts["json"])["label"]) if "json" in record.parts else -1
    except (ValueError, TypeError, KeyError):
        return -1


@registry.register_builder("imagenet")
class ImageNetBuilder(StreamBuilder):
    """Builds ``imagenet``; further keys: ``image_dir``, ``views`` and ``codes``."""

    NAME = "imagenet"

    def open(self, config: Any, dataset_type: str, paths: list[str | Path]) -> ImageNetDataset:
        return ImageNetDataset(config, dataset_type, paths)
