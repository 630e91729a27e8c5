"""Config class of ``dataset_config.NAME.splits``: the paths of each split."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmf_flava.errors import UserError

SPLITS = ("train", "val", "test")


@dataclass
class SplitsConfig:
    """``splits``: the paths of each split, relative to data_dir.

    A split is null, a path, a list of paths or, for training, a mapping from paths to weights (see ``data.mixture``).
    """

    train: Any = None
    val: Any = None
    test: Any = None

    def check(self, where: str) -> None:
        """Raise UserError if a split is not null, a path, a list of paths or, for training, a mapping to weights."""
        for split in SPLITS:
            _check_split(getattr(self, split), f"{where}.{split}", split == "train")

    def paths(self, split: str) -> list[str]:
        """Return the paths of a split as written in the config."""
        listed = getattr(self, split)
        return [listed] if isinstance(listed, str) else list(listed or ())

    def weights(self, split: str) -> dict[str, float] | None:
        """Return the weight of each path of a split, or None if the split has no weights."""
        listed = getattr(self, split)
        return dict(listed) if isinstance(listed, Mapping) else None


def _check_split(value: Any, where: str, weighted: bool) -> None:
    forms = "a path, a list of paths" + (" or a mapping from paths to weights" if weighted else "") + ", or null"
    if isinstance(value, Mapping) and not weighted:
        raise UserError(f"{where}: only the train split supports weights. List the paths without weights.")
    if value is not None and not isinstance(value, str | list | Mapping):
        raise UserError(f"{where}: must be {forms}, got {value!r}.")
    paths = [value] if isinstance(value, str) else list(value or ())
    for path in paths:
        if not isinstance(path, str) or not path.strip():
            raise UserError(f"{where}: must be {forms}, got {value!r}.")
    if repeated := next((path for path in paths if paths.count(path) > 1), None):
        weights = f" To sample it more often, write weights: {{{repeated}: 2.0, ...}}." if weighted else ""
        raise UserError(f"{where}: {repeated} is listed more than once. List each path once.{weights}")
    for path, weight in value.items() if isinstance(value, Mapping) else ():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (is_number and math.isfinite(weight) and weight > 0):
            raise UserError(f"{where}.{path}: must be a number above 0, got {weight!r}. To skip a path, remove it.")
