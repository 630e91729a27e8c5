"""Exponential moving averages of weights (``training.ema``), updated after every optimizer step."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from mmf_flava.config.close_matches import close_matches
from mmf_flava.config.run import EmaConfig
from mmf_flava.config.schema import suggestion
from mmf_flava.errors import UserError
from mmf_flava.training.engine import Engine, Masters


def momentum_at(update: int, first: float, last: float | None, total: int) -> float:
    """Return the momentum of an update, counted from 0: constant, or on a cosine as in DINO.

    Args:
        last: the momentum after ``total`` updates; None for a constant momentum.
    """
    if last is None:
        return first
    return last - (last - first) * (1 + math.cos(math.pi * min(update / total, 1))) / 2


class MovingAverage:
    """Averages of named weights: ``average = momentum * average + (1 - momentum) * weight``.

    Args:
        weights: name -> weight; the slices of this process if the weights are sharded.
        momentum: function of the update, counted from 0.
        start: number of updates before averaging starts; until then, the averages are copies of the weights.
        averages: name -> tensor to store the average in, e.g. the parameters of a teacher. Default: fp32 copies of the
            weights.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        momentum: Callable[[int], float],
        start: int = 0,
        averages: dict[str, Tensor] | None = None,
    ) -> None:
        self.momentum, self.start = momentum, start
        if averages is None:
            averages = {name: weight.detach().to(torch.float32, copy=True) for name, weight in weights.items()}
        self.averages = averages

    @classmethod
    def of_run(cls, weights: Mapping[str, Tensor], config: EmaConfig, total: int) -> "MovingAverage":
        """Return the averages of ``training.ema``.

        Args:
            weights: all trained weights by name.
            total: number of updates of the run.

        Raises:
            UserError: no weight is in one of the modules ``config.modules``.
        """
        momentum = partial(momentum_at, first=config.momentum, last=config.final_momentum, total=total)
        modules = _modules(weights)
        for name in config.modules:
            if name not in modules:
                known = modules if close_matches(name, modules) else {path for path in modules if path.count(".") < 2}
                raise UserError(
                    f"training.ema.modules: the model has no trained module '{name}'.{suggestion(name, known)}"
                )
        inside = tuple(f"{name}." for name in config.modules)
        chosen = {name: weight for name, weight in weights.items() if not inside or f"{name}.".startswith(inside)}
        return cls(chosen, momentum, config.start)

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], update: int) -> None:
        """Update the averages after an optimizer step.

        Args:
            weights: the new weights; further names are ignored.
            update: number of updates before this one.
        """
        momentum = self.momentum(update) if update >= self.start else 0.0
        new = [weights[name] for name in self.averages]
        torch._foreach_lerp_([*self.averages.values()], new, 1 - momentum)

    @contextmanager
    def swapped_in(self, engine: Engine, masters: Masters) -> Iterator[None]:
        """Exchange the weights of the model for the averages, e.g. for an evaluation."""
        self._swap(engine, masters)
        try:
            yield
        finally:
            self._swap(engine, masters)

    @torch.no_grad()
    def _swap(self, engine: Engine, masters: Masters) -> None:
        for weight, master in masters.items():
            if (average := self.averages.get(engine.names[weight])) is not None:
                value = master.clone()
                master.copy_(average)
                average.copy_(value)
                weight.copy_(master)  # they differ in fp16
        engine.finish_step()


def _modules(names: Iterable[str]) -> set[str]:
    """Return the paths of the modules with these parameters, and the parameters themselves."""
    return {name.rsplit(".", count)[0] for name in names for count in range(name.count(".") + 1)}
