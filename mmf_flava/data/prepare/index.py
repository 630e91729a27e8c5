"""``python -m mmf_flava.data.prepare index PATHS...``: write the indexes of tar shards before the first run."""

import argparse
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmf_flava.data.indexing import open_indexes, read_indexes
from mmf_flava.data.prepare.executors import Executor, add_executor
from mmf_flava.data.shard_index import ShardIndex
from mmf_flava.data.shards import find_shards
from mmf_flava.errors import UserError

MAX_LOOKS = 1000  # shards whose index is read for an update of the progress bar


@dataclass(frozen=True)
class IndexSummary:
    """Result of ``prepare_indexes``. ``existing`` is the number of indexes that were valid before the call."""

    shards: int
    records: int
    existing: int
    truncated: list[Path]


def prepare_indexes(
    paths: Sequence[str | Path], progress: bool = True, executor: Executor | None = None
) -> IndexSummary:
    """Write missing and stale indexes. Other processes that do this share the work.

    Args:
        paths: tar files, globs, or folders of tar files.
        executor: where the indexes are built; None: in a process per CPU core.

    Raises:
        UserError: a path has no shards, a shard is not a tar file, or an index cannot be written.
    """
    shards: dict[Path, None] = {}  # ordered and without duplicates
    for path in paths:
        found = find_shards(path)
        if not found:
            raise UserError(f"{path}: no *.tar files found.")
        shards |= dict.fromkeys(found)
    existing = read_indexes(list(shards))
    missing = [path for path, index in zip(shards, existing, strict=True) if index is None]
    if executor is not None and missing:
        executor.check()
        with tqdm(desc="indexing", total=len(missing), unit="shard", disable=not progress) as bar:
            if executor.is_here:
                build_indexes(missing, bar.update)
            else:
                executor.run(partial(build_indexes, missing), _Watch(missing, bar).update)
    else:
        order = random.sample(missing, len(missing))
        _check_written(order, open_indexes(order, progress))
    indexes = open_indexes(list(shards), progress)
    truncated = [path for path, index in zip(shards, indexes, strict=True) if index.truncated]
    records = sum(index.count for index in indexes)
    return IndexSummary(len(indexes), records, len(indexes) - len(missing), truncated)


def build_indexes(shards: Sequence[Path], update: Callable[[], object] = lambda: None) -> None:
    """Build the indexes that no other process has built when their turn comes.

    The order is random, so that processes rarely build the same index at the same time.

    Args:
        update: function that is called after each shard.

    Raises:
        UserError: a shard cannot be read, or its index cannot be written.
    """
    for path in random.sample(shards, len(shards)):
        _check_written([path], open_indexes([path], progress=False))
        update()


def _check_written(shards: Sequence[Path], indexes: Sequence[ShardIndex]) -> None:
    for path, index in zip(shards, indexes, strict=True):
        if index.content is not None:
            raise UserError(f"The index of {path} cannot be written. Make its folder writable, or free disk space.")


class _Watch:
    """The progress of workers, from the indexes that exist by now."""

    def __init__(self, shards: Sequence[Path], bar: tqdm):
        self._shards, self._bar = deque(shards), bar

    def update(self) -> bool:
        """Look at some of the shards without an index, and return whether one has an index now."""
        looked = [self._shards.popleft() for _ in range(min(MAX_LOOKS, len(self._shards)))]
        missing = [path for path, index in zip(looked, read_indexes(looked, False), strict=True) if index is None]
        self._shards.extend(missing)
        self._bar.update(len(looked) - len(missing))
        return len(missing) < len(looked)


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("index", help="write the indexes of tar shards before the first run")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a tar file, a glob, or a folder of tar files")
    add_executor(parser, None, "a process per CPU core")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_index)


def run_index(arguments: argparse.Namespace) -> None:
    summary = prepare_indexes(arguments.paths, not arguments.quiet, arguments.executor)
    names = f" ({', '.join(map(str, summary.truncated))})" if summary.truncated else ""
    print(
        f"{summary.shards} shards, {summary.records:,} records: {summary.shards - summary.existing} indexes written, "
        f"{summary.existing} existed already; {len(summary.truncated)} shards truncated{names}."
    )
