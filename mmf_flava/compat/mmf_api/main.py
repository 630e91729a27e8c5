"""The main branch of MMF's repository."""

import logging
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from mmf.common.registry import registry
from mmf.utils.build import build_datamodule, build_iteration_strategy
from mmf.utils.distributed import is_main, synchronize
from omegaconf import OmegaConf
from torch.utils.data import Dataset

from mmf_flava.compat.mmf_api.callbacks import check_callbacks, user_callbacks
from mmf_flava.config.run import MultitaskingConfig

__all__ = [
    "FORMER_KEYS",
    "OTHER_STRATEGIES",
    "build_dataset",
    "check_callbacks",
    "iteration_strategy",
    "log",
    "register_loss_of_main",
    "strategy_schemas",
    "user_callbacks",
]

# what recipes for 1.0.0rc10 may say, and here has no meaning
FORMER_KEYS = {"training": {"stdout_capture"}}
OTHER_STRATEGIES = "your own comes by registry.register_iteration_strategy in env.user_dir"

logger = logging.getLogger("mmf.flava")


def build_dataset(name: str, config: Any, split: str) -> Dataset | None:
    """One split of a dataset by its registered builder; the first process builds what is not there."""
    module: Any = build_datamodule(name)
    if is_main():
        module.build_dataset(config)
    synchronize()
    dataset: Dataset | None = module.load_dataset(config, split)
    module.update_registry_for_model(config)
    return dataset


def strategy_schemas() -> dict[str, type]:
    """``multitasking.type`` -> the dataclass of its ``params``, of all that are registered."""
    strategies: Mapping[str, Any] = registry.mapping["iteration_strategy_name_mapping"]
    return {name: strategy.Config for name, strategy in strategies.items()}


def iteration_strategy(multitasking: MultitaskingConfig, datasets: Mapping[str, Any]) -> Callable[[], int]:
    """What returns, called for each update, the number of its dataset: MMF's own, or any that is registered."""
    loaders: Any = {name: SimpleNamespace(dataset=dataset) for name, dataset in datasets.items()}
    enabled = multitasking.enabled and len(datasets) > 1
    section = {"enabled": enabled, "type": multitasking.type, "params": multitasking.params}
    strategy: Callable[[], int] = build_iteration_strategy(OmegaConf.create(section), loaders)
    return strategy


def register_loss_of_main(name: str) -> Callable[[type], type]:
    """Decorator: leaves a loss alone that 1.0.0rc10 lacks, for here MMF has its own."""
    return lambda loss: loss


def log(message: str) -> None:
    """One line to MMF's log, on the terminal and in ``train.log``; the master process only."""
    if is_main():
        logger.info(message)
