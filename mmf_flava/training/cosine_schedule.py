"""``scheduler.type: flava_cosine``: the schedules of DINO (Caron et al., 2021, "Implementation details").

The learning rate increases linearly from 0 and then decreases on a half cosine to its minimum. The weight decay follows
a half cosine over the whole run. Both are functions of the number of updates, so that a resumed run continues exactly.
"""

from typing import Any

import numpy as np
from mmf.common.registry import registry
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mmf_flava.errors import UserError


def cosine_value(update: int, first: float, last: float, total: int, warmup: int = 0) -> float:
    """Return the value of DINO's schedule in an update.

    In the warm-up, the value is linear from 0 in the first update to ``first`` in the last one; in a warm-up of one
    update it is 0. Over the n = ``total`` - ``warmup`` updates that follow, it is
    ``last + (first - last) * (1 + cos(pi * i / n)) / 2`` for i = 0, ..., n - 1.

    Args:
        update: number of updates before this one.
        total: number of updates of the schedule; later values are ``last``.
    """
    if update < warmup:
        return first if 0 < update == warmup - 1 else update * (first / max(warmup - 1, 1))
    if update >= total:
        return last
    # the order of the operations and the cosine of numpy are those of the published schedule, for equal rounding
    return last + 0.5 * (first - last) * (1 + float(np.cos(np.pi * (update - warmup) / (total - warmup))))


@registry.register_scheduler("flava_cosine")
class CosineSchedule(LRScheduler):
    """Schedule of the learning rate of all parameter groups, and of the weight decay of the decayed groups.

    The schedules start from the learning rate and the weight decay that a group has in the optimizer.

    Args:
        num_training_steps: number of updates of the run.
        num_warmup_steps: number of updates with increasing learning rate.
        warmup_epochs: sets ``num_warmup_steps`` once the training data are known, see ``config.schedule``.
        min_lr: the learning rate at the end.
        weight_decay_end: the weight decay at the end, for groups whose weight decay is not 0; None for a constant
            weight decay.

    Raises:
        UserError: the weight decay of all groups is 0, or the warm-up is not known.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        num_training_steps: int,
        num_warmup_steps: int | None = None,
        warmup_epochs: int | None = None,
        min_lr: float = 0.0,
        weight_decay_end: float | None = None,
    ) -> None:
        if warmup_epochs is not None and num_warmup_steps is None:
            raise UserError(
                "scheduler.params.warmup_epochs is only supported by training.trainer: flava. Set num_warmup_steps."
            )
        self.total, self.warmup, self.min_lr = num_training_steps, num_warmup_steps or 0, min_lr
        self.weight_decay_end = weight_decay_end
        decays = [float(group.get("weight_decay", 0.0)) for group in optimizer.param_groups]
        self.decays = {} if weight_decay_end is None else {n: decay for n, decay in enumerate(decays) if decay}
        if weight_decay_end is not None and not self.decays:
            raise UserError(
                "scheduler.params.weight_decay_end has no effect, because the weight decay of all parameters is 0. Set "
                "optimizer.params.weight_decay to the weight decay at the start, or weight_decay_end to null."
            )
        super().__init__(optimizer)

    @property
    def scheduled(self) -> tuple[str, ...]:
        """The hyperparameters that the schedule changes, except the learning rate."""
        return ("weight_decay",) if self.decays else ()

    @property
    def weight_decay(self) -> float | None:
        """The weight decay of the first decayed group in the next update; None if it is constant."""
        return next((self.optimizer.param_groups[number]["weight_decay"] for number in self.decays), None)

    def rate_at(self, update: int, rate: float) -> float:
        """Return the learning rate in an update, counted from 0, of a group whose learning rate is ``rate``."""
        return cosine_value(update, rate, self.min_lr, self.total, self.warmup)

    def get_lr(self) -> list[Any]:
        return [self.rate_at(self.last_epoch, float(rate)) for rate in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Set the learning rate and the weight decay of the next update."""
        super().step(epoch)
        for number, decay in self.decays.items():
            end = decay if self.weight_decay_end is None else self.weight_decay_end
            self.optimizer.param_groups[number]["weight_decay"] = cosine_value(self.last_epoch, decay, end, self.total)
