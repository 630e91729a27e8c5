"""Implementation of ``mmf_api`` for MMF 1.0.0rc10."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmf.common.registry import registry
from mmf.utils.build import build_dataset
from omegaconf import MISSING

from mmf_flava.config.run import MultitaskingConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.errors import UserError

logger = logging.getLogger(__name__)

__all__ = [
    "STRATEGIES_HINT",
    "build_callbacks",
    "build_dataset",
    "build_iteration_strategy",
    "check_callbacks",
    "log",
    "register_loss_if_missing",
    "strategy_schemas",
]

STRATEGIES_HINT = "other strategies require MMF's main branch"


class RoundRobin:
    """Iteration strategy that selects the datasets in order, one per update (FLAVA paper, §3.4)."""

    @dataclass
    class Config:
        name: str = "round_robin"
        # index of the first dataset
        start_idx: int = 0

    def __init__(self, config: Config, datasets: Collection[str]) -> None:
        self.count, self.next = len(datasets), config.start_idx

    def __call__(self) -> int:
        index, self.next = self.next, (self.next + 1) % self.count
        return index


class Ratios:
    """Iteration strategy that samples datasets by ``sampling_ratios`` (0.70, 0.15 and 0.15 in the paper, section A.2).

    Uses numpy's global random number generator.
    """

    @dataclass
    class Config:
        name: str = "ratios"
        sampling_ratios: dict[str, float] = MISSING

    def __init__(self, config: Config, datasets: Collection[str]) -> None:
        weights = np.array([config.sampling_ratios[name] for name in datasets], dtype=np.float64)
        self.probabilities = weights / weights.sum()

    def __call__(self) -> int:
        return int(np.random.choice(len(self.probabilities), p=self.probabilities))


STRATEGIES: dict[str, Any] = {"round_robin": RoundRobin, "ratios": Ratios}


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


def check_callbacks(config: Any) -> None:
    """Raise UserError if the config has callbacks, which MMF 1.0.0rc10 does not support."""
    if "callbacks" in config.training:
        raise UserError("training.callbacks is not supported by MMF 1.0.0rc10. Remove it, or use MMF's main branch.")


def build_callbacks(config: Any, trainer: Any) -> list[Any]:
    """Return an empty list, because MMF 1.0.0rc10 does not support callbacks."""
    return []
