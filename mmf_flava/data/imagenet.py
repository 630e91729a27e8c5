"""Dataset ``imagenet``: images without text, such as ImageNet-1k (paper section 3.5)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmf.common.registry import registry

from mmf_flava.config.datasets import ImageNetConfig
from mmf_flava.data.annotations import parse_label
from mmf_flava.data.class_labels import configured_classes, find_classes, number_classes
from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.stream_builder import StreamBuilder


class ImageNetDataset(ImageStreamDataset):
    """Images with the fields of their image processor (or image_codes), targets, sample_id.

    ``targets`` is the label or -1. Pretraining uses no labels; linear probes do. In all splits, class
    folders are numbered in the order of the config key ``classes`` or, if it is null, of the train split's folders.
    """

    def __init__(self, config: ImageNetConfig, dataset_type: str, paths: Sequence[str | Path]):
        super().__init__("imagenet", config, dataset_type, paths)
        train = StreamBuilder.list_paths(config, "train")
        classes = configured_classes(config, "imagenet") or _class_folders(train) or _class_folders(paths)
        if classes:
            number_classes(self.records, classes)
        self._class_numbers = {name: number for number, name in enumerate(classes)}

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records.read(index)
        return {
            **self._image_fields(record, index, rng),
            "targets": parse_label(record, self._class_numbers),
            "sample_id": record.key,
        }


def _class_folders(paths: Sequence[str | Path]) -> list[str]:
    """Return the names of the class folders of a split. If they differ between paths, all names are sorted."""
    names = [classes for classes in find_classes([path for path in paths if Path(path).is_dir()]) if classes]
    if all(classes == names[0] for classes in names):
        return names[0] if names else []
    return sorted({name for classes in names for name in classes})


@registry.register_builder("imagenet")
class ImageNetBuilder(StreamBuilder):
    """Builder of the dataset ``imagenet``."""

    NAME = "imagenet"
    CONFIG = ImageNetConfig

    def open_split(self, config: ImageNetConfig, dataset_type: str, paths: list[str | Path]) -> ImageNetDataset:
        return ImageNetDataset(config, dataset_type, paths)
