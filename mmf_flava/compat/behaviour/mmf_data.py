"""Patches of MMF's datasets: one-line errors for missing splits, invalid annotation files and invalid entries."""

import bisect
from collections.abc import Mapping
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, wrap
from mmf_flava.errors import UserError

INVALID: dict[str, Any] = {
    "why": "MMF raises a KeyError, TypeError or ValueError that names neither file nor entry",
    "since": "MMF 1.0.0rc1",
    "until": "MMF checks its annotations",
}
# raised by MMF's datasets for an invalid entry; in other code they are errors of the program
ENTRY_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, OSError, RuntimeError)


@patch("mmf.datasets.databases.annotation_database", what="an invalid annotation file is a one-line error", **INVALID)
def annotation_file(module: Any) -> None:
    load = next(
        name for name in ("load_annotation_db", "_load_annotation_db") if hasattr(module.AnnotationDatabase, name)
    )

    @wrap(module.AnnotationDatabase, load, only_if=flava_run.is_current)
    def load_annotation_db(original: Any, self: Any, path: str) -> None:
        remedy = "Set dataset_config.NAME.annotations to the dataset's annotation files."
        try:
            original(self, path)
        except FileNotFoundError:
            raise UserError(f"The annotation file {path} was not found. {remedy}") from None
        except UserError:
            raise
        except ENTRY_ERRORS as error:
            raise UserError(
                f"The annotation file {path} cannot be read ({type(error).__name__}: {error}). {remedy}"
            ) from error


@patch("mmf.utils.checkpoint", what="a missing checkpoint is a one-line error", **INVALID)
def missing_checkpoint(module: Any) -> None:
    @wrap(module.Checkpoint, "load_state_dict", only_if=flava_run.is_current)
    def load_state_dict(original: Any, self: Any) -> Any:
        try:
            return original(self)
        except RuntimeError as error:
            if not str(error).endswith("doesn't exist"):
                raise
            file = str(error).removesuffix(" doesn't exist")
            raise UserError(f"checkpoint.resume_file: {file} was not found. Correct the path.") from None


@patch("mmf.utils.text", what="a missing vocabulary of a processor is a one-line error", **INVALID)
def missing_vocabulary(module: Any) -> None:
    @wrap(module.VocabDict, "__init__", only_if=flava_run.is_current)
    def __init__(original: Any, self: Any, vocab_file: str, *args: Any, **kwargs: Any) -> None:
        try:
            original(self, vocab_file, *args, **kwargs)
        except (RuntimeError, OSError, ValueError) as error:
            raise UserError(f"vocab_file: {vocab_file} cannot be read ({error}). Set it to an existing file.") from None


@patch(
    "mmf.datasets.mmf_dataset_builder",
    what="a split whose annotations are null has no data, and missing images of a split are a one-line error",
    **INVALID,
)
def null_annotations(module: Any) -> None:
    @wrap(module.MMFDatasetBuilder, "load", only_if=flava_run.is_current)
    def load(original: Any, self: Any, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> Any:
        if not config.get("split_train") and not (config.get("annotations") or {}).get(dataset_type):
            self.config, self.dataset = config, None
            return None
        try:
            return original(self, config, dataset_type, *args, **kwargs)
        except UserError:
            raise
        except ENTRY_ERRORS as error:
            if not self.dataset_class.__module__.startswith("mmf."):
                raise
            raise UserError(
                f"dataset_config.{self.dataset_name}: the split {dataset_type} cannot be loaded "
                f"({type(error).__name__}: {error}). List the split's annotation files, and the same number of images "
                "or features."
            ) from error


@patch(
    "mmf.datasets.multi_dataset_loader",
    what="a split without data is an error only if the run uses the split",
    needed=lambda module: hasattr(getattr(module, "MultiDatasetLoader", None), "build_datasets"),
    **INVALID,
)
def empty_split(module: Any) -> None:
    @wrap(module.MultiDatasetLoader, "load", only_if=flava_run.is_current)
    def load(original: Any, self: Any, config: Any) -> None:
        try:
            original(self, config)
        except (IndexError, ZeroDivisionError):
            if self._total_length:
                raise
            split, parts = self._dataset_type, config.run_type.split("_")
            if split in parts or (split == "val" and "train" in parts):
                raise UserError(
                    f"dataset_config: the split {split} of {', '.join(self._given_datasets)} has no data, but run_type "
                    f"{config.run_type} uses it. List the split's annotation files, or set another run_type."
                ) from None


@patch(
    "mmf.datasets.concat_dataset",
    what="an invalid entry of an annotation file is an error that names the file and the entry",
    **INVALID,
)
def entries(module: Any) -> None:
    inherited = module.MMFConcatDataset.__getitem__

    def __getitem__(self: Any, index: int) -> Any:
        if not flava_run.is_current():
            return inherited(self, index)
        try:
            sample = inherited(self, index)
            _check_fields(self, sample)
            _check_label(sample, self, index)
            return sample
        except UserError:
            raise
        except ENTRY_ERRORS as error:
            if not type(_locate(self, index)[0]).__module__.startswith("mmf."):
                raise  # a dataset of the user
            reason = _problem(_entry(self, index)) or f"{type(error).__name__}: {error}"
            raise UserError(f"{_name(self, index)} cannot be used: {reason}. Correct the entry.") from error
        except _InvalidSample as error:
            raise UserError(f"{_name(self, index)}: {error}") from None

    module.MMFConcatDataset.__getitem__ = __getitem__


class _InvalidSample(Exception):
    """A sample that does not fit the other samples or the model."""


def _locate(dataset: Any, index: int) -> tuple[Any, int, int]:
    """Return the dataset that contains a sample of a concatenation, its number, and the sample's index in it.

    Args:
        dataset: the concatenation of several datasets.
        index: index of the sample in the concatenation.
    """
    number = bisect.bisect_right(dataset.cumulative_sizes, index % len(dataset))
    return (
        dataset.datasets[number],
        number,
        index % len(dataset) - (dataset.cumulative_sizes[number - 1] if number else 0),
    )


def _name(dataset: Any, index: int) -> str:
    part, number, position = _locate(dataset, index)
    files = part.config.annotations[part.dataset_type]
    file = files if isinstance(files, str) else files[number]
    return f"dataset_config.{part.dataset_name}: entry {position + 1} of {file}"


def _entry(dataset: Any, index: int) -> Any:
    part, _, position = _locate(dataset, index)
    database = getattr(part, "annotation_db", None)
    return None if database is None else database[position]


def _problem(entry: Any) -> str | None:
    """Return a description of the mistake in an entry of an annotation file, or None if it has no usual mistake."""
    if not isinstance(entry, Mapping):
        return "it is not an object with keys"
    label, number = entry.get("label", 0), entry.get("id", 0)
    if "label" in entry and (not isinstance(label, int | float) or label != int(label)):
        return f"its label is {label!r}, expected an integer"
    if "id" in entry and not (str(number).lstrip("-").isdigit() and abs(int(number)) < 2**31):
        return f"its id is {number!r}, expected an integer below 2147483648"
    for key in ("text", "img"):
        if not isinstance(entry.get(key, ""), str):
            return f"its {key} is {entry[key]!r}, expected a string"
    return None


def _check_label(sample: Any, dataset: Any, index: int) -> None:
    """Raise _InvalidSample for a label such as 0.5, which torch converts to the integer 0."""
    targets: Any = sample.get("targets") if isinstance(sample, Mapping) else None
    if hasattr(targets, "is_floating_point") and not targets.is_floating_point() and targets.numel() == 1:
        entry = _entry(dataset, index)
        if isinstance(entry, Mapping) and isinstance(entry.get("label"), float) and (problem := _problem(entry)):
            raise _InvalidSample(f"{problem}. Correct the entry.")


def _check_fields(dataset: Any, sample: Any) -> None:
    """Raise _InvalidSample if a sample has other fields than the first sample, or a label that the model lacks."""
    if not isinstance(sample, Mapping):
        return
    expected = dataset.__dict__.setdefault("_first_fields", set(sample))
    if different := expected ^ set(sample):
        names = ", ".join(sorted(different))
        raise _InvalidSample(
            f"only one of this entry and the first entry of the split has {names}. Add a label to all entries of the "
            "split or to none."
        )
    labels = _number_of_labels()
    targets: Any = sample.get("targets")
    if labels is None or not hasattr(targets, "numel"):
        return
    if targets.is_floating_point() and targets.ndim == 1 and targets.numel() not in (1, labels):
        raise _InvalidSample(
            f"the entry has scores for {targets.numel()} labels, but num_labels is {labels}. Set "
            f"model_config.flava_classification.num_labels={targets.numel()}."
        )
    if not targets.is_floating_point() and targets.numel() == 1 and not 0 <= int(targets) < labels:
        raise _InvalidSample(
            f"its label is {int(targets)}, but model_config.flava_classification.num_labels is {labels}. Correct the "
            "label, or increase num_labels."
        )


def _number_of_labels() -> int | None:
    """Return ``num_labels`` of the model ``flava_classification``; None for other models and for regression."""
    from mmf.common.registry import registry

    config = registry.get("config", no_warning=True)
    if not config or config.get("model") != "flava_classification":
        return None
    labels = (config.model_config.get("flava_classification") or {}).get("num_labels")
    return labels if isinstance(labels, int) else None
