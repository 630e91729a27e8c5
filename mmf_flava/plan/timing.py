"""Timed updates of a run in a temporary folder. The run's own folder is neither read nor written."""

import contextlib
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmf.common.registry import registry
from mmf_cli.run import run

from mmf_flava.training.progress import Progress
from mmf_flava.training.trainer import FlavaTrainer

TIMED = 3  # updates of each dataset
ENOUGH = 120  # seconds after which one timed update of each dataset is enough
NEVER = 10**9  # updates
SMALL_MODEL, SMALL_BATCH, LARGE_BATCH = 50_000_000, 64, 4  # parameters; samples per update on a CPU


@dataclass(frozen=True)
class Timing:
    """Measurements of updates on this machine.

    Attributes:
        seconds: dataset -> median seconds of an update of ``batch_size`` samples.
        batch_size: samples of a measured update of one process.
        memory: peak memory in bytes, of the GPU or of this process.
        checkpoint: bytes of a checkpoint.
    """

    device: str
    seconds: dict[str, float]
    batch_size: int
    memory: int
    checkpoint: int


class _Measured(Exception):
    """Ends the run after the timed updates."""


class _TimedTrainer(FlavaTrainer):
    """Trainer that times updates instead of training. Each dataset has a first update that is not timed."""

    timing: Timing | None = None

    def _train(self, batches: Any, progress: Progress) -> None:
        names = list(self.data.datasets["train"])
        seconds: dict[str, list[float]] = {name: [] for name in names}
        started = time.perf_counter()
        for number in range((1 + TIMED) * len(names)):
            before = time.perf_counter()
            self._update(batches, progress)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            now = time.perf_counter()
            if number >= len(names):
                seconds[names[number % len(names)]].append(now - before)
            if number + 1 >= 2 * len(names) and now - started > ENOUGH:
                break
        _TimedTrainer.timing = Timing(
            device=torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU",
            seconds={name: median(values) for name, values in seconds.items()},
            batch_size=self.config.training.batch_size,
            memory=self._peak_memory(),
            checkpoint=self._checkpoint_bytes(),
        )
        raise _Measured

    def _checkpoint_bytes(self) -> int:
        states = self.updater.model_state(), self.updater.state_dict()["state"], self.updater.average_state()
        return sum(tensor_bytes(state) for state in states)

    def _peak_memory(self) -> int:
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tensor_bytes(value: Any) -> int:
    """Return the bytes of all tensors in nested dicts."""
    if isinstance(value, dict):
        return sum(map(tensor_bytes, value.values()))
    return value.nbytes if isinstance(value, torch.Tensor) else 0


def time_updates(recipe: str, overrides: Sequence[str], config: Any, processes: int, parameters: int) -> Timing:
    """Run a few updates of a recipe in this process, without evaluation and checkpoints, and return the measurements.

    Args:
        config: the complete config.
        processes: number of processes of the run, which divide a batch.
        parameters: number of parameters of the model. On a CPU, an update of a large model has only a few samples.

    Raises:
        UserError: the run does not start.
    """
    batch = math.ceil(config.training.batch_size / processes)
    if not torch.cuda.is_available() or config.training.device == "cpu":
        batch = min(batch, SMALL_BATCH if parameters <= SMALL_MODEL else LARGE_BATCH)
    names = config.datasets.split(",")
    with tempfile.TemporaryDirectory(prefix="mmf_flava_plan_") as folder, silence(), _timed_trainer():
        registry.unregister("config")  # MMF would use the folders of the config that was read before
        options = [
            *(f"config={recipe}", *overrides, f"env.save_dir={Path(folder) / 'run'}", "training.tensorboard=false"),
            *(f"training.batch_size={batch}", f"training.max_updates={NEVER}", "training.max_epochs=null"),
            *("checkpoint.resume=false", "checkpoint.resume_best=false", "training.wandb.enabled=false"),
            *("training.sharding=none", f"training.evaluation_interval={NEVER}", "training.batch_size_per_device=null"),
            f"training.log_interval={NEVER}",
        ]
        if len(names) > 1:  # each dataset in turn
            options += ["multitasking.enabled=true", "multitasking.type=round_robin", "multitasking.params={}"]
        with contextlib.suppress(_Measured):
            run(options)
    timing = _TimedTrainer.timing
    assert timing is not None
    return timing


@contextlib.contextmanager
def _timed_trainer() -> Iterator[None]:
    """Context manager: MMF builds ``_TimedTrainer`` for ``training.trainer: flava``."""
    _TimedTrainer.timing = None
    registry.mapping["trainer_name_mapping"]["flava"] = _TimedTrainer
    try:
        yield
    finally:
        registry.mapping["trainer_name_mapping"]["flava"] = FlavaTrainer


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Context manager: the log of the timed run is not printed."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        yield
    sys.stdout.flush()
