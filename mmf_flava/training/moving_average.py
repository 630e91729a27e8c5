"""Exponential moving averages of weights (``training.ema``), updated after every optimizer step."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from mmf_flava.config.close_matches import close_matches
from mmf_flava.config.run import EmaConfig
from mmf_flava.config.schema import suggestion
from mmf_flava.errors import UserError
from mmf_flava.models.averages import WeightAverages, momentum_at
from mmf_flava.training.engine import Engine, Masters


class MovingAverage(WeightAverages):
    """The averages of a run, which can be exchanged for the weights of its model."""

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
