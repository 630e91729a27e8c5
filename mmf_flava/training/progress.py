"""Progress of a run: progress bar, log messages, ``metrics.jsonl``, TensorBoard, W&B.

Rates are measured since the previous record. The time of evaluations and checkpoints is excluded, and so is the wait
for the first batch of a process. Other time spent waiting for data is included. The rates per second are the first
process's rates times the number of processes. Fields of a record:

samples_per_second: images, texts or pairs.
tokens_per_second: image patches and text tokens including [CLS] and [SEP], without padding. Every token is
    counted once, although the encoders process a pair twice.
flops_per_second: floating-point operations that the model counts (``model_interface.batch_flops``), if it does.
data_wait: fraction of the time that the first process waited for a batch.
first_batch_seconds: seconds that the first process waited for its first batch, while the data loader workers started.
    Only in the first record after the start or a resume.
outputs: statistics of the model's outputs in the last update (``model_interface.output_statistics``), if it has any.
"""

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mmf_flava.command import bar_interval
from mmf_flava.compat import mmf_api
from mmf_flava.config.run import WandbConfig
from mmf_flava.losses.counts import loss_name
from mmf_flava.processes import mean_over_ranks, world_size
from mmf_flava.report.collapse import describe_collapse
from mmf_flava.training.metric_loggers import open_metric_loggers
from mmf_flava.training.model_interface import batch_flops, output_statistics
from mmf_flava.training.update_losses import UpdateLosses


class Progress:
    """Accumulates the losses and rates that ``report`` logs.

    Args:
        folder: the run folder, which contains ``metrics.jsonl``.
        config: the complete MMF config.
        wandb: the config section ``training.wandb``.
        model: the trained model, which may count FLOPs.
        start: number of updates before the run was resumed; 0 for a new run.
        seconds: training time in seconds before the run was resumed; 0 for a new run.
        silent: write nothing and only take part in collectives. True on all processes except the first.
    """

    def __init__(
        self,
        folder: Path,
        config: Any,
        wandb: WandbConfig,
        model: Any,
        start: int,
        seconds: float,
        silent: bool = False,
    ) -> None:
        self.total, self.update, self.silent, self.model = config.training.max_updates, start, silent, model
        self.metrics = folder / "metrics.jsonl"
        self.metric_loggers = [] if silent else open_metric_loggers(folder, config, wandb, resumed=start > 0)
        self.bar = tqdm(
            disable=silent,
            total=self.total,
            initial=start,
            unit="update",
            desc="training",
            dynamic_ncols=True,
            smoothing=0.1,
            mininterval=bar_interval(),
        )
        self.has_warned = False
        self.started = time.perf_counter() - seconds
        self.has_batch = False
        self.reset()

    def reset(self) -> None:
        """Reset losses and rates. Call this method after an evaluation or a checkpoint to exclude its time."""
        self.losses: dict[str, Tensor | float] = defaultdict(float)
        self.has_values: dict[str, list[float]] = defaultdict(list)  # of each update: 1 if the loss has values, else 0
        self.samples, self.tokens, self.flops = 0, 0, 0.0
        self.waited, self.first_wait, self.reset_time = 0.0, 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Training time in seconds, including evaluations and the training time before a resume."""
        return time.perf_counter() - self.started

    def add_batch(self, batch: Any, waited: float) -> None:
        """Add the sizes of a batch.

        Args:
            batch: the batch on the CPU.
            waited: seconds spent waiting for the batch.
        """
        self.samples += batch.get_batch_size()
        self.tokens += count_tokens(batch)
        self.flops += batch_flops(self.model, batch, world_size())
        if self.has_batch:
            self.waited += waited
        else:
            self.has_batch, self.first_wait = True, waited

    def add_update(self, losses: UpdateLosses) -> None:
        """Add the losses of a completed update, without copying them to the CPU, and advance the progress bar."""
        for key, value in losses.means.items():
            name = loss_name(key)
            self.losses[name] = self.losses[name] + value
            self.has_values[name].append(float(losses.count(key) > 0))
        self.update += 1
        self.bar.update()

    def report(self, lr: float, weight_decay: float | None = None) -> dict[str, float]:
        """Log the mean losses and rates since the last report. Must be called by all processes.

        Args:
            lr: the learning rate to log.
            weight_decay: the weight decay to log; None if no schedule changes it.

        Returns:
            The losses of the updates since the last report, averaged over the updates in which they have values. A loss
            without values, for example because no token is masked, is missing.
        """
        elapsed = time.perf_counter() - self.reset_time - self.first_wait
        losses = self._mean_losses()
        samples, tokens, flops = (n * world_size() / elapsed for n in (self.samples, self.tokens, self.flops))
        data_wait = self.waited / elapsed
        rates = {
            "samples_per_second": round(samples, 1),
            "tokens_per_second": round(tokens, 1),
            **({"flops_per_second": float(f"{flops:.4g}")} if flops else {}),
            "data_wait": round(data_wait, 4),
            **({"first_batch_seconds": round(self.first_wait, 2)} if self.first_wait else {}),
        }
        decay = {} if weight_decay is None else {"weight_decay": weight_decay}
        outputs = output_statistics(self.model)
        self.write("train", {"lr": lr, **decay, **rates, "losses": losses, **({"outputs": outputs} if outputs else {})})
        shown = ", ".join(f"{name.removeprefix('flava_')} {value:.3f}" for name, value in {**losses, **outputs}.items())
        counted = (f"{tokens:.0f} tokens/s, " if tokens else "") + (f"{format_flops(flops)}, " if flops else "")
        speed = f"{samples:.0f} samples/s, {counted}data wait {data_wait:.1%}"
        speed += f", first batch after {self.first_wait:.1f} s" if self.first_wait else ""
        self.bar.set_postfix_str(speed)
        decayed = "" if weight_decay is None else f"weight decay {weight_decay:.3g}, "
        mmf_api.log(f"update {self.update}/{self.total}: {shown}, lr {lr:.2e}, {decayed}{speed}")
        self._warn_of_collapse(outputs)
        self.reset()
        return losses

    def _warn_of_collapse(self, outputs: dict[str, float]) -> None:
        """Log once that the model's outputs do not depend on the images, if so after a tenth of the run."""
        sentence = describe_collapse(outputs) if self.update >= self.total / 10 and not self.has_warned else None
        if sentence is not None:
            self.has_warned = True
            mmf_api.log(f"Warning: {sentence}")

    def _mean_losses(self) -> dict[str, float]:
        names = sorted(self.losses)
        if not names:
            return {}
        sums = torch.stack([torch.as_tensor(self.losses[name]) for name in names])
        flags = [torch.tensor(self.has_values[name]).to(sums) for name in names]
        # one collective for both; an update counts if the loss has values on any process
        sums, *flags = mean_over_ranks(torch.cat([sums, *flags])).cpu().split([len(names), *map(len, flags)])
        counts = torch.stack([(flag > 0).sum() for flag in flags])
        means = (sums / counts.clamp(min=1)).tolist()
        return {name: mean for name, mean, count in zip(names, means, counts.tolist(), strict=True) if count}

    def write(self, split: str, metrics: dict[str, Any]) -> None:
        """Append a record to ``metrics.jsonl`` and send the metrics to the metric loggers."""
        if self.silent:
            return
        record = {"update": self.update, "split": split, "time": round(self.seconds, 2), **metrics}
        with open(self.metrics, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")
        for logger in self.metric_loggers:
            logger.add_scalars(dict(_flatten(split, metrics)), self.update)

    def close(self) -> None:
        """Close the progress bar and the metric loggers."""
        self.bar.close()
        for logger in self.metric_loggers:
            logger.close()


def count_tokens(batch: Any) -> int:
    """Return the number of image patches and text tokens of a batch without padding."""
    patches = batch["image_patch_mask"].numel() if "image_patch_mask" in batch else 0
    return patches + (int(batch["input_mask"].sum()) if "input_mask" in batch else 0)


def format_flops(per_second: float) -> str:
    """Format a number of FLOPs per second, e.g. 3.214e13 -> "32.1 TFLOP/s"; rates below 1e12 are in GFLOP/s."""
    size, unit = (1e12, "TFLOP/s") if per_second >= 1e12 else (1e9, "GFLOP/s")
    return f"{float(f'{per_second / size:.3g}'):g} {unit}"


def _flatten(prefix: str, metrics: dict[str, Any]) -> Any:
    for key, value in metrics.items():
        if isinstance(value, dict):
            yield from _flatten(f"{prefix}/{key}", value)
        elif isinstance(value, int | float):
            yield f"{prefix}/{key}", value
