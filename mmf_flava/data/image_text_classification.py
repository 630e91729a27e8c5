"""Dataset ``image_text_classification``: the user's own images, texts or both, with labels, for finetuning."""

import hashlib
import json
from typing import Any

import numpy as np
import torch
from mmf.common.registry import registry

from mmf_flava.config.dataset_base import BOTH
from mmf_flava.config.labelled_datasets import ImageTextClassificationConfig
from mmf_flava.data.annotations import parse_annotation
from mmf_flava.data.own_data import OwnData, OwnSplit
from mmf_flava.data.own_inputs import INPUTS
from mmf_flava.data.own_labels import to_tensor
from mmf_flava.data.own_splits import record_key
from mmf_flava.data.processor_calls import process_image
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record
from mmf_flava.data.records import record_units
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.stream import StreamDataset
from mmf_flava.data.stream_builder import StreamBuilder
from mmf_flava.errors import UserError

NAME = "image_text_classification"


class ImageTextClassificationDataset(StreamDataset):
    """Labelled images, texts or both. A sample has the fields of the processors, targets and sample_id."""

    HAS_LOSSES = False  # pretraining losses need masks

    def __init__(self, config: ImageTextClassificationConfig, dataset_type: str, split: OwnSplit):
        self.selection, self.records, self.targets = split.selection, split.selection.reader, split.targets
        self.classifier_inputs, self.target_scale = split.inputs, split.scale
        self.classes = list(split.classes) or None
        self._task, self._separator, self._augment = config.task, config.separator, config.augment
        self._names = None if self.targets else self.selection.names()
        super().__init__(NAME, config, dataset_type, [record_units(self.records)])

    def init_processors(self) -> None:
        """Build the processors of the inputs. The tokenizer of images without texts is not loaded."""
        for name, kind in zip(BOTH, INPUTS, strict=True):
            if kind not in self.classifier_inputs:
                self.config.processors[name] = None
        super().init_processors()

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record, fields = self.records.read(index), dict[str, Any]()
        if "image" in self.classifier_inputs:
            fields |= process_image(self.image_processor, record, rng, self.training and self._augment)
        if "text" in self.classifier_inputs:
            fields |= self.text_processor(self._texts(record))
        if self.targets:
            fields["targets"] = to_tensor(self.targets[index], self._task, len(self.classes or ()))
        return {**fields, "sample_id": record.key if self._names is None else self._names[index]}

    def _texts(self, record: Record) -> dict[str, str]:
        """Return the text of a record, and further texts as the second one. Images may have no text."""
        try:
            captions, _ = parse_annotation(record)
        except BadRecord as error:
            if error.reason != Reason.NO_CAPTION or "image" not in self.classifier_inputs:
                raise
            captions = [""]
        first, *others = captions
        return {"text": first} | ({"text_b": " ".join(others)} if others else {})

    def identifiers(self, index: int) -> dict[str, Any]:
        """Return the entry of a record in the rows of predictions: its ID as in the files."""
        return {"id": record_key(self.records, index) if self._names is None else self._names[index]}

    def format_for_prediction(self, report: Any) -> list[dict[str, Any]]:
        """Return a row for each sample of a batch for ``mmf_predict``: its ID, the prediction and the probabilities.

        The prediction is the name of a class, the names of all classes with a probability of at least 0.5, joined by
        ``separator``, or the value of a regression.
        """
        scores = torch.as_tensor(report["scores"]).float().cpu()
        if self.target_scale is not None:
            mean, deviation = self.target_scale
            values = (scores.flatten().double() * deviation + mean).tolist()
            return [
                {"id": key, "prediction": float(f"{v:.6g}")} for key, v in zip(report["sample_id"], values, strict=True)
            ]
        probabilities = scores.sigmoid() if self._task == "multi_label" else scores.softmax(dim=-1)
        names = self.classes or [str(label) for label in range(scores.shape[1])]
        rows = []
        for key, values in zip(report["sample_id"], probabilities.tolist(), strict=True):
            chosen = [name for name, value in zip(names, values, strict=True) if value >= 0.5]
            best = names[values.index(max(values))]
            prediction = self._separator.join(chosen) if self._task == "multi_label" else best
            columns = {f"probability_{name}": round(value, 4) for name, value in zip(names, values, strict=True)}
            rows.append({"id": key, "prediction": prediction, **columns})
        return rows

    def fingerprint(self) -> str:
        """Return a hash of the records, which of them belong to the split, and their targets."""
        base = self.selection.records
        digest = hashlib.sha256(records_sha256(base, (*IMAGE_EXTENSIONS, "cls", "json")).encode())
        digest.update(self.selection.indices.astype(np.int64).tobytes())
        digest.update(json.dumps([self.classes, self.classifier_inputs, list(self.targets)]).encode())
        return digest.hexdigest()


@registry.register_builder("image_text_classification")
class ImageTextClassificationBuilder(StreamBuilder):
    """Builder of the dataset ``image_text_classification``."""

    NAME = NAME
    CONFIG = ImageTextClassificationConfig

    def load_split(self, config: ImageTextClassificationConfig, dataset_type: str) -> StreamDataset | None:
        """Load the dataset of one split, and set the config keys that are left to the data.

        Return None for a split without data, and for a split that the run does not need.
        """
        try:
            data = OwnData.of_run(config, NAME)
            split = data.load(dataset_type)
        except UserError as error:
            if str(error).startswith(("dataset_config.", "model_config.")):
                raise
            raise UserError(f"dataset_config.{NAME}: {error}") from error
        return None if split is None else ImageTextClassificationDataset(data.config, dataset_type, split)
