"""``mmf_run``, watched: it writes down each update's samples, and kills itself or dawdles where it is told to.

``WATCH`` in the environment is JSON:

records: a folder: ``<rank>.jsonl`` gets a line for every update.
life: a number that these lines bear.
kill_after: the update after which the processes ``ranks`` end by SIGKILL; ``place`` says where: "updated", before
    anything is logged or saved, or "saved".
situation: where to dawdle once: in a "step", an "evaluation", a "save", or waiting for "data". ``<rank>.pid`` and, on
    entering, ``<rank>.entered`` are written, and ``<rank>.left`` on leaving, with the clock's times of both.
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
from mmf_flava.training.guard import LossGuard
from mmf_flava.training.trainer import FlavaTrainer

SECONDS = 1.0  # of dawdling
WISHES = json.loads(os.environ["WATCH"])
RANK = int(os.environ.get("RANK", "0"))
RECORDS = Path(WISHES["records"])


def around(owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Puts ``make(method)`` in the place of a method."""
    method = getattr(owner, name)
    setattr(owner, name, functools.wraps(method)(make(method)))


def record() -> None:
    samples: list[str] = []

    def note(method):
        def noted(self, batch, losses):
            samples.extend(batch["sample_id"])
            method(self, batch, losses)

        return noted

    def update(method):
        def updated(self, *args):
            samples.clear()
            if done := method(self, *args):
                line = {"life": WISHES.get("life", 0), "update": self.num_updates, "rank": RANK, "samples": samples}
                with open(RECORDS / f"{RANK}.jsonl", "a") as file:
                    file.write(json.dumps(line) + "\n")
            return done

        return updated

    around(LossGuard, "note", note)
    around(FlavaTrainer, "_update", update)


def kill(after: int, place: str) -> None:
    def killed(method):
        def done(self, *args):
            result = method(self, *args)
            if self.num_updates == after:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return done

    around(FlavaTrainer, {"updated": "_update", "saved": "_after_update"}[place], killed)


@contextmanager
def situation(entered: list[float]) -> Iterator[None]:
    """Announces that it was entered, once, and when it was left, however that came about."""
    entered.append(time.monotonic())
    try:
        # within, for a wait for data is ended by the signal itself, which may come as soon as this is there
        (RECORDS / f"{RANK}.entered").touch()
        yield
    finally:
        (RECORDS / f"{RANK}.left").write_text(json.dumps([entered[0], time.monotonic()]))


def dawdle(where: str) -> None:
    (RECORDS / f"{RANK}.pid").write_text(str(os.getpid()))
    entered: list[float] = []
    steps: list[None] = []

    def slow(method, here=lambda self: True):
        def slowed(self, *args):
            if not entered and here(self):
                with situation(entered):
                    time.sleep(SECONDS)
                    return method(self, *args)
            return method(self, *args)

        return slowed

    def in_step(self):
        steps.extend([None] * self.training)
        return self.training and len(steps) > 1

    def start(method):  # the second batch of this life is slow to be read
        def started(self, name):
            first = (self.consumed[name] + 1) * self.batch_size
            self.datasets[name].slow = range(first, first + self.batch_size)
            return method(self, name)

        return started

    def read(method):
        def slow_read(self, n):
            if n in getattr(self, "slow", ()):
                while not (RECORDS / f"{RANK}.entered").exists():  # it may be read ahead
                    time.sleep(0.01)
                time.sleep(SECONDS / 4)
            return method(self, n)

        return slow_read

    def slow_next(method):
        def following(self):
            name = self.dataset_at(self.step)
            if not entered and self.consumed[name] * self.batch_size in getattr(self.datasets[name], "slow", ()):
                with situation(entered):
                    return method(self)
            return method(self)

        return following

    if where == "data":
        around(MultitaskLoader, "_start", start)
        around(StreamDataset, "__getitem__", read)
        around(MultitaskLoader, "__next__", slow_next)
    elif where == "save":
        around(Snapshot, "write", slow)
    elif where == "evaluation":
        around(FlavaPretraining, "forward", functools.partial(slow, here=lambda self: not self.training))
    else:
        around(FlavaPretraining, "forward", functools.partial(slow, here=in_step))


if __name__ == "__main__":
    record()
    if "kill_after" in WISHES and RANK in WISHES["ranks"]:
        kill(WISHES["kill_after"], WISHES["place"])
    if "situation" in WISHES:
        dawdle(WISHES["situation"])
    sys.exit(run())
