"""Hyperparameters of a resumed optimizer: those of the present recipe, at the checkpoint's position in the schedule."""

import json
import warnings
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from mmf_flava.errors import UserError
from mmf_flava.training.cosine_schedule import CosineSchedule

INITIAL = "initial"  # key of a saved parameter group: its hyperparameters at update 0
RATES = ("lr", "initial_lr")
# option of an optimizer of torch -> entry of the state that it needs; the entry is zero at first
ENTRIES = {"amsgrad": "max_exp_avg_sq", "centered": "grad_avg", "momentum": "momentum_buffer"}

Groups = list[dict[str, Any]]


def read_hyperparameters(optimizer: torch.optim.Optimizer) -> Groups:
    """Return the hyperparameters of each parameter group, as JSON stores them."""
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return json.loads(json.dumps(groups, default=list))  # type: ignore[no-any-return]


def scheduled_names(scheduler: Any) -> tuple[str, ...]:
    """Return the hyperparameters that a schedule sets in every update: the learning rate, and those it names."""
    return (*RATES, *getattr(scheduler, "scheduled", ()))


def saved_groups(groups: Groups, initial: Groups, scheduled: tuple[str, ...]) -> Groups:
    """Return parameter groups for a checkpoint, with their hyperparameters at update 0 under ``INITIAL``.

    Except for the learning rate, hyperparameters that the schedule sets have their value at update 0: another recipe
    without the schedule continues with this value, unless it changes it.
    """
    reset = [name for name in scheduled if name not in RATES]
    return [
        {**group, **{name: first[name] for name in reset if name in first}, INITIAL: first}
        for group, first in zip(groups, initial, strict=True)
    ]


def merge_groups(saved: Groups, initial: Groups, current: Groups, scheduled: tuple[str, ...] = RATES) -> Groups:
    """Return the saved parameter groups with the hyperparameters of the present recipe.

    A hyperparameter that the recipe does not change keeps its saved value, because some optimizers and schedulers
    adapt hyperparameters during training. The learning rate and what else the schedule sets are always those of
    ``current``.

    Args:
        saved: parameter groups of a checkpoint, with key ``INITIAL``.
        initial: hyperparameters of the present optimizer before it had a scheduler.
        current: the present optimizer's parameter groups.
        scheduled: names of the hyperparameters that the present schedule sets.

    Raises:
        UserError: the numbers of parameters differ.
    """
    sizes = [[len(group["params"]) for group in groups] for groups in (saved, current)]
    if sizes[0] != sizes[1]:
        before, now = (f"groups of {counts}" if len(counts) < 5 else f"{len(counts)} groups of" for counts in sizes)
        raise UserError(
            f"The optimizer state of the checkpoint is of {before} parameters, that of this run of {now} parameters. "
            "Restore the recipe, e.g. freeze, lr_multiplier or layer_decay, or set checkpoint.reset.optimizer=true to "
            "start with a new optimizer."
        )
    return [_merge(*groups, scheduled) for groups in zip(saved, initial, current, strict=True)]


def _merge(
    saved: dict[str, Any], initial: dict[str, Any], current: dict[str, Any], scheduled: tuple[str, ...]
) -> dict[str, Any]:
    before = saved.get(INITIAL, {})
    changed = {
        key: value
        for key, value in current.items()
        if key != "params" and (key in scheduled or key not in before or before[key] != initial.get(key))
    }
    return {**{key: value for key, value in saved.items() if key != INITIAL}, **changed}


def add_missing_state(optimizer: torch.optim.Optimizer) -> None:
    """Add the entries to an optimizer's state that it did not need with the hyperparameters of the checkpoint."""
    for group in optimizer.param_groups:
        names = [name for option, name in ENTRIES.items() if group.get(option)]
        for parameter in group["params"]:
            if state := optimizer.state.get(parameter):
                state.update({name: torch.zeros_like(parameter) for name in names if name not in state})


def advance(scheduler: LRScheduler, steps: int) -> None:
    """Advance a new scheduler by a number of steps, as training did."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        # a function of the number of steps need not be called for every step
        is_lambda = type(scheduler).get_lr is LambdaLR.get_lr and type(scheduler).step is LRScheduler.step
        if steps and (is_lambda or isinstance(scheduler, CosineSchedule)):
            scheduler.last_epoch += steps - 1
            steps = 1
        for _ in range(steps):
            scheduler.step()
