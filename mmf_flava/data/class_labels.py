"""Class numbers of labelled images: one numbering for all splits of a dataset, and checks of the labels."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmf.common.registry import registry

from mmf_flava.config.datasets import ImageNetConfig
from mmf_flava.config.labelled_datasets import ImageClassificationConfig, ImageTextClassificationConfig
from mmf_flava.config.paths import resolve_path
from mmf_flava.data.annotations import NO_LABEL, to_label
from mmf_flava.data.formats.detection import Kind, detect
from mmf_flava.data.image_folder import ImageFolder, class_folder, find_class_folders, read_class_list
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.names import display_name
from mmf_flava.data.record import Records
from mmf_flava.data.records import split_readers
from mmf_flava.data.run_processors import stored_classes
from mmf_flava.data.text_lines import read_lines
from mmf_flava.errors import UserError, join_first
from mmf_flava.files.download import is_remote

CLASSIFIER = "flava_classification"


def configured_classes(
    config: ImageNetConfig | ImageClassificationConfig | ImageTextClassificationConfig, name: str
) -> list[str] | None:
    """Return the class names in ``dataset_config.NAME.classes``: a list, or a file with one name per line.

    Return None if the key is null.

    Raises:
        UserError: the file cannot be read, or names are empty or duplicate.
    """
    where, value = f"dataset_config.{name}.classes", config.classes
    if value is None:
        return None
    if isinstance(value, str):
        path = resolve_path(value, config.data_dir)
        try:
            value = [line.strip() for line in read_lines(path) if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where}: failed to read {path} ({error}). List one class per line.") from None
    classes = [str(class_name) for class_name in value]
    duplicates = sorted({class_name for class_name in classes if classes.count(class_name) > 1})
    if not classes or duplicates:
        problem = f"listed more than once: {join_first(duplicates)}" if duplicates else "no class is listed"
        raise UserError(f"{where}: {problem}. List each class once.")
    return classes


def find_classes(
    paths: Sequence[str | Path], images: Path | None = None, columns: Mapping[str, Any] | None = None
) -> list[list[str]]:
    """Return the class names of each path of a split, in label order; an empty list if a path has no class names.

    Class folders are in the order of ``classes.txt`` if this file exists, otherwise sorted by name. The class names in
    a table are sorted. Tar shards, tables with class numbers, and paths without records have no class names.
    """
    return [_find_classes(path, images, columns) for path in paths]


def _find_classes(path: str | Path, images: Path | None, columns: Mapping[str, Any] | None) -> list[str]:
    path = Path(path)
    if is_remote(path) or not path.exists():
        return []
    try:
        kind, files = detect(path, columns)
    except UserError:
        return []
    if kind == Kind.IMAGES:
        return read_class_list(path) or find_class_folders(path)
    given = json.dumps(columns)
    stats = [(file, file.stat()) for file in files] if kind == Kind.TABLES else []
    names = [_find_class_names(file, images, given, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
    return sorted({name for found in names for name in found})


@lru_cache(maxsize=16)
def _find_class_names(path: Path, images: Path | None, columns: str, size: int, modified: int) -> tuple[str, ...]:
    """Return the sorted class names in a table. Cached, because every split needs them."""
    table = ImageList(path, images, json.loads(columns))
    labels = {label.strip() for _, label in table.read_labels() if isinstance(label, str)}
    labels.discard("")
    return tuple(sorted(labels)) if any(not _is_class_number(label) for label in labels) else ()


def _is_class_number(label: str) -> bool:
    try:
        to_label(label)
    except ValueError:
        return False
    return True


def number_classes(records: Records, classes: Sequence[str]) -> None:
    """Number the class folders of ``records`` in the order of ``classes``. Images in other folders get no label."""
    for reader in split_readers(records):
        if isinstance(reader, ImageFolder):
            reader.number_classes(classes)


def model_labels() -> int | None:
    """Return ``num_labels`` of the classification model in MMF's current config, or None for other models."""
    config = registry.get("config", default=None, no_warning=True)
    if config is None or config.get("model") != CLASSIFIER:
        return None
    return ((config.get("model_config") or {}).get(CLASSIFIER) or {}).get("num_labels")


def number_as_classifier(classes: list[str] | None, listed: bool) -> list[str] | None:
    """Return the classes of the train split in the label order of the classifier that the run loads.

    If the dataset has no class names, the classifier's are used. Classes of other names keep their order, with a
    warning.

    Args:
        listed: whether the classes are listed in the config, whose order is kept.
    """
    stored = stored_classes()
    if stored is None or classes is None:
        return classes if stored is None else list(stored)
    if not listed and set(classes) <= set(stored):
        return list(stored)
    if list(stored) != classes:
        warnings.warn(
            f"The classes of the dataset ({join_first(classes)}) differ from the classes that the weights were trained "
            f"with ({join_first(list(stored))}). Labels and predictions are numbered in the dataset's order.",
            stacklevel=3,
        )
    return classes


def check_num_labels(classes: Sequence[str], expected: int | None, exact: bool = False) -> None:
    """Raise UserError if the classifier has fewer labels than there are classes.

    Args:
        classes: class names; empty for a regression, which has one label.
        expected: ``num_labels`` of the classifier; None if it is unknown.
        exact: whether more labels than classes are an error too.
    """
    needed = len(classes) or 1
    if expected is not None and (expected != needed if exact else expected < needed):
        found = f"there are {needed} classes: {join_first(list(classes))}" if classes else "the task is a regression"
        raise UserError(f"model_config.{CLASSIFIER}.num_labels is {expected}, but {found}. Set it to {needed}.")


def check_labels(records: Records, classes: Sequence[str] | None, limit: int | None, required: bool) -> None:
    """Check the labels of class folders and image lists. Labels in tar shards and published datasets are not checked.

    Args:
        classes: class names in label order, if known.
        limit: number of classes; None if unknown.
        required: whether every record must have a label. If False, either every record or no record must have a label.

    Raises:
        UserError: labels are invalid, missing or not below ``limit``; the message names the file and the lines.
    """
    class_numbers = None if classes is None else {name: number for number, name in enumerate(classes)}
    for reader in split_readers(records):
        if isinstance(reader, ImageFolder):
            _check_folders(reader)
        if not isinstance(reader, ImageFolder | ImageList):
            continue
        path = reader.path if isinstance(reader, ImageList) else reader.root
        missing, invalid, beyond = [], [], []
        for location, label in _labels(reader, class_numbers):
            if isinstance(label, str):
                invalid.append(f"{location} ({label})")
            elif label == NO_LABEL:
                missing.append(location)
            elif limit is not None and label >= limit:
                beyond.append(f"{location} (label {label})")
        count = f"of {len(reader)} entries"
        if invalid:
            raise UserError(
                f"{path}: {len(invalid)} {count} have an invalid label: {join_first(invalid)}. Use class numbers, "
                "or class names that occur in the train split or are listed in the config key classes."
            )
        if beyond:
            raise UserError(
                f"{path}: {len(beyond)} {count} have a label that is not in 0..{(limit or 0) - 1} ({limit} "
                f"classes): {join_first(beyond)}. Correct the labels or the number of classes ({_limit_keys(classes)})."
            )
        if missing and (required or len(missing) < len(reader)):
            raise UserError(
                f"{path}: {len(missing)} {count} have no label: {join_first(missing)}. Add their labels, or remove "
                "the entries."
            )


def _limit_keys(classes: Sequence[str] | None) -> str:
    return f"model_config.{CLASSIFIER}.num_labels" + ("" if classes is None else " and the class names")


def _check_folders(reader: ImageFolder) -> None:
    if unknown := [name for name in reader.folders if name not in reader.class_numbers]:
        raise UserError(
            f"{reader.root}: the folders {join_first(unknown)} are not among the {len(reader.classes)} classes "
            f"({join_first(reader.classes)}), which the train split or the config key classes defines. Rename the "
            f"folders, add their names to the classes, or move images without a label directly into {reader.root}."
        )


def _labels(
    reader: ImageFolder | ImageList, class_numbers: Mapping[str, int] | None
) -> Iterator[tuple[str, int | str]]:
    """Yield the location of each record, and its label or, as a string, the reason why the label is invalid."""
    if isinstance(reader, ImageFolder):
        for key in reader.keys:
            yield display_name(key), reader.class_numbers.get(class_folder(key) or "", NO_LABEL)
        return
    for location, label in reader.read_labels():
        try:
            yield location, to_label(label, class_numbers)
        except ValueError as error:
            yield location, str(error)
