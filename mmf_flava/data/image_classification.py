"""Dataset ``image_classification``: labelled images for zero-shot classification, linear probes and finetuning.

The images come from a published dataset that torchvision supports (``source``), or from class folders, shards or image
lists, as for ``imagenet``.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmf.common.registry import registry

from mmf_flava.config.labelled_datasets import ImageClassificationConfig
from mmf_flava.config.registered_models import MODELS
from mmf_flava.data.annotations import NO_LABEL, read_label
from mmf_flava.data.class_labels import (
    check_labels,
    check_num_labels,
    configured_classes,
    find_classes,
    model_labels,
    number_as_classifier,
    number_classes,
)
from mmf_flava.data.image_sets.catalogue import download_image_set, open_image_set
from mmf_flava.data.image_stream import build_shard_cache, image_folder
from mmf_flava.data.order import Order
from mmf_flava.data.processor_calls import process_image
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record, Records, record_boundary
from mmf_flava.data.records import ConcatRecords, open_records, record_units, split_readers
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.stream import StreamDataset
from mmf_flava.data.stream_builder import StreamBuilder
from mmf_flava.errors import UserError


class ImageClassificationDataset(StreamDataset):
    """Labelled images. A sample has the fields image, targets (label or -1) and sample_id.

    By default, the train split uses the evaluation transform and the order of the files, as required for linear
    probes. With ``augment: true``, it uses random crops and is reshuffled every epoch.

    Args:
        classes: class names in label order; None if the dataset has none.
        own_classes: whether ``classes`` comes from this split, because the train split has no class names.

    Attributes:
        classes: class names in label order; None if the dataset has none.
    """

    HAS_LOSSES = False  # pretraining losses need masks

    def __init__(
        self,
        config: ImageClassificationConfig,
        dataset_type: str,
        records: Records,
        classes: Sequence[str] | None = None,
        own_classes: bool = False,
    ):
        self.records, self._own_classes = records, own_classes
        self.classes = None if classes is None else list(classes)
        self._class_numbers = None if classes is None else {name: number for number, name in enumerate(classes)}
        self._model_labels = model_labels()
        self._num_classes = len(self.classes) if self.classes else self._model_labels
        super().__init__("image_classification", config, dataset_type, [record_units(records)])
        if self.training and not config.augment:
            self.training = False
            self.order = Order(self.size, self.seed, shuffle=False)

    def init_processors(self) -> None:
        """Build the processors. Models of others need the tokenizer of prompts only if they are evaluated zero-shot."""
        config = registry.get("config", default=None, no_warning=True) or {}
        zero_shot = (config.get("evaluation") or {}).get("zero_shot")
        if not (config.get("model") in (None, *MODELS) or zero_shot):
            self.config.processors.text_processor = None
        super().init_processors()

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records.read(index)
        fields = process_image(self.image_processor, record, rng, self.training)
        # a tensor, so that MMF's collator can batch it
        return {**fields, "targets": torch.tensor(self._label(record)), "sample_id": record.key}

    def _label(self, record: Record) -> int:
        """Return a record's label, or -1 if it is missing. Raises BadRecord if a label is required or invalid."""
        label = read_label(record, self._class_numbers)
        if label == NO_LABEL and self._labels_required:
            raise BadRecord(Reason.NO_LABEL, f"{record.key}: no label", record.key)
        if self._num_classes is not None and label >= self._num_classes:
            message = f"{record.key}: label {label} is not in 0..{self._num_classes - 1} ({self._num_classes} classes)"
            raise BadRecord(Reason.UNKNOWN_LABEL, message, record.key)
        return label

    @cached_property
    def _labels_required(self) -> bool:
        """Whether every record must have a label: in training, and if a classifier is evaluated on a labelled split."""
        if self.dataset_type == "train" or self._model_labels is None:
            return self.dataset_type == "train"
        try:
            with record_boundary("record 0"):
                return read_label(self.records.read(0), self._class_numbers) != NO_LABEL
        except BadRecord:
            return True

    def check_labels(self) -> None:
        """Check the number of classes and the labels of class folders and lists.

        Raises:
            UserError: the model has fewer labels than the dataset has classes, or a label is missing or invalid.
        """
        expected = self._model_labels
        if self.classes is not None:
            check_num_labels(self.classes, expected)
        if self._own_classes and self.classes is not None and expected not in (None, len(self.classes)):
            raise UserError(
                f"The class numbers of the {len(self.classes)} class folders are unknown: the train split has class "
                f"numbers without names, and model_config.flava_classification.num_labels is {expected}. List "
                "all class names in label order in the config key classes."
            )
        check_labels(self.records, self.classes, self._num_classes, required=self.dataset_type == "train")

    def format_for_prediction(self, report: Any) -> list[dict[str, Any]]:
        """Return a row for each image of a batch for ``mmf_predict``: its key, the predicted class and the probability.

        The class is a number if neither the dataset nor the weights have class names.
        """
        confidences, labels = torch.as_tensor(report["scores"]).float().cpu().softmax(dim=-1).max(dim=-1)
        rows = zip(report["sample_id"], labels.tolist(), confidences.tolist(), strict=True)
        names = self.classes or range(labels.max() + 1)
        return [{"id": key, "prediction": names[label], "confidence": round(p, 4)} for key, label, p in rows]

    def fingerprint(self) -> str:
        """Return a hash of the images and labels.

        All labels are hashed if they can be read without the images, otherwise the labels of 64 records.
        """
        digest = hashlib.sha256(records_sha256(self.records, (*IMAGE_EXTENSIONS, "cls", "json")).encode())
        digest.update(json.dumps(self.classes).encode())
        for reader in split_readers(self.records):
            digest.update(json.dumps(getattr(reader, "labels", None)).encode())
        return digest.hexdigest()


def _common_classes(names_by_path: Sequence[Sequence[str]]) -> list[str] | None:
    """Return the class names that all paths of a split share, or None if a path has no class names."""
    known = [list(names) for names in names_by_path if names]
    if any(names != known[0] for names in known):
        raise UserError(
            "the paths of a split have different classes. Use paths with the same classes, or list all class "
            "names in the config key classes."
        )
    return known[0] if known and len(known) == len(names_by_path) else None


def _split_location(path: str | Path) -> tuple[Path, str]:
    """Split the path ``data_dir/split`` of a published dataset into its folder and the name of the split."""
    return Path(path).parent, Path(path).name


@registry.register_builder("image_classification")
class ImageClassificationBuilder(StreamBuilder):
    """Builder of the dataset ``image_classification``."""

    NAME = "image_classification"
    CONFIG = ImageClassificationConfig

    def build_files(self, config: ImageClassificationConfig, dataset_type: str) -> None:
        """Download a split of a published dataset if ``download`` is set, or build demo data if ``build`` is demo."""
        if config.source is None:
            super().build_files(config, dataset_type)
        elif config.download:
            for path in self.list_paths(config, dataset_type):
                download_image_set(config.source, *_split_location(path))

    def load_split(self, config: ImageClassificationConfig, dataset_type: str) -> StreamDataset | None:
        """Load the dataset of one split. Errors of published datasets name the config key to change."""
        paths = self.list_paths(config, dataset_type)
        if config.source is None or not paths:
            dataset = super().load_split(config, dataset_type)
            if isinstance(dataset, ImageClassificationDataset):
                try:
                    dataset.check_labels()
                except UserError as error:
                    raise UserError(f"dataset_config.{self.NAME}.splits.{dataset_type}: {error}") from error
            return dataset
        try:
            return self.open_split(config, dataset_type, paths)
        except UserError as error:
            raise UserError(f"dataset_config.{self.NAME}.{error}") from error

    def open_split(
        self, config: ImageClassificationConfig, dataset_type: str, paths: list[str | Path]
    ) -> ImageClassificationDataset:
        if config.source is not None:
            readers = [open_image_set(config.source, *_split_location(path)) for path in paths]
            records: Records = readers[0] if len(readers) == 1 else ConcatRecords(readers)
            classes = _common_classes([getattr(reader, "classes", None) or [] for reader in readers])
            return ImageClassificationDataset(config, dataset_type, records, classes)
        folder = image_folder(config)
        records = open_records(paths, build_shard_cache(self.NAME, config), folder, config.columns)
        classes = configured_classes(config, self.NAME)
        classes = number_as_classifier(classes or self._training_classes(config, folder), classes is not None)
        own_classes = classes is None and bool(self.list_paths(config, "train"))
        if classes is None:
            classes = _common_classes(find_classes(paths, folder, config.columns))
        if classes is not None:
            number_classes(records, classes)
        return ImageClassificationDataset(config, dataset_type, records, classes, own_classes)

    def _training_classes(self, config: ImageClassificationConfig, images: Path | None) -> list[str] | None:
        """Return the class names of the train split; None if it has no names or is not on this machine."""
        paths = self.list_paths(config, "train")
        return _common_classes(find_classes(paths, images, config.columns)) if paths else None
