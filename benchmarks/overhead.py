"""What our trainer costs beside a bare loop: the demo, in one process, each of the two a few updates by turns.

Ours is all that the trainer does about an update: guard, quarantine, signals, progress, log line, ``metrics.jsonl``,
TensorBoard. Evaluations and checkpoints are off. The bare loop has the same loader, model, optimizer and schedule, and
training goes on from the one to the other. Waiting for a batch is taken out on both sides. Pairs, images and texts take
different times, so that medians are of each kind, and weighted by the recipe's ratios.
"""

import copy
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmf.common.registry import registry
from mmf_cli.run import run
from targets import Row
from torch import nn

from mmf_flava.training.trainer import FlavaTrainer

DEMO = Path(__file__).parents[1] / "projects" / "flava" / "configs" / "demo.yaml"
BLOCK = 5  # updates at a turn: few, so that other work on the machine meets both sides alike
WARM_UP = 40  # updates
CHECKED = 6  # updates from one start, after which both sides must have the same weights
TARGET = 0.03
CLOCKS: dict[str, Callable[[], float]] = {"time": time.perf_counter, "processor time": time.process_time}


class Waited:
    """Passes batches on, and takes the time that they were waited for; ``kind`` is the last one's dataset."""

    def __init__(self, batches: Iterator[tuple[str, Any]]) -> None:
        self.batches, self.kind = batches, ""

    def __iter__(self) -> "Waited":
        return self

    def __next__(self) -> tuple[str, Any]:
        began = now()
        self.kind, batch = next(self.batches)
        self.seconds = since(began)
        return self.kind, batch


def now() -> list[float]:
    """What each of ``CLOCKS`` says."""
    return [clock() for clock in CLOCKS.values()]


def since(began: list[float]) -> list[float]:
    """Seconds by each clock since ``now()`` was ``began``."""
    return [end - start for end, start in zip(now(), began, strict=True)]


@registry.register_trainer("flava_beside_bare_loop")
class TakingTurns(FlavaTrainer):
    """Trains by the trainer's own methods and by a bare loop in turn, and notes the times of both."""

    minutes: float
    found: "Measurement"

    def _train(self, batches: Any, progress: Any) -> None:
        waited = Waited(batches)
        self.check(list(itertools.islice(batches, CHECKED)), progress)
        for _ in range(WARM_UP):
            self.bare(waited)
        training = self.config.training
        TakingTurns.found = found = Measurement(
            dict(self.settings.multitasking.params["sampling_ratios"]), training.log_interval
        )
        end = time.perf_counter() + 60 * self.minutes
        while time.perf_counter() < end:
            for _ in range(BLOCK):
                began = now()
                logged = self.ours(waited, progress)
                found.note("trainer", waited, since(began), logged)
            for _ in range(BLOCK):
                began = now()
                self.bare(waited)
                found.note("bare loop", waited, since(began))

    def ours(self, batches: Any, progress: Any) -> list[float] | None:
        """An update as in ``FlavaTrainer._train``; where a log line was due, the seconds that it took."""
        updated = self._update(batches, progress)
        stopping = self.signals.came_to_any(self.device)
        began = now()
        assert updated and not self._after_update(progress, stopping)
        return None if self.num_updates % self.config.training.log_interval else since(began)

    def bare(self, batches: Any) -> None:
        """An update as one would write it in a script."""
        model, optimizer = self.model, self.updater.optimizer
        _, batch = next(batches)
        losses = model(batch.to(self.device))["losses"]
        sum(loss.mean() for loss in losses.values()).backward()
        # in the optimizer's order: the norm summed in another one differs in its last bits
        nn.utils.clip_grad_norm_(self.updater.engine.weights, self.updater.max_norm)
        optimizer.step()
        self.updater.scheduler.step()
        optimizer.zero_grad(set_to_none=True)

    def check(self, batches: list[tuple[str, Any]], progress: Any) -> None:
        """Both sides must compute the same, to the bit."""
        parts = (self.model, self.updater.optimizer, self.updater.scheduler)
        before, rng, ends = [copy.deepcopy(part.state_dict()) for part in parts], torch.get_rng_state(), []
        for update in (partial(self.ours, progress=progress), self.bare):
            for part, state in zip(parts, before, strict=True):
                part.load_state_dict(copy.deepcopy(state))
            torch.set_rng_state(rng)
            found = iter(batches)
            for _ in batches:
                update(found)
            ends.append(copy.deepcopy(self.model.state_dict()))
        different = [name for name, value in ends[0].items() if not torch.equal(value, ends[1][name])]
        assert not different, f"the bare loop trains otherwise than the trainer: {different}"

    def _final(self, bad: Any) -> None:
        """No evaluation."""


class Measurement:
    """Seconds of updates by side, kind of batch and clock, waiting and log lines left out; log lines apart.

    ratios: dataset -> share of the updates; log_interval: updates to a log line.
    """

    def __init__(self, ratios: dict[str, float], log_interval: int) -> None:
        self.ratios, self.log_interval = ratios, log_interval
        self.updates: dict[tuple[str, str], list[list[float]]] = {}
        self.logs: list[list[float]] = []

    def note(self, side: str, waited: Waited, took: list[float], logged: list[float] | None = None) -> None:
        spent = [whole - wait for whole, wait in zip(took, waited.seconds, strict=True)]
        if logged is not None:
            self.logs.append(logged)
            spent = [whole - log for whole, log in zip(spent, logged, strict=True)]
        self.updates.setdefault((side, waited.kind), []).append(spent)

    def rows(self) -> list[Row]:
        rows, draw = [], random.Random(0)
        for column, clock in enumerate(CLOCKS):
            times = {key: [update[column] for update in found] for key, found in self.updates.items()}
            logs = [log[column] for log in self.logs]
            for kind in self.ratios:
                for side in ("bare loop", "trainer"):
                    found = times[side, kind]
                    rows.append(Row(f"{clock}, {kind}, {side}, {len(found)} updates", _spread(found)))
            rows.append(Row(f"{clock}, a log line of the trainer, {len(logs)} lines", _spread(logs)))
            overhead = self._overhead(times, logs)
            drawn = [
                self._overhead({key: draw.choices(found, k=len(found)) for key, found in times.items()}, logs)
                for _ in range(1000)
            ]
            low, *_, high = statistics.quantiles(drawn, n=40)
            figure = f"{overhead:+.2%} ({low:+.2%} to {high:+.2%})"
            rows.append(Row(f"{clock}, trainer over bare loop", figure, f"below {TARGET:.0%}", overhead < TARGET))
        return rows

    def _overhead(self, times: dict[tuple[str, str], list[float]], logs: list[float]) -> float:
        """Medians of both sides, weighted by the ratios; a log line's shared out over its updates."""
        trainer, bare = (
            sum(share * statistics.median(times[side, kind]) for kind, share in self.ratios.items())
            for side in ("trainer", "bare loop")
        )
        return (trainer + statistics.median(logs) / self.log_interval) / bare - 1


def _spread(seconds: list[float]) -> str:
    low, median, high = (1000 * quartile for quartile in statistics.quantiles(seconds, n=4))
    return f"{median:.1f} ms ({low:.1f} to {high:.1f})"


def overhead(minutes: float, threads: int, folder: Path) -> list[Row]:
    """The demo's own command with ``TakingTurns``, for so many minutes; ``folder`` is the run's."""
    TakingTurns.minutes = minutes
    never = 10**9
    run(
        [
            f"config={DEMO}",
            "training.trainer=flava_beside_bare_loop",
            f"env.save_dir={folder}",
            f"training.num_threads={threads}",
            "training.num_workers=0",
            f"training.evaluation_interval={never}",
            f"training.checkpoint_interval={never}",
        ]
    )
    return TakingTurns.found.rows()
