"""``mmf_run`` with instrumentation: it records the samples of each update, and kills or delays itself on request.

The environment variable ``INSTRUMENT`` is JSON:

records: folder for the files ``<rank>.jsonl`` with one record per update.
attempt: number to write to these records.
kill_after: the update after which the processes ``ranks`` kill themselves with SIGKILL; ``place`` is "updated", before
    logging and saving, or "saved".
situation: where to sleep once: "step", "evaluation", "save", or "data" (waiting for data). Writes ``<rank>.pid``, on
    entering the situation ``<rank>.entered``, and on leaving it ``<rank>.left`` with the times of both.
"""

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmf_cli.run import run

from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.data.stream import StreamDataset
from mmf_flava.models.pretraining import FlavaPretraining
from mmf_flava.training.checkpoint import Snapshot
from mmf_flava.training.guard import UpdateGuard
from mmf_flava.training.trainer import FlavaTrainer

DELAY = 1.0  # seconds
OPTIONS = json.loads(os.environ["INSTRUMENT"])
RANK = int(os.environ.get("RANK", "0"))
RECORDS = Path(OPTIONS["records"])


def wrap_method(owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a method by ``make(method)``."""
    method = getattr(owner, name)
    setattr(owner, name, functools.wraps(method)(make(method)))


def record_samples() -> None:
    samples: list[str] = []

    def add_batch(method):
        def recording_add_batch(self, batch, losses):
            samples.extend(batch["sample_id"])
            method(self, batch, losses)

        return recording_add_batch

    def update(method):
        def recording_update(self, *args):
            samples.clear()
            if (done := method(self, *args)) is not None:
                record = {
                    "attempt": OPTIONS.get("attempt", 0),
                    "update": self.num_updates,
                    "rank": RANK,
                    "samples": samples,
                }
                with open(RECORDS / f"{RANK}.jsonl", "a") as file:
                    file.write(json.dumps(record) + "\n")
            return done

        return recording_update

    wrap_method(UpdateGuard, "add_batch", add_batch)
    wrap_method(FlavaTrainer, "_update", update)


def kill_after(last_update: int, place: str) -> None:
    """Kill this process after ``last_update``."""

    def kill(method):
        def call_and_kill(self, *args):
            result = method(self, *args)
            if self.num_updates == last_update:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call_and_kill

    wrap_method(FlavaTrainer, {"updated": "_update", "saved": "_validate_and_save"}[place], kill)


@contextmanager
def situation(entered: list[float]) -> Iterator[None]:
    """Write the files ``entered`` and ``left`` when the context is entered and left."""
    entered.append(time.monotonic())
    try:
        # inside the try block: the signal, which interrupts a wait for data, may arrive as soon as the file exists
        (RECORDS / f"{RANK}.entered").touch()
        yield
    finally:
        (RECORDS / f"{RANK}.left").write_text(json.dumps([entered[0], time.monotonic()]))


def delay(where: str) -> None:
    """Delay this process once in the situation ``where``."""
    (RECORDS / f"{RANK}.pid").write_text(str(os.getpid()))
    entered: list[float] = []
    steps: list[None] = []

    def slow(method, condition=lambda self: True):
        def slow_call(self, *args):
            if not entered and condition(self):
                with situation(entered):
                    time.sleep(DELAY)
                    return method(self, *args)
            return method(self, *args)

        return slow_call

    def in_second_step(self):
        steps.extend([None] * self.training)
        return self.training and len(steps) > 1

    def build_iterator(method):  # makes reading the second batch of this attempt slow
        def build_slow_iterator(self, name):
            first = self.samples[name] + self.batch_size
            self.datasets[name].slow = range(first, first + self.batch_size)
            return method(self, name)

        return build_slow_iterator

    def read(method):
        def slow_read(self, n):
            if n in getattr(self, "slow", ()):
                while not (RECORDS / f"{RANK}.entered").exists():  # the loader may prefetch the sample
                    time.sleep(0.01)
                time.sleep(DELAY / 4)
            return method(self, n)

        return slow_read

    def slow_next(method):
        def next_batch(self):
            name = self.dataset_at(self.step)
            if not entered and self.samples[name] in getattr(self.datasets[name], "slow", ()):
                with situation(entered):
                    return method(self)
            return method(self)

        return next_batch

    if where == "data":
        wrap_method(MultitaskLoader, "_build_iterator", build_iterator)
        wrap_method(StreamDataset, "__getitem__", read)
        wrap_method(MultitaskLoader, "__next__", slow_next)
    elif where == "save":
        wrap_method(Snapshot, "write", slow)
    elif where == "evaluation":
        wrap_method(FlavaPretraining, "forward", functools.partial(slow, condition=lambda self: not self.training))
    else:
        wrap_method(FlavaPretraining, "forward", functools.partial(slow, condition=in_second_step))


if __name__ == "__main__":
    record_samples()
    if "kill_after" in OPTIONS and RANK in OPTIONS["ranks"]:
        kill_after(OPTIONS["kill_after"], OPTIONS["place"])
    if "situation" in OPTIONS:
        delay(OPTIONS["situation"])
    sys.exit(run())
