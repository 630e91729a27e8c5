"""What a run says while it goes: progress bar, log lines, ``metrics.jsonl``, TensorBoard."""

import json
import math
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mmf_flava.compat import mmf_api
from mmf_flava.errors import UserError
from mmf_flava.losses.ranks import world_size
from mmf_flava.training.sharding import mean_over_ranks


class Progress:
    """Collects losses step by step and tells of them every ``log_interval`` updates.

    Args:
        folder: the run's folder, where ``metrics.jsonl`` is appended to.
        total: updates of the whole run.
        start: updates that were done before this process began.
        seconds: training time before this process began.
        tensorboard: whether to write TensorBoard files to ``logs/`` as well.
        silent: this process only takes part in the sums; another one tells.
    """

    def __init__(
        self, folder: Path, total: int, start: int, seconds: float, tensorboard: bool, silent: bool = False
    ) -> None:
        self.total, self.update, self.silent = total, start, silent
        self.metrics = folder / "metrics.jsonl"
        self.board = mmf_api.TensorboardLogger(str(folder / "logs")) if tensorboard and not silent else None
        self.bar = tqdm(
            disable=silent,
            total=total,
            initial=start,
            unit="update",
            desc="training",
            dynamic_ncols=True,
            smoothing=0.1,
            mininterval=0.2 if sys.stderr.isatty() else 30,  # a log file is no place for a moving bar
        )
        self.began = time.perf_counter() - seconds
        self._reset()

    def _reset(self) -> None:
        self.losses: dict[str, Tensor | float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.samples, self.waited, self.since = 0, 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Training time so far, evaluations and earlier parts of a resumed run included."""
        return time.perf_counter() - self.began

    def batch(self, losses: dict[str, Tensor], samples: int, waited: float) -> None:
        """Notes one batch: its losses (left on their device), its size, the seconds it was waited for."""
        for key, value in losses.items():
            name = key.rpartition("/")[2]
            self.losses[name] = self.losses[name] + value.detach().mean()
            self.counts[name] += 1
        self.samples += samples
        self.waited += waited

    def step(self) -> None:
        """Notes one update."""
        self.update += 1
        self.bar.update()

    def report(self, lr: float) -> dict[str, float]:
        """Writes one line about the updates since the last, and returns the mean losses over all processes.

        Every process must call it.

        Raises:
            UserError: a loss is NaN or infinite.
        """
        took = time.perf_counter() - self.since
        names = sorted(self.losses)
        means = torch.stack([torch.as_tensor(self.losses[name] / self.counts[name]) for name in names])
        losses = dict(zip(names, mean_over_ranks(means).tolist(), strict=True))
        for name, value in losses.items():
            if not math.isfinite(value):
                raise UserError(
                    f"{name} became {value} before update {self.update}; lower optimizer.params.lr or set "
                    "training.clip_gradients=true with training.max_grad_l2_norm, and resume from the last checkpoint."
                )
        rate, wait = self.samples * world_size() / took, self.waited / took
        self.write(
            "train", {"lr": lr, "samples_per_second": round(rate, 1), "data_wait": round(wait, 4), "losses": losses}
        )
        shown = ", ".join(f"{name.removeprefix('flava_')} {value:.3f}" for name, value in losses.items())
        self.bar.set_postfix_str(f"{rate:.0f} samples/s")
        mmf_api.log(f"update {self.update}/{self.total}: {shown}, lr {lr:.2e}, {rate:.0f} samples/s, wait {wait:.1%}")
        self._reset()
        return losses

    def write(self, split: str, figures: dict[str, Any]) -> None:
        """Appends a line to ``metrics.jsonl`` and the same figures to TensorBoard."""
        if self.silent:
            return
        line = {"update": self.update, "split": split, "time": round(self.seconds, 2), **figures}
        with open(self.metrics, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
        if self.board is not None:
            self.board.add_scalars(dict(_flatten(split, figures)), self.update)

    def pause(self) -> None:
        """Leaves the time since now out of the next line's rates; call after an evaluation or a save."""
        self._reset()

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()


def _flatten(prefix: str, figures: dict[str, Any]) -> Any:
    for key, value in figures.items():
        if isinstance(value, dict):
            yield from _flatten(f"{prefix}/{key}", value)
        elif isinstance(value, int | float):
            yield f"{prefix}/{key}", value
