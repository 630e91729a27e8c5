"""``image_classification``: labelled images for zero-shot classification, probes and finetuning.

They come from a published set that torchvision knows (``source``), or as ``imagenet``'s do from class folders, shards
or lists.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmf.common.registry import registry

from mmf_flava.data import pictures
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.image_sets.catalogue import download_set, open_set
from mmf_flava.data.image_stream import shard_cache
from mmf_flava.data.imagenet import class_number
from mmf_flava.data.mixture import path_weights
from mmf_flava.data.order import Order
from mmf_flava.data.record import IMAGE_EXTENSIONS, Records
from mmf_flava.data.records import Concatenated, open_records
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.stream import StreamBuilder, StreamDataset
from mmf_flava.errors import UserError


class ImageClassificationDataset(StreamDataset):
    """Labelled images: fields image, targets (label or -1), sample_id.

    The train split too is shown as evaluation sees it, whole pictures in the order of the files, as probes want it;
    with ``augment: true`` it gives random crops in an order that is shuffled anew every epoch.

    Attributes:
        classes: the set's own names in the labels' order; None where it has none.
    """

    NEEDS = ("image_processor",)
    HAS_LOSSES = False  # the losses of pretraining need masks

    def __init__(self, config: Any, dataset_type: str, records: Records):
        self.records = records
        self.classes: list[str] | None = _classes(records)
        block = config.get("shuffle_block", 1024) if records.sequential else len(records)
        super().__init__("image_classification", config, dataset_type, len(records), block)
        if self.training and not config.get("augment", False):
            self.training = False
            self.order = Order(self.size, self.seed, shuffle=False, block_size=block)

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records.read(index)
        picture = pictures.decode(record, self.image_processor.decode_size)
        view = self.image_processor({"image": picture, "rng": rng, "train": self.training})
        # a tensor, so that MMF's own trainer batches it as well
        return {"image": view["image"], "targets": torch.tensor(class_number(record)), "sample_id": record.key}

    def fingerprint(self) -> str:
        """Another one for other images or labels; of sets that keep no list of labels those of 64 records count."""
        found = hashlib.sha256(records_sha256(self.records, (*IMAGE_EXTENSIONS, "cls", "json")).encode())
        found.update(json.dumps(self.classes).encode())
        for reader in _readers(self.records):
            if isinstance(reader, ImageList):
                found.update(reader.path.read_bytes())
            found.update(json.dumps(getattr(reader, "labels", None)).encode())
        return found.hexdigest()


def _readers(records: Records) -> list[Records]:
    return records.readers if isinstance(records, Concatenated) else [records]


def _classes(records: Records) -> list[str] | None:
    """The names of all parts of the records; None where a part has none."""
    found = [list(getattr(reader, "classes", None) or []) for reader in _readers(records)]
    named = [names for names in found if names]
    if any(names != named[0] for names in named):
        raise UserError("the parts of a split have different classes; their labels would not mean the same.")
    return found[0] if len(named) == len(found) else None


def _place(path: str | Path) -> tuple[Path, str]:
    """(data_dir, split): a set's split is listed as a path below data_dir would be."""
    return Path(path).parent, Path(path).name


@registry.register_builder("image_classification")
class ImageClassificationBuilder(StreamBuilder):
    """Builds ``image_classification``.

    Further keys: ``source`` (a set of ``image_sets.catalogue``: ``splits`` then lists that set's splits; null: paths);
    ``download`` (let torchvision fetch what is not there); ``augment``; ``image_dir``.
    """

    NAME = "image_classification"

    def build(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> None:
        """Downloads the split, or makes the demo's data, where the YAML asks for it."""
        if config.get("source") is None:
            super().build(config, dataset_type)
        elif config.get("download"):
            for path in self.paths(config, dataset_type):
                download_set(config.source, *_place(path))

    def load(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> StreamDataset | None:
        """As ``StreamBuilder.load``; what is wrong with a published set is said by the key that mends it."""
        paths = self.paths(config, dataset_type)
        if config.get("source") is None or not paths:
            return super().load(config, dataset_type)
        try:
            return self.open(config, dataset_type, paths)
        except UserError as error:
            raise UserError(f"dataset_config.{self.NAME}.{error}") from error

    def open(self, config: Any, dataset_type: str, paths: list[str | Path]) -> ImageClassificationDataset:
        if path_weights(config, self.NAME, dataset_type) is not None:
            raise UserError(f"splits.{dataset_type}: weights are for pretraining; list the parts of this split.")
        if config.get("source") is not None:
            found = [open_set(config.source, *_place(path)) for path in paths]
            records: Records = found[0] if len(found) == 1 else Concatenated(found)
        else:
            images = config.get("image_dir")
            folder = None if images is None else Path(config.data_dir).expanduser() / Path(images).expanduser()
            records = open_records(paths, shard_cache(self.NAME, config), folder)
        return ImageClassificationDataset(config, dataset_type, records)
