"""``image_classification``: labelled images for zero-shot classification, linear probes and finetuning.

The images come from a published dataset that torchvision supports (``source``), or from class folders, shards or image
lists, as for ``imagenet``.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmf.common.registry import registry

from mmf_flava.data.annotations import parse_label
from mmf_flava.data.image_decoding import decode_image
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.image_sets.catalogue import download_image_set, open_image_set
from mmf_flava.data.image_stream import build_shard_cache
from mmf_flava.data.mixture import read_path_weights
from mmf_flava.data.order import Order
from mmf_flava.data.record import IMAGE_EXTENSIONS, Records
from mmf_flava.data.records import ConcatRecords, open_records
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.stream import StreamBuilder, StreamDataset
from mmf_flava.errors import UserError


class ImageClassificationDataset(StreamDataset):
    """Labelled images: fields image, targets (label or -1), sample_id.

    By default the train split uses the evaluation transform and the order of the files, as linear probes need it. With
    ``augment: true`` it uses random crops and is reshuffled every epoch.

    Attributes:
        classes: class names in label order; None if the dataset has none.
    """

    REQUIRED_PROCESSORS = ("image_processor",)
    HAS_LOSSES = False  # pretraining losses need masks

    def __init__(self, config: Any, dataset_type: str, records: Records):
        self.records = records
        self.classes: list[str] | None = _class_names(records)
        block = config.get("shuffle_block", 1024) if records.sequential else len(records)
        super().__init__("image_classification", config, dataset_type, len(records), block)
        if self.training and not config.get("augment", False):
            self.training = False
            self.order = Order(self.size, self.seed, shuffle=False, block_size=block)

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records.read(index)
        image = decode_image(record, self.image_processor.decode_size if self.training else None)
        view = self.image_processor({"image": image, "rng": rng, "train": self.training})
        # a tensor, so that MMF's own trainer can batch it
        return {"image": view["image"], "targets": torch.tensor(parse_label(record)), "sample_id": record.key}

    def fingerprint(self) -> str:
        """Return a hash of the images and labels.

        All labels are hashed if the reader stores them as a list, else those of 64 records.
        """
        digest = hashlib.sha256(records_sha256(self.records, (*IMAGE_EXTENSIONS, "cls", "json")).encode())
        digest.update(json.dumps(self.classes).encode())
        for reader in _readers(self.records):
            if isinstance(reader, ImageList):
                digest.update(reader.path.read_bytes())
            digest.update(json.dumps(getattr(reader, "labels", None)).encode())
        return digest.hexdigest()


def _readers(records: Records) -> list[Records]:
    return records.readers if isinstance(records, ConcatRecords) else [records]


def _class_names(records: Records) -> list[str] | None:
    """Return the class names of the records; None if any reader has none."""
    names_by_reader = [list(getattr(reader, "classes", None) or []) for reader in _readers(records)]
    known = [names for names in names_by_reader if names]
    if any(names != known[0] for names in known):
        raise UserError("the paths of a split have different classes. Use paths with the same classes.")
    return known[0] if len(known) == len(names_by_reader) else None


def _split_location(path: str | Path) -> tuple[Path, str]:
    """Return (data_dir, split). Splits of published datasets are listed like paths relative to data_dir."""
    return Path(path).parent, Path(path).name


@registry.register_builder("image_classification")
class ImageClassificationBuilder(StreamBuilder):
    """Builds ``image_classification``.

    Additional keys: ``source`` (a dataset of ``image_sets.catalogue``; ``splits`` then lists its splits. null: paths);
    ``download`` (download missing files with torchvision); ``augment``; ``image_dir``.
    """

    NAME = "image_classification"

    def build(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> None:
        """Download the split (``download``) or build the demo data (``build``) if configured."""
        if config.get("source") is None:
            super().build(config, dataset_type)
        elif config.get("download"):
            for path in self.list_paths(config, dataset_type):
                download_image_set(config.source, *_split_location(path))

    def load(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> StreamDataset | None:
        """Load a split as ``StreamBuilder.load`` does. Errors of published datasets name the config key to change."""
        paths = self.list_paths(config, dataset_type)
        if config.get("source") is None or not paths:
            return super().load(config, dataset_type)
        try:
            return self.open_split(config, dataset_type, paths)
        except UserError as error:
            raise UserError(f"dataset_config.{self.NAME}.{error}") from error

    def open_split(self, config: Any, dataset_type: str, paths: list[str | Path]) -> ImageClassificationDataset:
        if read_path_weights(config, self.NAME, dataset_type) is not None:
            raise UserError(f"splits.{dataset_type}: weights are only supported for pretraining. Use a list of paths.")
        if config.get("source") is not None:
            readers = [open_image_set(config.source, *_split_location(path)) for path in paths]
            records: Records = readers[0] if len(readers) == 1 else ConcatRecords(readers)
        else:
            images = config.get("image_dir")
            folder = None if images is None else Path(config.data_dir).expanduser() / Path(images).expanduser()
            records = open_records(paths, build_shard_cache(self.NAME, config), folder)
        return ImageClassificationDataset(config, dataset_type, records)
