"""The number of updates of a run, and warnings about a learning rate schedule that does not fit it."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import open_dict

COSINE = "flava_cosine"
INTERVALS = ("evaluation_interval", "checkpoint_interval")  # keys of training; null: one epoch


def updates_of_epochs(config: Any, epochs: int, sizes: Iterable[int]) -> int:
    """Return the number of updates of a number of epochs E: ceil(E * N / (B * update_frequency)).

    Args:
        config: the complete config, in which ``training.batch_size`` is the global batch size B.
        sizes: number of training samples of each dataset; their sum is N.
    """
    training = config.training
    per_update = training.batch_size * training.get("update_frequency", 1)
    return math.ceil(epochs * sum(sizes) / per_update)


def updates_per_epoch(config: Any, sizes: Iterable[int]) -> int:
    """Return the number of complete updates of an epoch, floor(N / (B * update_frequency)); at least 1.

    Args:
        config, sizes: see ``updates_of_epochs``.
    """
    training = config.training
    return max(sum(sizes) // (training.batch_size * training.get("update_frequency", 1)), 1)


def depends_on_data(config: Any) -> bool:
    """Return whether the length of the run or of its warm-up is given in epochs, so that it depends on the data."""
    return config.training.get("max_epochs") is not None or _warmup_epochs(config) is not None


def _warmup_epochs(config: Any) -> int | None:
    scheduler = config.get("scheduler") or {}
    used = config.training.get("lr_scheduler") and scheduler.get("type") == COSINE
    return (scheduler.get("params") or {}).get("warmup_epochs") if used else None


def set_updates_of_epochs(config: Any, datasets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Set ``training.max_updates``, and thereby the schedule, if ``training.max_epochs`` is given, as MMF does.

    Intervals that are null become the updates of one epoch. ``warmup_epochs`` of the scheduler ``flava_cosine`` sets
    ``num_warmup_steps``, with complete updates of an epoch as in DINO. Must be called after the training data and
    before optimizer and schedule are built.

    Args:
        config: see ``updates_of_epochs``.
        datasets: split -> dataset name -> dataset.

    Returns:
        Messages for the log.
    """
    training, sizes = config.training, [len(dataset) for dataset in datasets["train"].values()]
    for name in INTERVALS:
        if training.get(name, 1) is None:
            training[name] = updates_of_epochs(config, 1, sizes)
    messages = []
    if training.max_epochs is not None:
        training.max_updates = updates_of_epochs(config, training.max_epochs, sizes)
        messages.append(f"training.max_epochs: {training.max_epochs} epochs are {training.max_updates} updates.")
    if (epochs := _warmup_epochs(config)) is not None:
        params, updates = config.scheduler.params, epochs * updates_per_epoch(config, sizes)
        with open_dict(params):
            params.num_warmup_steps = updates
        messages.append(f"scheduler.params.warmup_epochs: {epochs} epochs are {updates} updates.")
    warning = schedule_warning(config) if messages else None
    return [*messages, f"Warning: {warning}"] if warning else messages


def schedule_warning(config: Any) -> str | None:
    """Return a warning if the warm-up or the schedule of the learning rate does not fit the run, else None."""
    scheduler, updates = config.get("scheduler") or {}, config.training.get("max_updates")
    if not (config.training.get("lr_scheduler") and "train" in config.run_type and updates):
        return None
    params = scheduler.get("params") or {}
    warmup, steps = params.get("num_warmup_steps"), params.get("num_training_steps")
    rate = ((config.get("optimizer") or {}).get("params") or {}).get("lr")
    warnings = []
    # the update in which the learning rate is the highest; flava_cosine reaches it in the warm-up's last update
    peak = warmup - (scheduler.get("type") == COSINE) if warmup else 0
    if warmup and rate and peak >= updates:
        warnings.append(
            f"scheduler.params.num_warmup_steps: {warmup} is not less than training.max_updates, {updates}. The "
            f"learning rate reaches at most {rate * (updates - 1) / peak:.3g} instead of {rate:g}."
        )
    minimum = params.get("min_lr") or 0
    if scheduler.get("type") == COSINE and rate and minimum > rate:
        warnings.append(
            f"scheduler.params.min_lr: {minimum:g} is above optimizer.params.lr, {rate:g}. The learning rate "
            "increases to it."
        )
    if steps and steps < updates:
        warnings.append(
            f"scheduler.params.num_training_steps: {steps} is less than training.max_updates, {updates}. The schedule "
            f"of the learning rate ends after {steps} updates. Set it to ${{training.max_updates}}."
        )
    return " ".join(warnings) or None
