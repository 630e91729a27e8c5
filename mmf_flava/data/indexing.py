"""The indexes of many shards: opens those that are there, makes those that are missing."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tqdm import tqdm

from mmf_flava.data.remote_shard import RemoteShard
from mmf_flava.data.shard_index import ShardIndex, ensure_index, read_index
from mmf_flava.errors import UserError

PROBED = 32  # indexes that are read one after another to see how fast the disk answers
SLOW = 0.0005  # seconds an index: slower ones are read by threads, which wait side by side, but hinder a fast disk
READERS = 32
PATIENCE = 2  # seconds after which a bar is shown

Shard = Path | RemoteShard


def read_indexes(shards: Sequence[Shard], progress: bool = True) -> list[ShardIndex | None]:
    """The index of each shard; None where it is missing or stale. About 0.05 ms a shard on a local disk.

    Raises:
        UserError: a shard does not exist, or its server cannot be reached.
    """
    first, times = [], []
    for shard in shards[:PROBED]:
        started = time.perf_counter()
        first.append(_read(shard))
        times.append(time.perf_counter() - started)
    rest = shards[PROBED:]
    fast = not rest or median(times) < SLOW  # by the mean a busy processor would look like a slow disk
    if fast and all(shard.has_index for shard in rest if isinstance(shard, RemoteShard)):
        return first + [_read(shard) for shard in rest]
    with ThreadPoolExecutor(READERS) as threads:
        opened = threads.map(_read, rest)
        return first + list(tqdm(opened, "opening", len(rest), unit="shard", delay=PATIENCE, disable=not progress))


def _read(shard: Shard) -> ShardIndex | None:
    try:
        return shard.read_index() if isinstance(shard, RemoteShard) else read_index(shard)
    except OSError as error:
        raise UserError(
            f"The shard {shard} does not exist or cannot be read ({error.strerror}): correct the path or build the "
            "data again."
        ) from None


def open_indexes(shards: Sequence[Shard], progress: bool = True) -> list[ShardIndex]:
    """The index of each shard. Missing ones are made by as many processes as there are cores, each of them once.

    Args:
        progress: show a bar where it takes long.

    Raises:
        UserError: a shard does not exist or is no tar file, or its server cannot be reached.
    """
    indexes = read_indexes(shards, progress)
    missing = [number for number, index in enumerate(indexes) if index is None]
    if missing:
        with (
            _indexed([shards[number] for number in missing]) as made,
            tqdm(made, "indexing", len(missing), unit="shard", delay=PATIENCE, disable=not progress) as bar,
        ):
            for number, index in zip(missing, bar, strict=True):
                indexes[number] = index
    return [index for index in indexes if index is not None]


def _make(shard: Shard) -> ShardIndex:
    return shard.make_index() if isinstance(shard, RemoteShard) else ensure_index(shard)


@contextmanager
def _indexed(shards: list[Shard]) -> Iterator[Iterator[ShardIndex]]:
    """The indexes of shards, as they are made."""
    processes = min(len(os.sched_getaffinity(0)), len(shards))
    if processes == 1 or multiprocessing.current_process().daemon:  # such a one may have no children
        yield map(_make, shards)
        return
    # Forked: a spawned process would import the program that runs, for seconds, and scanning touches no device.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"))
    try:
        yield pool.map(_make, shards)
    finally:
        pool.shutdown(cancel_futures=True)
