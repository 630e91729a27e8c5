"""The learning rate over a run, from the optimizer and the schedule that the run builds."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from mmf_flava.compat import mmf_api
from mmf_flava.training.cosine_schedule import CosineSchedule

POINTS = 2000  # updates at which the schedule is computed, in addition to the warm-up's end


@dataclass(frozen=True)
class LearningRate:
    """The learning rate of the first parameter group; ``peak_update`` and ``last`` are None if they are not known."""

    peak: float
    peak_update: int | None = None
    last: float | None = None


def plan_learning_rate(config: Any) -> LearningRate:
    """Return the highest and the last learning rate of the run. ``config.training.max_updates`` must be set."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = mmf_api.build_optimizer([{"params": [parameter]}], config)
    rate = float(optimizer.param_groups[0]["lr"])
    if not config.training.lr_scheduler:
        return LearningRate(rate, 0, rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = mmf_api.build_scheduler(optimizer, config)
    rate_at: Callable[[int], float]
    if isinstance(scheduler, CosineSchedule):
        rate_at = partial(scheduler.rate_at, rate=rate)
    elif type(scheduler).get_lr is LambdaLR.get_lr:
        rate_at = lambda step: rate * scheduler.lr_lambdas[0](step)  # noqa: E731
    else:  # another schedule may depend on what was trained
        return LearningRate(rate)
    updates = config.training.max_updates
    warmup = int((config.scheduler.get("params") or {}).get("num_warmup_steps") or 0)
    steps = {*range(0, updates, max(updates // POINTS, 1)), min(warmup, updates - 1), updates - 1}
    rates = {step: rate_at(step) for step in sorted(steps)}
    peak = max(rates, key=lambda step: rates[step])
    return LearningRate(rates[peak], peak, rates[updates - 1])
