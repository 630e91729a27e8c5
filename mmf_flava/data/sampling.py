"""Data loaders: an endless, resumable multitask loader for training, and loaders of evaluation splits."""

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

from mmf_flava.config.workers import check_workers
from mmf_flava.data.buckets import LengthBuckets
from mmf_flava.data.evaluation_samples import EvaluationSamples
from mmf_flava.errors import UserError


class Schedule(Protocol):
    """Interface of dataset schedules. A schedule maps each training step to a dataset, the same on all ranks."""

    @property
    def names(self) -> Sequence[str]: ...

    def dataset_at(self, step: int) -> str: ...


class StreamBatchSampler:
    """An endless batch sampler of one dataset, partitioned across ranks.

    A global batch contains the samples of all ranks. With B = ``batch_size``, global batch k consists of the samples
    k * B to (k + 1) * B - 1 of the dataset's stream or, if ``buckets`` is given, of the samples ``buckets[k]``.
    """

    def __init__(
        self, batch_size: int, rank: int, world_size: int, first_batch: int = 0, buckets: LengthBuckets | None = None
    ):
        self.batch_size, self.rank, self.world_size, self.first_batch = batch_size, rank, world_size, first_batch
        self.buckets = buckets

    def __iter__(self) -> Iterator[list[int]]:
        for batch in count(self.first_batch):
            start = batch * self.batch_size
            positions = range(start, start + self.batch_size) if self.buckets is None else self.buckets[batch]
            yield list(positions[self.rank :: self.world_size])


class MultitaskLoader:
    """An endless iterator over ``(dataset name, SampleList)``; each batch comes from one dataset.

    Args:
        datasets: name -> dataset with ``dataset[n]`` for any n >= 0 and ``dataset.collate(samples)``. A dataset with
            ``length_buckets`` greater than 1 must also have ``caption_bytes(n)``, see ``LengthBuckets``.
        schedule: schedule that selects the dataset of each step from some or all of these datasets.
        batch_size: global batch size, summed over all ranks.
        num_workers: data loader workers per dataset; 0 loads in the main process.
        seed: seed of the length buckets and of the DataLoaders, so that they do not use torch's global generator.
        rank, world_size: rank of this process and number of processes; every process loads a part of each global batch.
        start_step: index of the first batch.
        pin_memory: as in torch's DataLoader.
        consecutive_batches: number of consecutive batches from the same dataset, for gradient accumulation.
    """

    def __init__(
        self,
        datasets: Mapping[str, Any],
        schedule: Schedule,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
        pin_memory: bool = False,
        consecutive_batches: int = 1,
    ):
        missing = [name for name in schedule.names if name not in datasets]
        if missing:
            raise UserError(
                f"Unknown datasets to sample from: {', '.join(missing)}. Known datasets: {', '.join(datasets)}."
            )
        if batch_size < 1 or batch_size % world_size:
            raise UserError(
                f"The batch size must be a positive multiple of the number of processes, {world_size}, got "
                f"{batch_size}."
            )
        check_workers(num_workers, len(schedule.names))
        self.datasets, self.schedule, self.batch_size = datasets, schedule, batch_size
        self.num_workers, self.seed, self.pin_memory = num_workers, seed, pin_memory
        self.rank, self.world_size, self.consecutive_batches = rank, world_size, consecutive_batches
        self.step = 0
        self.consumed = dict.fromkeys(schedule.names, 0)
        for step in range(start_step):
            self.consumed[self.dataset_at(step)] += 1
        self.step = start_step
        self._iterators: dict[str, Any] = {}

    def dataset_at(self, step: int) -> str:
        """Return the name of the dataset of batch ``step``."""
        return self.schedule.dataset_at(step // self.consecutive_batches)

    def __iter__(self) -> "MultitaskLoader":
        return self

    def __next__(self) -> tuple[str, Any]:
        if not self._iterators:  # start the workers of all datasets, so that all of them prefetch
            self._iterators = {name: self._build_iterator(name) for name in self.consumed}
        name = self.dataset_at(self.step)
        batch = next(self._iterators[name])
        self.consumed[name] += 1
        self.step += 1
        return name, batch

    def _build_iterator(self, name: str) -> Any:
        dataset, buckets = self.datasets[name], None
        if (window := getattr(dataset, "length_buckets", 1)) > 1:
            buckets = LengthBuckets(dataset.caption_bytes, self.batch_size, window, self.seed)
        sampler = StreamBatchSampler(self.batch_size, self.rank, self.world_size, self.consumed[name], buckets)
        return iter(build_batch_loader(dataset, sampler, self.num_workers, self.seed, self.pin_memory))

    def state_dict(self) -> dict[str, Any]:
        """Return the step and, for each dataset, the number of consumed batches. Prefetched batches are not counted."""
        return {"step": self.step, "consumed": dict(self.consumed)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at the position in ``state``. The state may come from a run with more or fewer ranks or workers."""
        self.close()
        self.step = int(state["step"])
        self.consumed = {name: int(state["consumed"].get(name, 0)) for name in self.consumed}

    def close(self) -> None:
        """Shut down the data loader workers. Iterating again starts new workers at the same position."""
        for iterator in self._iterators.values():
            if self.num_workers:
                iterator._shutdown_workers()
        self._iterators = {}

    def __del__(self) -> None:
        if getattr(self, "_iterators", None):
            self.close()


def build_evaluation_loader(
    dataset: Any, batch_size: int, num_workers: int = 0, spans: Sequence[range] | None = None
) -> DataLoader:
    """Build a data loader that yields every sample of a dataset, or of the given ranges, once and in order.

    Bad records are left out, see ``EvaluationSamples``. A batch may therefore have no samples.

    Args:
        spans: ranges of sample indices to load; every batch lies within one range. None: the entire dataset.
    """
    spans = [range(len(dataset))] if spans is None else spans
    batches = [list(span[start : start + batch_size]) for span in spans for start in range(0, len(span), batch_size)]
    return build_batch_loader(EvaluationSamples(dataset), batches, num_workers)


def build_batch_loader(
    dataset: Any, batches: Any, num_workers: int, seed: int = 0, pin_memory: bool = False, persistent: bool = False
) -> DataLoader:
    """Build a torch DataLoader for the given batches of sample indices.

    Args:
        batches: iterable of lists of sample indices.
        persistent: whether the workers are kept after the last batch, for the next iterator.

    Raises:
        UserError: this machine allows too few open files or too little shared memory for the workers.
    """
    if num_workers:
        check_workers(num_workers)
        _kill_workers_at_exit()
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
    """Exclude inherited objects from garbage collection and ignore stop signals in a data loader worker.

    Otherwise every collection would traverse the many objects inherited from the parent process. Slurm and Ctrl-C send
    stop signals to all processes; the parent process needs its workers to finish the update and save a checkpoint.
    """
    gc.freeze()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


@cache
def _kill_workers_at_exit() -> None:
    """Register an exit handler that kills the data loader workers.

    At exit, Python sends SIGTERM to daemonic processes and waits for them, but the workers ignore SIGTERM.
    """
    atexit.register(_kill_workers)


def _kill_workers() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
