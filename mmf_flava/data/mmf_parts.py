"""Location of the entries of MMF's datasets in their annotation files."""

import bisect
from dataclasses import dataclass
from typing import Any

from torch.utils.data import ConcatDataset, IterableDataset, Subset

UNKNOWN = object()


@dataclass(frozen=True)
class Entry:
    """An entry of an annotation file.

    Attributes:
        name: name for messages, for example "dataset_config.vqa2: entry 7 of imdb_train2014.npy".
        key: ID of the entry, or a description of its place if it has no ID.
        split: train, val or test.
        content: the entry, or ``UNKNOWN`` if the dataset does not give access to it.
    """

    name: str
    key: str
    split: str
    content: Any


def locate_entry(dataset: Any, index: int) -> Entry:
    """Return an entry of one of MMF's datasets: of a concatenation of several files, a subset, or a single dataset."""
    part, number, position = _locate(dataset, index % len(dataset))
    content = _read_content(part, position)
    place = f"entry {position + 1} of {_file(part, number)}"
    ids = [content[key] for key in ("id", "question_id", "pairID") if isinstance(content, dict) and key in content]
    key = str(ids[0]) if ids and isinstance(ids[0], int | str) and len(str(ids[0])) <= 100 else place
    return Entry(f"dataset_config.{part.dataset_name}: {place}", key, part.dataset_type, content)


def is_of_mmf(dataset: Any) -> bool:
    """Return whether a dataset and its parts are instances of MMF's classes, not of a user's, and have indices."""
    if isinstance(dataset, Subset):
        return is_of_mmf(dataset.dataset)
    parts = dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset]
    classes = [type(part) for part in parts]
    return all(one.__module__.startswith("mmf.") and not issubclass(one, IterableDataset) for one in classes)


def _locate(dataset: Any, index: int) -> tuple[Any, int, int]:
    """Return the part that contains a sample, the part's number, and the sample's index in the part."""
    if isinstance(dataset, Subset):
        return _locate(dataset.dataset, int(dataset.indices[index]))
    if not isinstance(dataset, ConcatDataset):
        return dataset, 0, index
    sizes = dataset.cumulative_sizes
    number = bisect.bisect_right(sizes, index)
    return dataset.datasets[number], number, index - (sizes[number - 1] if number else 0)


def _read_content(part: Any, position: int) -> Any:
    database = getattr(part, "annotation_db", None)
    try:
        if database is None:
            return part.dataset[position]  # of GLUE
        return database.data[position + database.start_idx]
    except Exception:  # the dataset has another structure
        return UNKNOWN


def _file(part: Any, number: int) -> str:
    files = (part.config.get("annotations") or {}).get(part.dataset_type) or "the split"
    return files if isinstance(files, str) else str(files[min(number, len(files) - 1)])
