"""The lines that ``mmf_flava.plan`` prints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmf_flava.config.schedule import schedule_warning
from mmf_flava.data.records import open_records
from mmf_flava.errors import UserError
from mmf_flava.plan.datasets import DatasetPlan
from mmf_flava.plan.learning_rate import LearningRate
from mmf_flava.plan.missing import dataset_paths
from mmf_flava.plan.timing import Timing
from mmf_flava.report.wording import format_duration, format_setting
from mmf_flava.training.disk import format_size, free_space
from mmf_flava.training.memory import MemoryEstimate


def data_lines(plans: Sequence[DatasetPlan]) -> list[str]:
    """Return a line for each dataset."""
    lines = []
    for plan in plans:
        others = ", ".join(f"{split} {count:,}" for split, count in plan.records.items() if split != "train")
        lines.append(
            f"  {plan.name}: {plan.records.get('train', 0):,} records{f' ({others})' * bool(others)}; "
            f"{plan.updates:,} updates, {plan.samples:,} samples, {plan.epochs:,.1f} epochs"
        )
    return lines


def count_lines(config: Any) -> list[str]:
    """Return the numbers of records of datasets that cannot be opened yet, as far as their files are there."""
    lines = []
    for name in config.datasets.split(","):
        section = config.dataset_config.get(name) or {}
        try:
            paths = dataset_paths(config, name, "train") or [Path(str(section.get("data_dir"))).expanduser()]
            images, columns = section.get("image_dir"), section.get("columns")
            records = open_records(paths, images=images, columns=columns, images_required=False)
            count = f"{len(records):,} records"
        except (UserError, OSError):
            count = "not counted, see below"
        lines.append(f"  {name}: {count}")
    return lines


def training_lines(config: Any, rate: LearningRate) -> list[str]:
    """Return the lines about the updates and the learning rate."""
    training = config.training
    accumulated = training.get("update_frequency", 1)
    batches = f" in {accumulated} batches" if accumulated > 1 else ""
    samples = training.batch_size * accumulated
    lines = [
        f"Updates: {training.max_updates:,} of {samples:,} samples{batches}, {training.max_updates * samples:,} samples"
    ]
    scheduler, params = config.get("scheduler") or {}, (config.get("scheduler") or {}).get("params") or {}
    name = scheduler.get("type") if training.lr_scheduler else "constant"
    words = [f"Learning rate: peak {format_setting(rate.peak)}"]
    if rate.peak_update is not None and training.lr_scheduler:
        words.append(f"at update {rate.peak_update:,} of {training.max_updates:,}")
    if (warmup := params.get("num_warmup_steps")) and training.lr_scheduler:
        words.append(f"after a warm-up of {warmup:,} updates")
    if rate.last is not None:
        words.append(f"and {format_setting(rate.last)} at the end")
    lines.append(" ".join(words) + f" ({config.optimizer.type}, {name})")
    if warning := schedule_warning(config):
        lines.append(f"Warning: {warning}")
    return lines


def memory_line(estimate: MemoryEstimate | None, timing: Timing | None) -> str:
    """Return the line about the memory of a process."""
    words = []
    if estimate is not None:
        batch = f"a batch of {estimate.batch_size:,} samples of {estimate.dataset}"
        words.append(f"{format_size(estimate.total)} per process estimated for {batch}")
    if timing is not None:
        words.append(f"{format_size(timing.memory)} measured on {timing.device} with {timing.batch_size:,} samples")
    return f"Memory: {'; '.join(words) or 'not estimated for this model; the timed updates measure it'}"


def disk_line(config: Any, checkpoint: int, folder: Path) -> tuple[str, str | None]:
    """Return the line about the disk space of the checkpoints, and a problem if there is not enough.

    Args:
        checkpoint: bytes of a checkpoint.
        folder: the run folder.
    """
    keep = config.checkpoint.max_to_keep
    saves = -(-config.training.max_updates // max(config.training.checkpoint_interval or 1, 1))
    count = min(saves, keep + 1) if keep > 0 else saves  # the newest ones and the best one
    needed = max(count, 1) * checkpoint
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = free_space(existing)
    line = f"Disk: {max(count, 1)} checkpoints of {format_size(checkpoint)} in {folder} are {format_size(needed)}"
    if free is None:
        return line, None
    line += f"; {format_size(free, round_up=False)} are free"
    if needed <= free:
        return line, None
    return line, (
        f"env.save_dir: checkpoints need {format_size(needed)}, but {existing} has {format_size(free, False)} free. "
        "Free some space, set another env.save_dir, or set a smaller checkpoint.max_to_keep."
    )


def time_line(config: Any, plans: Sequence[DatasetPlan], timing: Timing, processes: int) -> str:
    """Return the line about the duration of the training."""
    batch = config.training.batch_size / processes
    scale = batch / timing.batch_size
    seconds = sum(plan.updates * timing.seconds.get(plan.name, 0.0) for plan in plans) * scale
    each = ", ".join(f"{name} {format_duration(value)}" for name, value in timing.seconds.items())
    samples = f"{timing.batch_size:,} samples" + ("" if scale == 1 else f", scaled to {batch:,.0f}")
    several = f" on {processes} processes" if processes > 1 else ""
    return (
        f"Time: {format_duration(seconds)}{several}, from timed updates of {samples} on {timing.device} ({each}), "
        "without evaluations and checkpoints"
    )
