"""The endless stream of batches of several datasets by turns; its whole state is a few counters."""

import atexit
import gc
import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import count
from typing import Any, Protocol

from torch import Generator
from torch.utils.data import DataLoader

from mmf_flava.data.buckets import LengthBuckets
from mmf_flava.errors import UserError


class Strategy(Protocol):
    """A pure function from the step to a dataset: every rank gets the same answer without being told."""

    @property
    def names(self) -> Sequence[str]: ...

    def dataset_at(self, step: int) -> str: ...


class StreamPositions:
    """Endless lists of stream positions of one dataset: global batch k is [k*B, (k+1)*B), dealt out to the ranks.

    ``buckets``, where given, say otherwise which positions are global batch k.
    """

    def __init__(
        self, batch_size: int, rank: int, world_size: int, first_batch: int = 0, buckets: LengthBuckets | None = None
    ):
        self.batch_size, self.rank, self.world_size, self.first_batch = batch_size, rank, world_size, first_batch
        self.buckets = buckets

    def __iter__(self) -> Iterator[list[int]]:
        for batch in count(self.first_batch):
            start = batch * self.batch_size
            whole = range(start, start + self.batch_size) if self.buckets is None else self.buckets[batch]
            yield list(whole[self.rank :: self.world_size])


class MultitaskLoader:
    """Iterating yields ``(dataset name, SampleList)`` without end, each batch of one dataset.

    Args:
        datasets: name -> dataset, ``dataset[n]`` for any n >= 0 and ``dataset.collate(samples)``; one whose
            ``length_buckets`` are more than 1 has ``caption_bytes(n)`` as well, see ``LengthBuckets``.
        strategy: ``Turns`` over (some of) these names.
        batch_size: samples a batch over all ranks together.
        num_workers: worker processes for each dataset; 0 loads in this process.
        seed: keeps torch's loaders from drawing from the global generator; it changes no sample.
        rank, world_size: this rank's share of every global batch is ``positions[rank::world_size]``.
        start_step: the batch to begin with.
        pin_memory: as in torch.
        batches_per_turn: consecutive batches of one dataset, for gradient accumulation.
    """

    def __init__(
        self,
        datasets: Mapping[str, Any],
        strategy: Strategy,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
        pin_memory: bool = False,
        batches_per_turn: int = 1,
    ):
        missing = [name for name in strategy.names if name not in datasets]
        if missing:
            raise UserError(f"Sampling names {', '.join(missing)}, but the datasets are {', '.join(datasets)}.")
        if batch_size < 1 or batch_size % world_size:
            raise UserError(f"The batch size {batch_size} cannot be dealt out evenly to {world_size} processes.")
        self.datasets, self.strategy, self.batch_size = datasets, strategy, batch_size
        self.num_workers, self.seed, self.pin_memory = num_workers, seed, pin_memory
        self.rank, self.world_size, self.batches_per_turn = rank, world_size, batches_per_turn
        self.step = 0
        self.consumed = dict.fromkeys(strategy.names, 0)
        for step in range(start_step):
            self.consumed[self.dataset_at(step)] += 1
        self.step = start_step
        self._iterators: dict[str, Any] = {}

    def dataset_at(self, step: int) -> str:
        """The dataset of batch ``step``."""
        return self.strategy.dataset_at(step // self.batches_per_turn)

    def __iter__(self) -> "MultitaskLoader":
        return self

    def __next__(self) -> tuple[str, Any]:
        if not self._iterators:  # all at once, so that every dataset's workers are ahead of their first turn
            self._iterators = {name: self._start(name) for name in self.consumed}
        name = self.dataset_at(self.step)
        batch = next(self._iterators[name])
        self.consumed[name] += 1
        self.step += 1
        return name, batch

    def _start(self, name: str) -> Any:
        dataset, buckets = self.datasets[name], None
        if (window := getattr(dataset, "length_buckets", 1)) > 1:
            buckets = LengthBuckets(dataset.caption_bytes, self.batch_size, window, self.seed)
        positions = StreamPositions(self.batch_size, self.rank, self.world_size, self.consumed[name], buckets)
        return iter(batch_loader(dataset, positions, self.num_workers, self.seed, self.pin_memory))

    def state_dict(self) -> dict[str, Any]:
        """What was handed out, not what was fetched ahead: {"step": ..., "consumed": {name: batches}}."""
        return {"step": self.step, "consumed": dict(self.consumed)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on exactly where that state was taken, also with another number of ranks or workers."""
        self.close()
        self.step = int(state["step"])
        self.consumed = {name: int(state["consumed"].get(name, 0)) for name in self.consumed}

    def close(self) -> None:
        """Ends the workers; iterating again starts new ones at the same place."""
        for iterator in self._iterators.values():
            if self.num_workers:
                iterator._shutdown_workers()
        self._iterators = {}

    def __del__(self) -> None:
        if getattr(self, "_iterators", None):
            self.close()


def evaluation_loader(
    dataset: Any, batch_size: int, num_workers: int = 0, spans: Sequence[range] | None = None
) -> DataLoader:
    """Every sample of these positions (None: of the dataset) once, in order; a batch lies within one span."""
    whole = [range(len(dataset))] if spans is None else spans
    batches = [list(span[start : start + batch_size]) for span in whole for start in range(0, len(span), batch_size)]
    return batch_loader(dataset, batches, num_workers)


def batch_loader(
    dataset: Any, batches: Any, num_workers: int, seed: int = 0, pin_memory: bool = False, persistent: bool = False
) -> DataLoader:
    """torch's loader; its workers run one torch thread each, as torch sets up every worker.

    Args:
        batches: lists of positions.
        persistent: whether the workers outlive an iteration.
    """
    if num_workers:
        _end_workers_at_exit()
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=dataset.collate,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=Generator().manual_seed(seed),
        worker_init_fn=_set_up_worker,
        persistent_workers=persistent and num_workers > 0,
    )


def _set_up_worker(_worker: int) -> None:
    """What a worker does first.

    It spares the garbage collector the million objects that it inherits, which would be walked again and again. And it
    leaves the signals that ask for a stop to its parent: Slurm and Ctrl-C send them to all processes at once, and the
    parent could not end its update and save if they ended the worker.
    """
    gc.freeze()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


@cache
def _end_workers_at_exit() -> None:
    """Python ends daemons by SIGTERM, which ours ignore, and would wait for them."""
    atexit.register(_end_workers)


def _end_workers() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
