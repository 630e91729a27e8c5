"""Loading of the indexes of many shards, and parallel building of missing indexes."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tqdm import tqdm

from mmf_flava.data.child_process import exit_with_parent
from mmf_flava.data.remote_shard import RemoteShard
from mmf_flava.data.shard_index import ShardIndex, ensure_index, read_index
from mmf_flava.errors import UserError

PROBE_COUNT = 32  # number of indexes read sequentially to measure the latency of the disk
SLOW_READ = 0.0005  # seconds per index; threads are used on slower disks only, because they slow down fast disks
READER_THREADS = 32
PROGRESS_DELAY = 2  # seconds until a progress bar is shown

Shard = Path | RemoteShard


def read_indexes(shards: Sequence[Shard], progress: bool = True) -> list[ShardIndex | None]:
    """Return the index of each shard, or None if it is missing or stale. Takes 0.05 ms per shard on a local disk.

    Raises:
        UserError: a shard does not exist, or its server cannot be reached.
    """
    first, times = [], []
    for shard in shards[:PROBE_COUNT]:
        start = time.perf_counter()
        first.append(_read(shard))
        times.append(time.perf_counter() - start)
    rest = shards[PROBE_COUNT:]
    fast = not rest or median(times) < SLOW_READ  # unlike the mean, robust to a few slow reads
    if fast and all(shard.has_index for shard in rest if isinstance(shard, RemoteShard)):
        return first + [_read(shard) for shard in rest]
    with ThreadPoolExecutor(READER_THREADS) as threads:
        indexes = threads.map(_read, rest)
        return first + list(
            tqdm(indexes, "opening", len(rest), unit="shard", delay=PROGRESS_DELAY, disable=not progress)
        )


def _read(shard: Shard) -> ShardIndex | None:
    with _shard_errors(shard):
        return shard.read_index() if isinstance(shard, RemoteShard) else read_index(shard)


@contextmanager
def _shard_errors(shard: Shard) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{shard}: the shard cannot be read ({error.strerror}). Correct the path or rebuild the data."
        ) from None


def open_indexes(shards: Sequence[Shard], progress: bool = True) -> list[ShardIndex]:
    """Return the index of each shard. Missing indexes are built in parallel, one process per CPU core.

    Args:
        progress: show a progress bar if this takes more than two seconds.

    Raises:
        UserError: a shard does not exist or is not a tar file, or its server cannot be reached.
    """
    indexes = read_indexes(shards, progress)
    missing = [position for position, index in enumerate(indexes) if index is None]
    if missing:
        with (
            _build_indexes([shards[position] for position in missing]) as built,
            tqdm(built, "indexing", len(missing), unit="shard", delay=PROGRESS_DELAY, disable=not progress) as bar,
        ):
            for position, index in zip(missing, bar, strict=True):
                indexes[position] = index
    return [index for index in indexes if index is not None]


def _ensure_index(shard: Shard) -> ShardIndex:
    with _shard_errors(shard):
        return shard.build_index() if isinstance(shard, RemoteShard) else ensure_index(shard)


@contextmanager
def _build_indexes(shards: list[Shard]) -> Iterator[Iterator[ShardIndex]]:
    """Yield an iterator over the indexes of ``shards``, built in a process pool."""
    processes = min(len(os.sched_getaffinity(0)), len(shards))
    if processes == 1 or multiprocessing.current_process().daemon:  # daemonic processes cannot have children
        yield map(_ensure_index, shards)
        return
    # spawn would import the main program in each process, which takes seconds; fork is safe, because no GPU is used.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), initializer=exit_with_parent)
    try:
        yield pool.map(_ensure_index, shards)
    except BrokenProcessPool:
        raise UserError(
            "A process that indexes shards was killed, as happens if memory is short. Run the command again: the "
            "indexes that are written are kept."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
