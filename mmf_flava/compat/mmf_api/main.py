"""Implementation of ``mmf_api`` for MMF's main branch."""

import logging
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from mmf.common.registry import registry
from mmf.datasets.base_dataset_builder import BaseDatasetBuilder
from mmf.utils.build import build_datamodule, build_test_reporter
from mmf.utils.build import build_iteration_strategy as mmf_build_iteration_strategy
from mmf.utils.distributed import is_main, synchronize
from omegaconf import OmegaConf
from pytorch_lightning import LightningDataModule
from torch.utils.data import Dataset

from mmf_flava.compat.mmf_api.callbacks import build_callbacks, check_callbacks
from mmf_flava.compat.mmf_api.shared_attributes import share_attributes
from mmf_flava.config.run import MultitaskingConfig

__all__ = [
    "MMF_TRAINER",
    "STRATEGIES_HINT",
    "build_callbacks",
    "build_dataset",
    "build_iteration_strategy",
    "check_callbacks",
    "log",
    "register_loss_if_missing",
    "strategy_schemas",
    "write_predictions",
]

MMF_TRAINER = "mmf"  # value of training.trainer that selects MMF's trainer
STRATEGIES_HINT = "register other strategies with registry.register_iteration_strategy in env.user_dir"

logger = logging.getLogger("mmf.flava")


def build_dataset(name: str, config: Any, split: str) -> Dataset | None:
    """Build a split of a dataset with its registered builder or data module. Return None if it lacks this split.

    Rank 0 first creates missing files. If a user's builder defines its own data loader, the dataset gets the attribute
    ``loader_collate``: the function with which this loader collates samples.
    """
    module: Any = build_datamodule(name)
    with share_attributes(module):
        if is_main():
            module.prepare_data(config)
        synchronize()
    dataset: Any = None
    base = BaseDatasetBuilder if isinstance(module, BaseDatasetBuilder) else LightningDataModule
    if base is BaseDatasetBuilder:
        module.config, dataset = config, module.load_dataset(config, split)
        if hasattr(module, "update_registry_for_model"):  # MMF's base class does not define it
            module.update_registry_for_model(config)
        if dataset is None or type(module).__module__.startswith("mmf_flava."):
            return dataset
        setattr(module, f"{split}_dataset", dataset)
    else:
        module.setup(config=config)
    methods = f"{split}_dataloader", "build_dataloader"
    if all(getattr(type(module), method, None) is getattr(base, method, None) for method in methods):
        return dataset
    loader = getattr(module, methods[0])()
    loader.dataset.loader_collate = loader.collate_fn
    return loader.dataset


def strategy_schemas() -> dict[str, type]:
    """Return the dataclass of ``multitasking.params`` for each registered ``multitasking.type``."""
    strategies: Mapping[str, Any] = registry.mapping["iteration_strategy_name_mapping"]
    return {name: strategy.Config for name, strategy in strategies.items()}


def build_iteration_strategy(multitasking: MultitaskingConfig, datasets: Mapping[str, Any]) -> Callable[[], int]:
    """Build the iteration strategy: a function that returns the index of the dataset for the next update."""
    loaders: Any = {name: SimpleNamespace(dataset=dataset) for name, dataset in datasets.items()}
    enabled = multitasking.enabled and len(datasets) > 1
    section = {"enabled": enabled, "type": multitasking.type, "params": multitasking.params}
    strategy: Callable[[], int] = mmf_build_iteration_strategy(OmegaConf.create(section), loaders)
    return strategy


def register_loss_if_missing(name: str) -> Callable[[type], type]:
    """Decorator: return the loss unchanged, because MMF's main branch has a loss of this name."""
    return lambda loss: loss


def write_predictions(dataset: Any, split: str, rows: list[dict[str, Any]]) -> None:
    """Write the predictions of a dataset to the file, and in the format, of MMF's ``mmf_predict``."""
    module = SimpleNamespace(dataset_name=dataset.dataset_name)
    config = registry.get("config").evaluation.reporter
    reporter = build_test_reporter({dataset.dataset_name: module}, config, split)
    reporter.report = dataset.on_prediction_end(rows) if hasattr(dataset, "on_prediction_end") else rows
    reporter.flush_report()


def log(message: str) -> None:
    """Log a message to the terminal and ``train.log``. Only the first process logs."""
    if is_main():
        logger.info(message)
