"""The user's own data of a run: splits, classes, targets and inputs, and the config keys that they determine."""

from dataclasses import dataclass, replace
from typing import Any

from mmf.common.registry import registry
from omegaconf import open_dict

from mmf_flava.compat import mmf_api
from mmf_flava.config.dataset_base import BOTH
from mmf_flava.config.labelled_datasets import ImageTextClassificationConfig
from mmf_flava.data.class_labels import (
    CLASSIFIER,
    check_num_labels,
    configured_classes,
    model_labels,
    number_as_classifier,
)
from mmf_flava.data.image_stream import build_shard_cache, image_folder
from mmf_flava.data.own_inputs import INPUTS, find_inputs, require_inputs
from mmf_flava.data.own_labels import TASKS, ClassCounts, SplitLabels, class_warnings, find_classes, value_scale
from mmf_flava.data.own_splits import OwnSplits, Selection
from mmf_flava.data.record import Records
from mmf_flava.data.records import open_records
from mmf_flava.data.run_processors import stored_classes, stored_classifier
from mmf_flava.data.stream_builder import run_trains
from mmf_flava.errors import UserError, join_first

STATE = "flava_own_data"  # key in MMF's registry


@dataclass(frozen=True)
class OwnSplit:
    """A split of the user's own data.

    Attributes:
        selection: the records.
        targets: target of each record, see ``SplitLabels.targets``; empty if the split has no labels.
        inputs: image, text or both.
        classes: class names in label order; empty for a regression.
        scale: mean and standard deviation of the values of a regression; otherwise None.
    """

    selection: Selection
    targets: list[Any]
    inputs: tuple[str, ...]
    classes: list[str]
    scale: tuple[float, float] | None


class OwnData:
    """The splits of the user's own data, with one numbering of the classes.

    Args:
        config: the config of the dataset.
        name: the dataset's name.
    """

    def __init__(self, config: ImageTextClassificationConfig, name: str) -> None:
        run = registry.get("config", default=None, no_warning=True) or {}
        self.predicts = bool((run.get("evaluation") or {}).get("predict"))
        self.trains = run_trains() and not self.predicts
        self.run_type = str(run.get("run_type") or "train")
        self.name, self.where = name, f"dataset_config.{name}"
        self.splits = OwnSplits(config, name, self._open, self.trains)
        self.config = replace(config, data_dir=str(self.splits.folder))
        self._labels: dict[str, SplitLabels] = {}
        self._classes: list[str] | None = None
        self._scale: tuple[float, float] | None = None
        self._inputs: tuple[str, ...] = ()

    @classmethod
    def of_run(cls, config: ImageTextClassificationConfig, name: str) -> "OwnData":
        """Return the data of the current run, which are opened once for all splits."""
        run, section = registry.get("config", default=None, no_warning=True), repr(config)
        known, known_section, current = registry.get(STATE, default=None, no_warning=True) or (None, None, None)
        if not isinstance(current, cls) or run is None or known is not run or known_section != section:
            current = cls(config, name)
            registry.register(STATE, (run, section, current))
        return current

    def _open(self, paths: Any) -> Records:
        config = self.config
        cache, folder = build_shard_cache(self.name, config), image_folder(config)
        return open_records(paths, cache, folder, config.columns, images_required=False)

    def load(self, split: str) -> OwnSplit | None:
        """Return a split, and set what the run's config leaves to the data. Return None for a split without data.

        A run that does not train needs only the splits that ``run_type`` names.

        Raises:
            UserError: the files are invalid, labels are missing or unknown, or the classifier does not fit the data.
        """
        words = {"val": ("val",), "test": ("test", "inference", "predict")}.get(split, ())
        if not self.trains and not any(word in self.run_type for word in words):
            return None
        selection = self.splits.select(split)
        if selection is None:
            return None
        if not len(selection):
            change = "decrease val_share" if split == "train" else f"increase {split}_share"
            raise UserError(
                f"{selection.source}: none of its {len(selection.records):,} records is in the split {split}; equal "
                f"images are in one split. Add records, or {change} of {self.where}."
            )
        self._check_inputs(selection)
        classes, scale = self._find_classes(), self._find_scale()
        if self.predicts:
            self._set_config(classes, None)
            return OwnSplit(selection, [], self._inputs, classes, scale)
        labels = self._read_labels(split)
        counts = ClassCounts(labels, classes)
        if split == "train":
            labels.require()
            self._set_config(classes, counts.factors())
        else:
            self._set_config(classes, None)
        targets = labels.targets(classes, scale)
        self._log(split, counts)
        return OwnSplit(labels.selection, targets, self._inputs, classes, scale)

    def _check_inputs(self, selection: Selection) -> None:
        """Determine the inputs by the classifier or the first split, and check that another split has them."""
        stored = stored_classifier()
        if not self._inputs:
            wanted = [kind for name, kind in zip(BOTH, INPUTS, strict=True) if self.config.processors.get(name)]
            self._inputs = (stored and stored.classifier_inputs) or find_inputs(selection.records, wanted)
            if not self._inputs:
                require_inputs(selection.records, selection.source, wanted[:1], "the model needs")
            mmf_api.log(f"{self.name}: the inputs are {' and '.join(f'{kind}s' for kind in self._inputs)}.")
        require_inputs(selection.records, selection.source, self._inputs, "the classifier needs")

    def _read_labels(self, split: str) -> SplitLabels:
        if split not in self._labels:
            selection = self.splits.select(split)
            assert selection is not None
            self._labels[split] = SplitLabels(selection, self.config, self.where)
        return self._labels[split]

    def _find_classes(self) -> list[str]:
        """Return the classes: those of the config, of the classifier that is evaluated, or of the training records.

        Splits that share their records by content also share their classes.
        """
        if self._classes is None:
            self._classes = [] if self.config.task == "regression" else self._choose_classes()
        return self._classes

    def _choose_classes(self) -> list[str]:
        listed, stored = configured_classes(self.config, self.name), stored_classes()
        if listed is None and stored is not None and not self.trains:
            return list(stored)
        found = listed
        if found is None:
            labels = [self._read_labels(split) for split in ("train", *sorted(self._shared)) if self._has(split)]
            if not labels:
                raise UserError(f"{self.where}.classes: the classes are unknown without a train split. List them.")
            labels[0].require()
            found = find_classes(labels, self.where)
            if self.trains:
                for warning in class_warnings(found, len(labels[0].values)):
                    mmf_api.log(f"Warning: {self.name}: {warning}")
        return number_as_classifier(found, listed is not None) or found

    @property
    def _shared(self) -> set[str]:
        """The splits that share the records of the train split."""
        self.splits.select("train")
        return self.splits.by_content - {"train"}

    def _has(self, split: str) -> bool:
        selection = self.splits.select(split)
        return selection is not None and len(selection) > 0

    def _find_scale(self) -> tuple[float, float] | None:
        if self.config.task == "regression" and self._scale is None:
            stored = stored_classifier()
            self._scale = stored.target_scale if stored is not None else None
            if self._scale is None:
                if not self._has("train"):
                    raise UserError(f"{self.where}: the scale of the values is unknown without a train split. Add it.")
                labels = self._read_labels("train")
                labels.require()
                self._scale = value_scale(labels.values)
        return self._scale

    def _set_config(self, classes: list[str], factors: list[float] | None) -> None:
        """Set the number of labels, the loss and the metrics of the run's config that are null.

        Raises:
            UserError: the config has another number of labels.
        """
        run = registry.get("config", default=None, no_warning=True)
        if run is None:
            return
        task, labels = TASKS[self.config.task], len(classes) or 1
        registry.register(f"{self.name}_num_final_outputs", labels)  # read by MMF's models
        if run.evaluation.get("metrics", []) is None:
            run.evaluation.metrics = list(task.metrics)
        if run.model != CLASSIFIER:
            if factors is not None:
                raise UserError(f"{self.where}.class_weights needs model: {CLASSIFIER}. Set it to null.")
            return
        check_num_labels(classes, model_labels(), exact=True)
        section = run.model_config[CLASSIFIER]
        with open_dict(section):
            if section.get("num_labels") is None:
                section.num_labels = labels
            if section.get("losses") is None:
                weighted = {"type": task.weighted_loss, "params": {"factors": factors}}
                section.losses = [{"type": task.loss} if factors is None else weighted]
        if factors is not None and not any(loss.get("type") == task.weighted_loss for loss in section.losses):
            raise UserError(
                f"{self.where}.class_weights has no effect on the losses in model_config.{CLASSIFIER}.losses. Set that "
                "key to null, or class_weights."
            )

    def _log(self, split: str, counts: ClassCounts) -> None:
        for message in counts.labels.messages:
            mmf_api.log(f"Warning: {message}")
        mmf_api.log(f"{self.name}, {split}: {counts.describe()} ({counts.labels.selection.source}).")
        if missing := counts.missing():
            counted = f" ({len(missing):,} classes)" if len(missing) > 5 else ""
            mmf_api.log(f"Warning: {self.name}, {split}: no record of {join_first(missing, 5)}{counted}.")
