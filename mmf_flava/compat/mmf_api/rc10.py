"""Implementation of ``mmf_api`` for MMF 1.0.0rc10."""

import logging
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

from mmf.common.registry import registry
from torch.utils.data import Dataset

from mmf_flava.compat.iteration_strategies import STRATEGIES, STRATEGIES_HINT
from mmf_flava.compat.mmf_api.shared_attributes import share_attributes
from mmf_flava.config.run import MultitaskingConfig
from mmf_flava.config.schema import parse_section

logger = logging.getLogger(__name__)

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

MMF_TRAINER = "base_trainer"  # value of training.trainer that selects MMF's trainer


def build_dataset(name: str, config: Any, split: str) -> Dataset | None:
    """Build a split of a dataset with its registered builder. Return None if it lacks this split.

    Rank 0 first creates missing files.
    """
    builder = registry.get_builder_class(name)()
    with share_attributes(builder):
        builder.build_dataset(config, split)
    dataset: Dataset | None = builder.load_dataset(config, split)
    builder.update_registry_for_model(config)
    return dataset


def strategy_schemas() -> dict[str, type]:
    """Return the dataclass of ``multitasking.params`` for each ``multitasking.type``."""
    return {name: strategy.Config for name, strategy in STRATEGIES.items()}


def build_iteration_strategy(multitasking: MultitaskingConfig, datasets: Collection[str]) -> Callable[[], int]:
    """Build the iteration strategy: a function that returns the index of the dataset for the next update."""
    if not multitasking.enabled or len(datasets) == 1:
        return lambda: 0
    strategy = STRATEGIES[multitasking.type]
    params = parse_section(strategy.Config, multitasking.params, "multitasking.params")
    built: Callable[[], int] = strategy(params, datasets)
    return built


def register_loss_if_missing(name: str) -> Callable[[type], type]:
    """Decorator: register a loss that MMF's main branch has and MMF 1.0.0rc10 does not have."""
    register: Callable[[type], type] = registry.register_loss(name)
    return register


def log(message: str) -> None:
    """Log a message to the terminal and ``train.log`` on the first process. Outside a run, use Python's logging."""
    if writer := registry.get("writer", no_warning=True):
        writer.write(message)
    else:
        logger.info(message)


def write_predictions(dataset: Any, split: str, rows: list[dict[str, Any]]) -> None:
    """Write the predictions of a dataset to the file, and in the format, of MMF's ``mmf_predict``."""
    from mmf.common.test_reporter import TestReporter

    reporter = TestReporter(SimpleNamespace(dataset_type=split, get_datasets=lambda: [dataset]))
    reporter.report = rows
    reporter.flush_report()


def check_callbacks(config: Any) -> None:
    """Do nothing. MMF 1.0.0rc10 does not support callbacks, so the check of all keys refuses ``training.callbacks``."""


def build_callbacks(config: Any, trainer: Any) -> list[Any]:
    """Return an empty list, because MMF 1.0.0rc10 does not support callbacks."""
    return []
