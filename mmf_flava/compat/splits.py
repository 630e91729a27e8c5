"""Datasets that have no samples for one of the splits, on MMF's main branch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from mmf_flava.compat.cure import cure, source_has
from mmf_flava.errors import UserError

CURE: dict[str, Any] = {
    "when": "after",
    "what": "a dataset that has no val or no test split is left out where that split is read",
    "why": "MMF ends with a TypeError, though its builders may return None for a split, and its older loaders pass "
    "over it: pretraining on pairs, images and text validates on pairs alone",
    "since": "MMF's main branch of 2021",
    "until": "MultiDataModule and TestReporter pass over datasets whose split is None",
}


@cure("mmf.datasets.multi_datamodule", **CURE)
def loaders(module: ModuleType) -> None:
    build = module.MultiDataModule._build_multi_dataloader

    def _build_multi_dataloader(self: Any, dataset_type: str = "train") -> Any:
        everything = self.datamodules, self.dataset_list
        found = _having(self.datamodules, dataset_type)
        if not found:
            if dataset_type == "val" and "train" in self.config.get("run_type", ""):
                raise _no_data(self.dataset_list, "val")
            # for no datasets there is no strategy to choose among them
            return module.MultiDataLoader({}, module.build_iteration_strategy({"enabled": False}, {}))
        self.datamodules, self.dataset_list = found, list(found)
        try:
            return build(self, dataset_type)
        finally:
            self.datamodules, self.dataset_list = everything

    module.MultiDataModule._build_multi_dataloader = _build_multi_dataloader


@cure("mmf.common.test_reporter", needed=source_has("datamodules", "TestReporter.__init__"), **CURE)
def reporter(module: ModuleType) -> None:
    init = module.TestReporter.__init__

    @functools.wraps(init)
    def __init__(
        self: Any, datamodules: Mapping[str, Any], config: Any = None, dataset_type: str = "train", **kwargs: Any
    ) -> None:
        found = _having(datamodules, dataset_type)
        if not found:
            raise _no_data(datamodules, dataset_type)
        init(self, found, config, dataset_type, **kwargs)

    module.TestReporter.__init__ = __init__


def _having(datamodules: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Those that have the split; a data module that does not say which splits it has is asked for its loader."""
    return {
        name: datamodule
        for name, datamodule in datamodules.items()
        if getattr(datamodule, f"{split}_dataset", datamodule) is not None
    }


def _no_data(names: Any, split: str) -> UserError:
    return UserError(
        f"None of the datasets {', '.join(names)} has a {split} split, on which MMF's trainer is to evaluate: list "
        f"data in dataset_config.NAME.splits.{split}, or choose another run_type or training.trainer: flava."
    )
