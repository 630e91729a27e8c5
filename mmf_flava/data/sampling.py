"""Data loaders: an endless, resumable multitask loader for training, and loaders of evaluation splits."""

import atexit
import gc
import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from functools import cache
from math import gcd
from typing import Any, Protocol

from torch import Generator, cuda
from torch.utils.data import DataLoader

from mmf_flava.config.workers import check_workers
from mmf_flava.data.batch_sampler import StreamBatchSampler
from mmf_flava.data.buckets import LengthBuckets
from mmf_flava.data.evaluation_samples import EvaluationSamples
from mmf_flava.data.look_ahead import LookAhead
from mmf_flava.data.order import LANES
from mmf_flava.errors import UserError
from mmf_flava.processes import processes_on_this_machine


class Schedule(Protocol):
    """Interface of dataset schedules. A schedule maps each training step to a dataset, the same on all ranks."""

    @property
    def names(self) -> Sequence[str]: ...

    def dataset_at(self, step: int) -> str: ...


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
        pin_memory: as in torch's DataLoader.
        consecutive_batches: number of consecutive batches from the same dataset, for gradient accumulation.
        lanes: number of lanes of the order of training data, see ``Order``. The largest common divisor with
            ``batch_size`` is used; a checkpoint's number of lanes replaces it.

    Attributes:
        step: number of batches so far.
        samples: dataset name -> number of samples so far, summed over all ranks. Prefetched batches are not counted.
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
        pin_memory: bool = False,
        consecutive_batches: int = 1,
        lanes: int = LANES,
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
        self.samples = dict.fromkeys(schedule.names, 0)
        self._iterators: dict[str, Any] = {}
        self._set_lanes(gcd(batch_size, lanes))

    def _set_lanes(self, lanes: int) -> None:
        self.lanes = lanes
        for dataset in self.datasets.values():
            if hasattr(dataset, "order"):
                dataset.order.lanes = lanes

    def _keep_open(self) -> None:
        """Keep as many files open as the lanes of this process need, before workers inherit the limit of open files."""
        lanes, rest = divmod(self.lanes, self.world_size)
        for name in self.samples:
            if keep_open := getattr(self.datasets[name], "keep_open", None):
                keep_open(lanes + 2 * bool(rest), processes_on_this_machine(self.world_size))

    def dataset_at(self, step: int) -> str:
        """Return the name of the dataset of batch ``step``."""
        return self.schedule.dataset_at(step // self.consecutive_batches)

    def __iter__(self) -> "MultitaskLoader":
        return self

    def __next__(self) -> tuple[str, Any]:
        if not self._iterators:  # start the workers of all datasets, so that all of them prefetch
            self._keep_open()
            self._iterators = {name: self._build_iterator(name) for name in self.samples}
        name = self.dataset_at(self.step)
        batch = next(self._iterators[name])
        self.samples[name] += self.batch_size
        self.step += 1
        return name, batch

    def _build_iterator(self, name: str) -> Any:
        dataset, buckets = self.datasets[name], None
        if (window := getattr(dataset, "length_buckets", 1)) > 1:
            buckets = LengthBuckets(dataset.caption_bytes, self.batch_size, window, self.seed, self.lanes)
        samples = self.samples[name]
        sampler = StreamBatchSampler(self.batch_size, self.rank, self.world_size, samples, self.lanes, buckets)
        prefetch = self.consecutive_batches  # an update starts with all its batches
        loader = build_batch_loader(dataset, sampler, self.num_workers, self.seed, self.pin_memory, prefetch=prefetch)
        return iter(loader)

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data, for a checkpoint. Prefetched batches are not counted."""
        return {
            "batch_size": self.batch_size,
            "lanes": self.lanes,
            "draws": self.step // self.consecutive_batches,
            "samples": dict(self.samples),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at the position in ``state``. The state may come from a run with more or fewer ranks or workers.

        Raises:
            UserError: see ``check_state``.
        """
        self.check_state(state)
        self.close()
        self.step = int(state["draws"]) * self.consecutive_batches
        self.samples = {name: int(state["samples"].get(name, 0)) for name in self.samples}
        self._set_lanes(int(state["lanes"]))

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise UserError if the batch size does not fit the order in which the samples were read so far."""
        lanes, former = int(state["lanes"]), int(state["batch_size"])
        bucketed = [name for name in self.samples if getattr(self.datasets[name], "length_buckets", 1) > 1]
        if self.batch_size % lanes or (bucketed and self.batch_size != former):
            reason = f"{bucketed[0]} has length_buckets" if bucketed else f"it must be a multiple of {lanes} lanes"
            raise UserError(
                f"training.batch_size: the checkpoint was saved with {former}, and {self.batch_size} would repeat or "
                f"omit samples, because {reason}. Restore the former value, or set checkpoint.reset.data=true (the "
                "order of the data starts anew; weights, optimizer and counts continue)."
            )

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
    dataset: Any,
    batches: Any,
    num_workers: int,
    seed: int = 0,
    pin_memory: bool = False,
    persistent: bool = False,
    prefetch: int = 1,
) -> DataLoader:
    """Build a torch DataLoader for the given batches of sample indices, which also list later samples (``Batch``).

    Args:
        batches: iterable of lists of sample indices.
        pin_memory: as in torch's DataLoader; with CUDA, batches are always pinned, so that their copies to the GPU
            run beside the computation.
        persistent: whether the workers are kept after the last batch, for the next iterator.
        prefetch: minimum number of batches that the workers load in advance; at least two per worker.

    Raises:
        UserError: this machine allows too few open files or too little shared memory for the workers.
    """
    if num_workers:
        check_workers(num_workers)
        _kill_workers_at_exit()
    return DataLoader(
        dataset,
        batch_sampler=LookAhead(batches, num_workers),
        collate_fn=dataset.collate,
        num_workers=num_workers,
        pin_memory=pin_memory or cuda.is_available(),
        generator=Generator().manual_seed(seed),
        worker_init_fn=_set_up_worker,
        persistent_workers=persistent and num_workers > 0,
        prefetch_factor=max(2, -(-prefetch // num_workers)) if num_workers else None,
    )


def _set_up_worker(_worker: int) -> None:
    """Exclude inherited objects from garbage collection and ignore stop signals in a data loader worker.

    Otherwise every collection would traverse the many objects inherited from the parent process. Slurm and terminals
    send stop signals to all processes; the parent process needs its workers to finish the update and save a checkpoint.
    """
    gc.freeze()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


@cache
def _kill_workers_at_exit() -> None:
    """Register an exit handler that kills the data loader workers.

    At exit, Python sends SIGTERM to daemonic processes and waits for them, but the workers ignore SIGTERM.
    """
    atexit.register(_kill_workers)


def _kill_workers() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises an error for each killed worker
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
