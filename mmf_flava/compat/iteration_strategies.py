"""Iteration strategies for MMF 1.0.0rc10, which has no ``multitasking``. MMF's main branch has both, and others."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import MISSING

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
