"""What a run says while it goes: progress bar, log lines, ``metrics.jsonl``, TensorBoard, W&B.

Rates are of the seconds since the line before, evaluations and checkpoints left out, waiting for data included, and of
all processes together:

samples_per_second: images, texts or pairs.
tokens_per_second: patches of images and word pieces of texts, [CLS] and [SEP] among them, padding not; each once,
    though a pair passes the encoders twice.
flops_per_second: see ``flops``; of the first process, times their number.
data_wait: share of the time in which the first process had no batch.
"""

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import WandbConfig
from mmf_flava.evaluation.features import bar_interval
from mmf_flava.ranks import mean_over_ranks, world_size
from mmf_flava.training.boards import open_boards
from mmf_flava.training.flops import batch_flops


class Progress:
    """Collects losses step by step and tells of them every ``log_interval`` updates.

    Args:
        folder: the run's folder, where ``metrics.jsonl`` is appended to.
        config: the whole recipe.
        wandb: its section ``training.wandb``.
        model: what is trained; its sizes say how many operations a batch takes.
        start: updates that were done before this process began.
        seconds: training time before this process began.
        silent: this process only takes part in the sums; another one tells.
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
        self.boards = [] if silent else open_boards(folder, config, wandb, resumed=start > 0)
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
        self.began = time.perf_counter() - seconds
        self._reset()

    def _reset(self) -> None:
        self.losses: dict[str, Tensor | float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.samples, self.tokens, self.flops = 0, 0, 0.0
        self.waited, self.since = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Training time so far, evaluations and earlier parts of a resumed run included."""
        return time.perf_counter() - self.began

    def batch(self, losses: dict[str, Tensor], batch: Any, waited: float) -> None:
        """Notes one batch: its losses (left on their device), itself (on the CPU), the seconds it was waited for."""
        for key, value in losses.items():
            name = key.rpartition("/")[2]
            self.losses[name] = self.losses[name] + value.detach().mean()
            self.counts[name] += 1
        self.samples += len(batch["sample_id"])
        self.tokens += tokens(batch)
        self.flops += batch_flops(self.model.settings, self.model.needs, batch, world_size())
        self.waited += waited

    def step(self) -> None:
        """Notes one update."""
        self.update += 1
        self.bar.update()

    def report(self, lr: float) -> dict[str, float]:
        """Writes one line about the updates since the last, and returns the mean losses over all processes.

        Every process must call it.
        """
        took = time.perf_counter() - self.since
        names = sorted(self.losses)
        means = torch.stack([torch.as_tensor(self.losses[name] / self.counts[name]) for name in names])
        losses = dict(zip(names, mean_over_ranks(means).tolist(), strict=True))
        rate, per_token, flops = (count * world_size() / took for count in (self.samples, self.tokens, self.flops))
        wait = self.waited / took
        rates = {
            "samples_per_second": round(rate, 1),
            "tokens_per_second": round(per_token, 1),
            "flops_per_second": float(f"{flops:.4g}"),
            "data_wait": round(wait, 4),
        }
        self.write("train", {"lr": lr, **rates, "losses": losses})
        shown = ", ".join(f"{name.removeprefix('flava_')} {value:.3f}" for name, value in losses.items())
        speed = f"{rate:.0f} samples/s, {per_token:.0f} tokens/s, {operations(flops)}, wait {wait:.1%}"
        self.bar.set_postfix_str(speed)
        mmf_api.log(f"update {self.update}/{self.total}: {shown}, lr {lr:.2e}, {speed}")
        self._reset()
        return losses

    def write(self, split: str, figures: dict[str, Any]) -> None:
        """Appends a line to ``metrics.jsonl`` and the same figures to the boards."""
        if self.silent:
            return
        line = {"update": self.update, "split": split, "time": round(self.seconds, 2), **figures}
        with open(self.metrics, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
        for board in self.boards:
            board.add_scalars(dict(_flatten(split, figures)), self.update)

    def pause(self) -> None:
        """Leaves the time since now out of the next line's rates; call after an evaluation or a save."""
        self._reset()

    def close(self) -> None:
        """Ends the bar and the boards."""
        self.bar.close()
        for board in self.boards:
            board.close()


def tokens(batch: Any) -> int:
    """Patches and word pieces of a batch, padding left out."""
    patches = batch["image_patch_mask"].numel() if "image_patch_mask" in batch else 0
    return patches + (int(batch["input_mask"].sum()) if "input_mask" in batch else 0)


def operations(per_second: float) -> str:
    """3.214e13 -> "32.1 TFLOP/s"; a CPU has GFLOP/s."""
    size, unit = (1e12, "TFLOP/s") if per_second >= 1e12 else (1e9, "GFLOP/s")
    return f"{float(f'{per_second / size:.3g}'):g} {unit}"


def _flatten(prefix: str, figures: dict[str, Any]) -> Any:
    for key, value in figures.items():
        if isinstance(value, dict):
            yield from _flatten(f"{prefix}/{key}", value)
        elif isinstance(value, int | float):
            yield f"{prefix}/{key}", value
