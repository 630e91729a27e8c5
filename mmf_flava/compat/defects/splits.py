"""Patches for datasets without samples in one of the splits, on MMF's main branch."""

from collections.abc import Mapping
from typing import Any

from mmf_flava.compat.patch import patch, source_contains, wrap
from mmf_flava.errors import UserError

NO_SPLIT: dict[str, Any] = {
    "what": "datasets without a val or test split are skipped when MMF loads that split",
    "why": "MMF raises a TypeError, although dataset builders may return None for a split; in pretraining on "
    "image-text pairs, images and text, only the pairs have a val split",
    "since": "MMF's main branch of 2021",
    "until": "MultiDataModule and TestReporter skip datasets whose split is None",
}


@patch("mmf.datasets.multi_datamodule", **NO_SPLIT)
def loaders(module: Any) -> None:
    @wrap(module.MultiDataModule, "_build_multi_dataloader")
    def _build_multi_dataloader(original: Any, self: Any, dataset_type: str = "train") -> Any:
        present = _with_split(self.datamodules, dataset_type)
        if len(present) == len(self.datamodules):
            return original(self, dataset_type)
        if not present:
            if dataset_type in ("train", "val") and "train" in self.config.get("run_type", ""):
                raise _no_data(self.dataset_list, dataset_type)
            # other strategies fail without datasets
            return module.MultiDataLoader({}, module.build_iteration_strategy({"enabled": False}, {}))
        everything = self.datamodules, self.dataset_list
        self.datamodules, self.dataset_list = present, list(present)
        try:
            return original(self, dataset_type)
        finally:
            self.datamodules, self.dataset_list = everything


@patch("mmf.common.test_reporter", needed=source_contains("datamodules", "TestReporter.__init__"), **NO_SPLIT)
def reporter(module: Any) -> None:
    @wrap(module.TestReporter, "__init__")
    def __init__(
        original: Any,
        self: Any,
        datamodules: Mapping[str, Any],
        config: Any = None,
        dataset_type: str = "train",
        **kwargs: Any,
    ) -> None:
        present = _with_split(datamodules, dataset_type)
        if not present:
            raise _no_data(datamodules, dataset_type)
        complete = len(present) == len(datamodules)
        original(self, datamodules if complete else present, config, dataset_type, **kwargs)


def _with_split(datamodules: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Return the data modules that have the split or define their own data loader for the split."""
    return {name: datamodule for name, datamodule in datamodules.items() if not _lacks_split(datamodule, split)}


def _lacks_split(datamodule: Any, split: str) -> bool:
    from mmf.datasets.base_dataset_builder import BaseDatasetBuilder

    if getattr(datamodule, f"{split}_dataset", datamodule) is not None:
        return False
    # MMF's default method needs a dataset; a data module that overrides the method may not
    method = getattr(datamodule, f"{split}_dataloader", None)
    return getattr(method, "__func__", None) is getattr(BaseDatasetBuilder, f"{split}_dataloader")


def _no_data(names: Any, split: str) -> UserError:
    return UserError(
        f"dataset_config: none of the datasets {', '.join(names)} has a {split} split, which this run needs. "
        f"List data in dataset_config.NAME.splits.{split}, set another run_type, or set training.trainer: flava."
    )
