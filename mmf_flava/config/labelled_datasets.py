"""Config classes of the datasets with labels, for classification and regression."""

import math
from dataclasses import dataclass
from typing import Any

from mmf_flava.config.dataset_base import BOTH, RecordsConfig
from mmf_flava.config.ranges import ranged
from mmf_flava.errors import UserError


@dataclass
class LabelledConfig(RecordsConfig):
    """Config keys of the datasets with labels."""

    # class names in label order: a list, or a file in data_dir; null: the classes of the training split
    classes: Any = None
    # true: training uses random crops of the images, see processors.image_processor.params.crop_scale. In
    # image_classification, false also keeps the order of the files
    augment: bool = False

    def check(self, where: str) -> None:
        super().check(where)
        check_classes(self.classes, f"{where}.classes")
        if self.splits.weights("train") is not None:
            raise UserError(f"{where}.splits.train: weights are only supported for pretraining. Use a list of paths.")


@dataclass
class ImageClassificationConfig(LabelledConfig):
    """``image_classification``: labelled images for zero-shot classification, linear probes and finetuning."""

    # name of a published dataset in torchvision, see mmf_flava/data/image_sets/catalogue.py; splits then lists the
    # names of its splits; several are concatenated. null: splits lists paths of images, as for imagenet
    source: str | None = None
    # true: torchvision downloads the dataset ``source`` if it is missing
    download: bool = False


TASKS = ("single_label", "multi_label", "regression")


@dataclass
class ImageTextClassificationConfig(LabelledConfig):
    """``image_text_classification``: the user's own images, texts or both, with labels.

    A split that is null in ``splits`` is found in data_dir: by the column split, by files or folders named train, val
    and test, or else by ``val_share`` and ``test_share``.
    """

    REQUIRED = ()
    TEXT_TYPE = "flava_tokens"
    SETS_LABELS = True

    # single_label: one class per record | multi_label: any number of classes | regression: a number
    task: str = ranged("single_label", choices=TASKS)
    # what separates the classes of a record if its label is one text; only for multi_label
    separator: str = ","
    # factors of the loss of each class: balanced (inversely proportional to the number of training records), or a
    # mapping from class names to factors, 1 for the others; null: 1
    class_weights: Any = None
    # fractions of the records for the splits val and test, if data_dir has no splits
    val_share: float = ranged(0.15, at_least=0, below=1)
    test_share: float = ranged(0.15, at_least=0, below=1)

    def check(self, where: str) -> None:
        super().check(where)
        if not any(self.processors.get(name) for name in BOTH):
            raise UserError(
                f"{where}.processors: image_processor and text_processor are both null, so the model has no input. "
                "Set one of them."
            )
        if not self.separator.strip() and self.separator != " ":
            raise UserError(f"{where}.separator: must not be empty. Set it to the text between two classes, e.g. ','.")
        if self.val_share + self.test_share >= 1:
            raise UserError(
                f"{where}.val_share: val_share and test_share are {self.val_share + self.test_share:g} together, so no "
                "records remain for training. Decrease them."
            )
        if self.task == "regression" and (self.classes is not None or self.class_weights is not None):
            raise UserError(
                f"{where}.task: regression has no classes. Remove classes and class_weights, or set task: single_label."
            )
        _check_class_weights(self.class_weights, f"{where}.class_weights")


def _check_class_weights(value: Any, where: str) -> None:
    is_mapping = isinstance(value, dict) and value
    if not (value is None or value == "balanced" or is_mapping):
        raise UserError(f"{where}: must be balanced or a mapping from class names to factors, got {value!r}.")
    for name, factor in value.items() if is_mapping else ():
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
            raise UserError(f"{where}.{name}: must be a number above 0, got {factor!r}.")


def check_classes(value: Any, where: str) -> None:
    """Raise UserError if a value of the key ``classes`` is neither null, a list of names nor a file."""
    names = value if isinstance(value, list) else []
    if not (value is None or isinstance(value, str | list)) or any(
        not isinstance(name, str | int) or isinstance(name, bool) for name in names
    ):
        raise UserError(f"{where}: must be a list of class names or a file with one name per line, got {value!r}.")
