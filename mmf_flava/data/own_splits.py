"""Which records of the user's own data belong to which split, see ``ImageTextClassificationConfig``."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmf_flava.config.labelled_datasets import ImageTextClassificationConfig
from mmf_flava.config.paths import resolve_path
from mmf_flava.config.splits import SPLITS
from mmf_flava.data.formats.splits import SPLIT_NAMES, named_splits
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.label_values import read_column
from mmf_flava.data.record import BadRecord, Record, Records
from mmf_flava.data.records import split_readers
from mmf_flava.data.shares import content_positions, select
from mmf_flava.errors import UserError, join_first
from mmf_flava.files.download import is_remote

logger = logging.getLogger(__name__)


class SelectedRecords:
    """Some of the records of a reader.

    Args:
        indices: indices of the records in the reader.
    """

    def __init__(self, records: Records, indices: np.ndarray):
        self.records, self.indices, self.sequential = records, indices, records.sequential

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self.read(index)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        return self.records.read(int(self.indices[index]), only)


def record_key(records: Records, index: int) -> str:
    """Return the key of a record, or its number if it cannot be read."""
    try:
        return records.read(index, ()).key
    except BadRecord as error:
        return error.key or f"record {index}"


@dataclass(frozen=True)
class Selection:
    """The records of a split.

    Attributes:
        source: where they are from, for messages.
        records: a reader, of which ``indices`` belong to the split.
    """

    source: str
    records: Records
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def keep(self, kept: Sequence[bool]) -> "Selection":
        """Return the records for which ``kept`` is true."""
        return Selection(self.source, self.records, self.indices[np.array(kept, dtype=bool)])

    def values(self, column: str) -> list[Any]:
        """Return a value of each record, see ``label_values.read_column``."""
        values = read_column(self.records, column)
        return [values[index] for index in self.indices]

    def keys(self, positions: Sequence[int]) -> list[str]:
        """Return the keys of some of the records, by position in the split."""
        return [record_key(self.records, int(self.indices[position])) for position in positions]

    def names(self) -> list[str]:
        """Return the ID of each record as in the files, where several records may have the same."""
        names: list[str | None] = []
        for reader in split_readers(self.records):
            names += reader.column("name") if isinstance(reader, ImageList) else [None] * len(reader)
        return [names[index] or record_key(self.records, int(index)) for index in self.indices]

    @property
    def reader(self) -> Records:
        """The reader of the records of the split."""
        is_all = np.array_equal(self.indices, np.arange(len(self.records)))
        return self.records if is_all else SelectedRecords(self.records, self.indices)


class OwnSplits:
    """The splits of the data in data_dir, and of the paths in ``splits``.

    Args:
        name: the dataset's name, for messages.
        open_paths: opens the records at some paths.
        trains: whether the run trains. Otherwise, data_dir without labels is the test split.

    Attributes:
        by_content: the splits selected so far that share their records with another split, by a hash of the content.
    """

    def __init__(
        self,
        config: ImageTextClassificationConfig,
        name: str,
        open_paths: Callable[[list[str | Path]], Records],
        trains: bool,
    ) -> None:
        self.config, self.where, self._open, self._trains = config, f"dataset_config.{name}", open_paths, trains
        self.source = resolve_path(config.data_dir)
        self._selections: dict[str, Selection | None] = {}
        self._opened: dict[tuple[str, ...], Records] = {}
        self._hashed: dict[tuple[str, ...], np.ndarray] = {}
        self.by_content: set[str] = set()

    @property
    def folder(self) -> Path:
        """The folder to which other paths are relative: data_dir, or the folder of the file data_dir."""
        if is_remote(self.config.data_dir):
            return Path.cwd()
        return self.source if self.source.is_dir() else self.source.parent

    def select(self, split: str) -> Selection | None:
        """Return the records of a split; None if the data do not have the split.

        Raises:
            UserError: a path does not exist or has no records, or the name of a split is unknown.
        """
        if split not in self._selections:
            self._selections[split] = self._select(split)
        return self._selections[split]

    def _select(self, split: str) -> Selection | None:
        training = self._paths.get("train")
        if split in self._paths and split != "train":
            return self._select_all(self._paths[split])
        if training is None:
            return self._pool.get(split)
        # data_dir is not read, or has files named as splits
        if "val" in self._paths:
            return self._select_all(training) if split == "train" else None
        return self._by_content(self._select_all(training), training, 0.0).get(split)

    def _select_all(self, paths: list[str | Path]) -> Selection:
        key = tuple(map(str, paths))
        if key not in self._opened:
            self._opened[key] = self._open(paths)
        records = self._opened[key]
        return Selection(join_first([str(path) for path in paths]), records, np.arange(len(records)))

    @cached_property
    def _paths(self) -> dict[str, list[str | Path]]:
        """The paths of the splits that have paths: those in the config, then files or folders named as a split."""
        listed = {split: self._resolve(split) for split in SPLITS}
        paths: dict[str, list[str | Path]] = {split: found for split, found in listed.items() if found}
        if "train" not in paths:
            named: dict[str, list[str | Path]] = {name: [*found] for name, found in named_splits(self.source).items()}
            paths = named | paths
        return paths

    def _resolve(self, split: str) -> list[str | Path]:
        """Return the paths of a split in the config, relative to the folder of the data or the working directory."""
        found: list[str | Path] = []
        for path in self.config.splits.paths(split):
            if is_remote(path):
                found.append(path)
                continue
            resolved = resolve_path(path, self.folder)
            here = resolve_path(path)
            found.append(here if not resolved.exists() and here.exists() else resolved)
        return found

    @cached_property
    def _pool(self) -> dict[str, Selection]:
        """The splits of data_dir that are not in ``_paths``."""
        source: list[str | Path] = [self.config.data_dir if is_remote(self.config.data_dir) else self.source]
        if not (self.source.exists() or is_remote(source[0]) or {*"*?[{"} & {*str(self.source)}):
            raise UserError(f"{self.where}.data_dir: {self.source} does not exist. Set it to your file or folder.")
        selection = self._select_all(source)
        by_column = self._by_column(selection)
        if by_column is not None:
            given = {*by_column, *self._paths}
        elif not self._trains and all(label is None for label in read_column(selection.records, "label")):
            return {"test": selection}
        else:
            given = {*self._paths}
            by_column = {"train": selection}
        train = by_column.get("train")
        if train is None or "val" in given:
            return by_column
        test_share = 0.0 if "test" in given else self.config.test_share
        return {**by_column, **self._by_content(train, source, test_share)}

    def _by_content(self, selection: Selection, paths: list[str | Path], test_share: float) -> dict[str, Selection]:
        """Divide the selected records at some paths into train, val and test by a hash of their content."""
        key, val_share = tuple(map(str, paths)), self.config.val_share
        if key not in self._hashed:
            self._hashed[key] = content_positions(selection.records)
        positions = self._hashed[key][selection.indices]
        bounds = {"val": (0.0, val_share), "test": (val_share, test_share), "train": (val_share + test_share, 1.0)}
        shares = {split: bound for split, bound in bounds.items() if bound[1] > 0}
        self.by_content |= {*shares} if len(shares) > 1 else set()
        return {
            split: Selection(selection.source, selection.records, selection.indices[select(positions, *bound)])
            for split, bound in shares.items()
        }

    def _by_column(self, selection: Selection) -> dict[str, Selection] | None:
        """Divide records by the column split; None if there is no such column."""
        values = read_column(selection.records, "split")
        if all(value is None or value == "" for value in values):
            return None
        names = ["" if value is None else str(value).strip() for value in values]
        splits = [SPLIT_NAMES.get(name.casefold()) for name in names]
        unknown = sorted({name for name, split in zip(names, splits, strict=True) if name and split is None})
        if unknown:
            raise UserError(
                f"{selection.source}: the column split has the value {' and '.join(map(repr, unknown[:3]))}. Write "
                "train, val (or valid, validation, dev) or test, or ignore the column by columns: {split: null}."
            )
        if empty := names.count(""):
            logger.warning("%s: %s records without a split are left out.", selection.source, f"{empty:,}")
        found = {split: np.flatnonzero([one == split for one in splits]) for split in SPLITS}
        if not len(found["train"]) and self._trains:
            raise UserError(f"{selection.source}: the column split has no train. Write train for the training records.")
        return {
            split: Selection(f"{selection.source} (split {split})", selection.records, indices)
            for split, indices in found.items()
            if len(indices)
        }
