"""Labels of the splits of the user's own data: classes, targets, and what the log says about them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, pstdev
from typing import Any

import torch

from mmf_flava.config.labelled_datasets import ImageTextClassificationConfig
from mmf_flava.data.annotations import NO_LABEL, to_label
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.label_values import MISSING, class_name, class_names_of, number, similar_names, sort_classes
from mmf_flava.data.own_inputs import vanished_images
from mmf_flava.data.own_splits import Selection
from mmf_flava.data.records import split_readers
from mmf_flava.errors import UserError, join_first

MAX_LISTED = 20  # classes with their counts in a message


@dataclass(frozen=True)
class Task:
    """Loss, loss with class weights, and metrics of a value of ``task``."""

    loss: str
    weighted_loss: str
    metrics: tuple[str, ...]


TASKS = {
    "single_label": Task("cross_entropy", "flava_weighted_cross_entropy", ("accuracy", "macro_f1")),
    "multi_label": Task("logit_bce", "flava_weighted_logit_bce", ("multilabel_micro_f1",)),
    "regression": Task("mse", "", ("pearson", "spearman")),
}


class SplitLabels:
    """The labels of the records of a split.

    Args:
        selection: the records.
        where: config key of the dataset, for messages.

    Attributes:
        selection: the labelled records; all records if none is labelled.
        values: a class name, a list of class names or a number for each record; empty if none is labelled.
        messages: warnings about records that are left out, for the log.

    Raises:
        UserError: no label is valid.
    """

    def __init__(self, selection: Selection, config: ImageTextClassificationConfig, where: str) -> None:
        self.config, self.where = config, where
        parsed, invalid = [], dict[int, str]()
        for position, label in enumerate(selection.values("label")):
            try:
                parsed.append(self._parse(label))
            except ValueError as error:
                parsed.append(None)
                invalid[position] = str(error)
        missing = [n for n, value in enumerate(parsed) if value is None and n not in invalid]
        vanished = []
        if config.processors.get("image_processor"):
            flags = vanished_images(selection.records)
            vanished = [position for position, index in enumerate(selection.indices) if flags[index]]
        if len(vanished) < len(parsed):  # otherwise, reading them raises the error
            for position in vanished:
                parsed[position] = None
        labelled = [value is not None for value in parsed]
        self.messages: list[str] = []
        if invalid and not any(labelled):
            key, reason = selection.keys([*invalid][:1])[0], next(iter(invalid.values()))
            raise UserError(
                f"{selection.source}: no label is valid for {where}.task={config.task}; the label of {key} {reason}. "
                "Correct the labels, or set another task."
            )
        for count, keys, problem in (
            (len(invalid), [*invalid], "an invalid label"),
            (len(missing), missing, "no label"),
            (len(vanished), vanished, "an image file that does not exist"),
        ):
            if count and any(labelled):
                examples = join_first(selection.keys(keys[:4]))
                size = f"{count:,} of {len(parsed):,} records"
                self.messages.append(f"{selection.source}: {size} have {problem} and are left out: {examples}.")
        self.selection = selection.keep(labelled) if any(labelled) else selection
        self.values = [value for value in parsed if value is not None]

    def _parse(self, label: Any) -> Any:
        if self.config.task == "regression":
            return number(label)
        if self.config.task == "multi_label":
            return class_names_of(label, self.config.separator)
        return class_name(label)

    def names(self) -> list[str]:
        """Return the class names of all labels, with repetitions."""
        return [name for value in self.values for name in (value if isinstance(value, list) else [value])]

    def targets(self, classes: Sequence[str], scale: tuple[float, float] | None) -> list[Any]:
        """Return the targets: class numbers, lists of class numbers, or values in units of ``scale`` (mean, std).

        Raises:
            UserError: a class is not in ``classes``.
        """
        if scale is not None:
            return [(value - scale[0]) / scale[1] for value in self.values]
        numbers, unknown = {name: number for number, name in enumerate(classes)}, Counter[str]()
        targets: list[Any] = []
        for value in self.values:
            found = []
            for name in value if isinstance(value, list) else [value]:
                label = numbers.get(name, NO_LABEL)
                if label == NO_LABEL and self.config.classes is not None:  # listed classes may be given by number
                    with suppress(ValueError):
                        label = to_label(name, numbers)
                if not 0 <= label < len(classes):
                    unknown[name] += 1
                found.append(label)
            targets.append(found if isinstance(value, list) else found[0])
        if unknown:
            shown = [f"{name} ({count:,} records)" for name, count in unknown.most_common()]
            raise UserError(
                f"{self.selection.source}: unknown classes: {join_first(shown)}. The classes are "
                f"{join_first(list(classes), 5)}. Correct the labels, or list all classes in {self.where}.classes."
            )
        return targets

    def require(self) -> None:
        """Raise UserError if no record has a label."""
        if self.values:
            return
        for reader in split_readers(self.selection.records):
            if isinstance(reader, ImageList):
                reader.require("label")
        raise UserError(
            f"{self.selection.source}: no record has a label. Add a column with labels, or sort the images into a "
            "folder for each class."
        )


def find_classes(labels: Sequence[SplitLabels], where: str) -> list[str]:
    """Return the classes in the data in label order.

    Raises:
        UserError: there is only one class.
    """
    classes = sort_classes(name for split in labels for name in split.names())
    task = labels[0].config.task
    if len(classes) < (2 if task == "single_label" else 1):
        found = f"all labels are '{classes[0]}'" if classes else "no record belongs to a class"
        raise UserError(
            f"{labels[0].selection.source}: {found}. A classifier needs two classes: correct the labels, or list all "
            f"classes in {where}.classes."
        )
    return classes


def class_warnings(classes: Sequence[str], records: int) -> list[str]:
    """Return warnings about classes that may be an error of the data.

    Args:
        records: number of labelled training records.
    """
    warnings = []
    if similar := similar_names(classes):
        groups = [" and ".join(map(repr, group)) for group in similar]
        warnings.append(f"{join_first(groups)} are different classes. If they are the same, correct the labels.")
    if missing := [repr(name) for name in classes if name.casefold() in MISSING]:
        warnings.append(f"{join_first(missing)} is a class. If it means that there is no label, leave the label empty.")
    if 2 * len(classes) > records > 0:
        warnings.append(
            f"{len(classes):,} classes for {records:,} training records. If the labels are numbers to predict, set "
            "task: regression; if another column has the classes, name it by columns: {label: NAME}."
        )
    return warnings


@dataclass(frozen=True)
class ClassCounts:
    """The number of records of each class in a split, or the values of a regression."""

    labels: SplitLabels
    classes: Sequence[str]

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Class name -> number of records."""
        counts = Counter(self.labels.names())
        if not counts.keys() <= {*self.classes}:  # numbers of classes that are listed in the config
            targets = self.labels.targets(self.classes, None)
            numbers = [label for value in targets for label in (value if isinstance(value, list) else [value])]
            counts = Counter(self.classes[label] for label in numbers)
        return {name: counts[name] for name in self.classes}

    def describe(self) -> str:
        """Return the counts as text for the log."""
        values, size = self.labels.values, f"{len(self.labels.selection):,} records"
        if not values:
            return f"{size} without labels"
        if self.labels.config.task == "regression":
            return f"{size}, values from {min(values):g} to {max(values):g}, mean {fmean(values):g}"
        if len(self.classes) > MAX_LISTED:
            counts = self.counts.values()
            return f"{size} of {len(self.classes):,} classes, {min(counts):,} to {max(counts):,} of each"
        return f"{size}: " + ", ".join(f"{name} {count:,}" for name, count in self.counts.items())

    def missing(self) -> list[str]:
        """Return the classes without records."""
        is_empty = self.labels.config.task == "regression" or not self.labels.values
        return [] if is_empty else [name for name, count in self.counts.items() if not count]

    def factors(self) -> list[float] | None:
        """Return the factors of the loss of each class by ``class_weights``; None if it is null.

        ``balanced`` gives every class the same total weight, so that the mean factor of a record is 1; with several
        classes per record, it gives the records in a class the same total weight as the others.

        Raises:
            UserError: ``class_weights`` names an unknown class.
        """
        given, where = self.labels.config.class_weights, f"{self.labels.where}.class_weights"
        if given is None:
            return None
        if isinstance(given, Mapping):
            names = {class_name(name): float(factor) for name, factor in given.items()}
            if unknown := [str(name) for name in names if name not in self.classes]:
                known = join_first(list(self.classes), 5)
                raise UserError(f"{where}: unknown class {join_first(unknown)}. The classes are {known}.")
            return [names.get(name, 1.0) for name in self.classes]
        total, counts = len(self.labels.values), self.counts
        if self.labels.config.task == "multi_label":
            return [(total - counts[name]) / counts[name] if 0 < counts[name] < total else 1.0 for name in self.classes]
        present = sum(1 for count in counts.values() if count)
        return [total / (present * counts[name]) if counts[name] else 1.0 for name in self.classes]


def value_scale(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation of the values of a regression; the latter is 1 if all values are equal."""
    deviation = pstdev(values)
    return fmean(values), deviation if deviation > 0 and math.isfinite(deviation) else 1.0


def to_tensor(target: Any, task: str, num_labels: int) -> torch.Tensor:
    """Return a target as a tensor: a class number, zeros and ones (num_labels,), or a value."""
    if task == "single_label":
        return torch.tensor(target)
    if task == "regression":
        return torch.tensor(target, dtype=torch.float32)
    found = torch.zeros(num_labels)
    found[target] = 1.0
    return found
