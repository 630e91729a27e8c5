"""MMF 1.0.0rc10."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmf.common.registry import registry
from mmf.utils.build import build_dataset
from omegaconf import MISSING

from mmf_flava.config.run import MultitaskingConfig
from mmf_flava.config.schema import parse
from mmf_flava.errors import UserError

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

# none: rc10 is the first line that recipes were written for
FORMER_KEYS: dict[str, set[str]] = {}
OTHER_STRATEGIES = "others need MMF's main branch"


class RoundRobin:
    """The datasets in turn (paper section 3.4)."""

    @dataclass
    class Config:
        name: str = "round_robin"
        # number of the dataset that comes first
        start_idx: int = 0

    def __init__(self, config: Config, datasets: Collection[str]) -> None:
        self.count, self.next = len(datasets), config.start_idx

    def __call__(self) -> int:
        number, self.next = self.next, (self.next + 1) % self.count
        return number


class Ratios:
    """Datasets drawn with these weights from numpy's global generator (the paper's are 0.70, 0.15, 0.15; A.2)."""

    @dataclass
    class Config:
        name: str = "ratios"
        sampling_ratios: dict[str, float] = MISSING

    def __init__(self, config: Config, datasets: Collection[str]) -> None:
        weights = np.array([config.sampling_ratios[name] for name in datasets], dtype=np.float64)
        self.shares = weights / weights.sum()

    def __call__(self) -> int:
        return int(np.random.choice(len(self.shares), p=self.shares))


STRATEGIES: dict[str, Any] = {"round_robin": RoundRobin, "ratios": Ratios}


def strategy_schemas() -> dict[str, type]:
    """``multitasking.type`` -> the dataclass of its ``params``."""
    return {name: strategy.Config for name, strategy in STRATEGIES.items()}


def iteration_strategy(multitasking: MultitaskingConfig, datasets: Collection[str]) -> Callable[[], int]:
    """What returns, called for each update, the number of its dataset; main has them, rc10 has none."""
    if not multitasking.enabled or len(datasets) == 1:
        return lambda: 0
    strategy = STRATEGIES[multitasking.type]
    made: Callable[[], int] = strategy(parse(strategy.Config, multitasking.params, "multitasking.params"), datasets)
    return made


def register_loss_of_main(name: str) -> Callable[[type], type]:
    """Decorator: registers a loss that the main branch has and 1.0.0rc10 lacks."""
    register: Callable[[type], type] = registry.register_loss(name)
    return register


def log(message: str) -> None:
    """One line to MMF's log, on the terminal and in ``train.log``; the master process only."""
    registry.get("writer").write(message)


def check_callbacks(config: Any) -> None:
    """Raises UserError where the recipe has callbacks: this line calls none."""
    if "callbacks" in config.training:
        raise UserError(
            "training.callbacks: MMF 1.0.0rc10 has no callbacks; leave the key out, or use MMF's main branch."
        )


def user_callbacks(config: Any, trainer: Any) -> list[Any]:
    """None: see ``check_callbacks``."""
    return []
