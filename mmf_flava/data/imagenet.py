"""``imagenet``: images without text (the paper's ImageNet-1k, section 3.5), from class folders or shards."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmf.common.registry import registry

from mmf_flava.data import pictures
from mmf_flava.data.records import open_records
from mmf_flava.data.shards import Record
from mmf_flava.data.stream import StreamBuilder, StreamDataset


class ImageNetDataset(StreamDataset):
    """Images: fields image, image_for_codebook, image_patch_mask, targets (label or -1), sample_id.

    Pretraining uses no labels; probes do.
    """

    NEEDS = ("image_processor",)

    def __init__(self, config: Any, dataset_type: str, paths: Sequence[Path]):
        self.records = open_records(paths)
        # Class folders are sorted by class and cost the same in any order: shuffle them as one block.
        block = config.get("shuffle_block", 1024) if self.records.sequential else len(self.records)
        super().__init__("imagenet", config, dataset_type, len(self.records), block)

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records.read(index)
        picture = pictures.decode(record, self.image_processor.decode_size)
        return {
            **self.image_processor({"image": picture, "rng": rng, "train": self.training}),
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
    """Builds ``imagenet``; no further keys."""

    NAME = "imagenet"

    def open(self, config: Any, dataset_type: str, paths: list[Path]) -> ImageNetDataset:
        return ImageNetDataset(config, dataset_type, paths)
