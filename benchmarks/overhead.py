"""Overhead of the trainer over a bare training loop, on the pretraining demo and on a finetuning in one process.

The finetuning is the small variant of Hateful Memes on toy data. Trainer and bare loop alternate every few updates and
train the same model. The trainer's time includes everything it does per update: update guard, bad-record log, signals,
progress, log record, ``metrics.jsonl`` and TensorBoard. Evaluations and checkpoints are off. The bare loop has the same
loader, model, optimizer and schedule. The time spent waiting for batches is subtracted from both. Pairs, images and
texts take different times, so medians are computed per kind and weighted by the recipe's sampling ratios. A finetuning
has one kind.
"""

import copy
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmf.common.registry import registry
from mmf_cli.run import run
from targets import BenchmarkResult
from torch import nn

from mmf_flava.config.recipes import recipe_path
from mmf_flava.training.trainer import FlavaTrainer
from tests.finetuning import toys

PRETRAINING, FINETUNING = "demo", "finetune/demo_hateful_memes"
BLOCK = 5  # consecutive updates of each; few, so that other load on the machine affects both equally
WARM_UP = 40  # updates
CHECKED = 6  # updates after which both must have equal weights
TARGET = 0.03
CLOCKS: dict[str, Callable[[], float]] = {"wall time": time.perf_counter, "CPU time": time.process_time}


class TimedBatches:
    """An iterator of batches that measures the waiting time. ``kind``: dataset of the last batch."""

    def __init__(self, batches: Iterator[tuple[str, Any]]) -> None:
        self.batches, self.kind = batches, ""

    def __iter__(self) -> "TimedBatches":
        return self

    def __next__(self) -> tuple[str, Any]:
        start = read_clocks()
        self.kind, batch = next(self.batches)
        self.seconds = seconds_since(start)
        return self.kind, batch


def read_clocks() -> list[float]:
    """Return the time of each of ``CLOCKS``."""
    return [clock() for clock in CLOCKS.values()]


def seconds_since(start: list[float]) -> list[float]:
    """Return the seconds by each clock since ``start``, a result of ``read_clocks()``."""
    return [now - before for now, before in zip(read_clocks(), start, strict=True)]


class Measured(Exception):
    """Ends a run without a final evaluation."""


@registry.register_trainer("flava")
class AlternatingTrainer(FlavaTrainer):
    """Trains with the trainer's methods and with a bare loop alternately, and measures the time of both."""

    minutes: float
    times: "UpdateTimes"

    def _train(self, batches: Any, progress: Any) -> None:
        timed_batches = TimedBatches(batches)
        self.check_equal(list(itertools.islice(batches, CHECKED)), progress)
        for _ in range(WARM_UP):
            self.bare_update(timed_batches)
        training = self.config.training
        ratios = self.settings.multitasking.params.get("sampling_ratios") or {self.config.datasets: 1.0}
        AlternatingTrainer.times = times = UpdateTimes(dict(ratios), training.log_interval)
        end = time.perf_counter() + 60 * self.minutes
        while time.perf_counter() < end:
            for _ in range(BLOCK):
                start = read_clocks()
                logging = self.trainer_update(timed_batches, progress)
                times.add("trainer", timed_batches, seconds_since(start), logging)
            for _ in range(BLOCK):
                start = read_clocks()
                self.bare_update(timed_batches)
                times.add("bare loop", timed_batches, seconds_since(start))
        raise Measured

    def trainer_update(self, batches: Any, progress: Any) -> list[float] | None:
        """Run an update as in ``FlavaTrainer._train``. Return the seconds of logging if it was due, else None."""
        losses = self._update(batches, progress)
        stopping = self._stop_requested()
        start = read_clocks()
        assert losses
        self._log(progress, losses)
        self._validate_and_save(progress, stopping)
        return None if self.num_updates % self.config.training.log_interval else seconds_since(start)

    def bare_update(self, batches: Any) -> None:
        """Run an update as in a minimal training script."""
        model, optimizer = self.model, self.updater.optimizer
        _, batch = next(batches)
        losses = model(batch.to(self.device))["losses"]
        sum(loss.mean() for loss in losses.values()).backward()
        # in the optimizer's order; with another order of summation, the norm differs in its last bits
        if self.updater.max_norm is not None:
            nn.utils.clip_grad_norm_(self.updater.engine.weights, self.updater.max_norm)
        optimizer.step()
        self.updater.scheduler.step()
        optimizer.zero_grad(set_to_none=True)

    def check_equal(self, batches: list[tuple[str, Any]], progress: Any) -> None:
        """Assert that trainer and bare loop compute bitwise equal weights."""
        stateful = (self.model, self.updater.optimizer, self.updater.scheduler)
        initial, rng, results = [copy.deepcopy(item.state_dict()) for item in stateful], torch.get_rng_state(), []
        for update in (partial(self.trainer_update, progress=progress), self.bare_update):
            for item, state in zip(stateful, initial, strict=True):
                item.load_state_dict(copy.deepcopy(state))
            torch.set_rng_state(rng)
            iterator = iter(batches)
            for _ in batches:
                update(iterator)
            results.append(copy.deepcopy(self.model.state_dict()))
        different = [name for name, value in results[0].items() if not torch.equal(value, results[1][name])]
        assert not different, f"weights of trainer and bare loop differ: {different}"


class UpdateTimes:
    """Seconds per update by loop, kind of batch and clock, without waiting and logging; and seconds per log record.

    ratios: dataset -> fraction of the updates; log_interval: updates per log record.
    """

    def __init__(self, ratios: dict[str, float], log_interval: int) -> None:
        self.ratios, self.log_interval = ratios, log_interval
        self.updates: dict[tuple[str, str], list[list[float]]] = {}
        self.logs: list[list[float]] = []

    def add(self, loop: str, batches: TimedBatches, elapsed: list[float], logging: list[float] | None = None) -> None:
        """Add an update of ``loop`` ("trainer" or "bare loop") that took ``elapsed`` seconds."""
        seconds = [total - waiting for total, waiting in zip(elapsed, batches.seconds, strict=True)]
        if logging is not None:
            self.logs.append(logging)
            seconds = [total - log for total, log in zip(seconds, logging, strict=True)]
        self.updates.setdefault((loop, batches.kind), []).append(seconds)

    def results(self) -> list[BenchmarkResult]:
        """Return medians with quartiles, and the overhead with a bootstrap 95 % interval, for each clock."""
        results, rng = [], random.Random(0)
        for column, clock in enumerate(CLOCKS):
            times = {key: [update[column] for update in updates] for key, updates in self.updates.items()}
            logs = [log[column] for log in self.logs]
            for kind in self.ratios:
                for loop in ("bare loop", "trainer"):
                    seconds = times[loop, kind]
                    name = f"{clock}, {kind}, {loop}, {len(seconds)} updates"
                    results.append(BenchmarkResult(name, _format_quartiles(seconds)))
            name = f"{clock}, log record of the trainer, {len(logs)} records"
            results.append(BenchmarkResult(name, _format_quartiles(logs)))
            overhead = self._overhead(times, logs)
            resampled = [
                self._overhead({key: rng.choices(seconds, k=len(seconds)) for key, seconds in times.items()}, logs)
                for _ in range(1000)
            ]
            low, *_, high = statistics.quantiles(resampled, n=40)
            measured = f"{overhead:+.2%} ({low:+.2%} to {high:+.2%})"
            name, met = f"{clock}, overhead of the trainer", overhead < TARGET
            results.append(BenchmarkResult(name, measured, f"below {TARGET:.0%}", met))
        return results

    def _overhead(self, times: dict[tuple[str, str], list[float]], logs: list[float]) -> float:
        """Return the relative overhead, from medians weighted by the ratios and the time of logging per update."""
        trainer, bare = (
            sum(ratio * statistics.median(times[loop, kind]) for kind, ratio in self.ratios.items())
            for loop in ("trainer", "bare loop")
        )
        return (trainer + statistics.median(logs) / self.log_interval) / bare - 1


def _format_quartiles(seconds: list[float]) -> str:
    low, median, high = (1000 * quartile for quartile in statistics.quantiles(seconds, n=4))
    return f"{median:.1f} ms ({low:.1f} to {high:.1f})"


def overhead(minutes: float, threads: int, folder: Path) -> list[BenchmarkResult]:
    """Train the demo and the finetuning for ``minutes`` each, with ``AlternatingTrainer`` and files in ``folder``."""
    toys.write_tokenizer(folder / "data" / "flava_demo" / "tokenizer")
    toys.write_hateful_memes(folder / "data", {"train": 256, "dev": 32, "test": 6})
    results = []
    for name, options in ((PRETRAINING, []), (FINETUNING, [f"env.data_dir={folder / 'data'}"])):
        measured = measure(name, options, minutes, threads, folder / Path(name).name)
        results += [replace(result, name=f"{name}: {result.name}") for result in measured]
    return results


def measure(name: str, options: list[str], minutes: float, threads: int, folder: Path) -> list[BenchmarkResult]:
    """Train the recipe ``name`` with ``folder`` as the run folder."""
    AlternatingTrainer.minutes = minutes
    registry.unregister("config")  # MMF would use the folders of the first run
    never = 10**9
    with suppress(Measured):
        run(
            [
                f"config={recipe_path(name)}",
                f"env.save_dir={folder}",
                f"training.num_threads={threads}",
                "training.num_workers=0",
                f"training.max_updates={never}",
                f"training.evaluation_interval={never}",
                f"training.checkpoint_interval={never}",
                *options,
            ]
        )
    return AlternatingTrainer.times.results()
