"""``python -m mmf_flava.data.prepare index PATHS...``: indexes of tar shards, ahead of the first run that reads them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmf_flava.data.indexing import open_indexes, read_indexes
from mmf_flava.data.shards import shard_paths
from mmf_flava.errors import UserError


@dataclass(frozen=True)
class Indexed:
    """What ``build_indexes`` found. present: indexes that were there already; cut: shards that are cut short."""

    shards: int
    records: int
    present: int
    cut: list[Path]


def build_indexes(paths: Sequence[str | Path], progress: bool = True) -> Indexed:
    """Writes the indexes that are missing or stale; ``paths`` are tar files, globs, or folders of tar files.

    Raises:
        UserError: a path names no shard, a shard is no tar file, or an index cannot be written.
    """
    shards: dict[Path, None] = {}  # in order, each of them once
    for path in paths:
        found = shard_paths(path)
        if not found:
            raise UserError(f"There are no shards at {path}: looked for *.tar files.")
        shards |= dict.fromkeys(found)
    present = sum(index is not None for index in read_indexes(list(shards)))
    indexes = dict(zip(shards, open_indexes(list(shards), progress), strict=True))
    unwritten = next((path for path, index in indexes.items() if index.rows is not None), None)
    if unwritten is not None:
        raise UserError(f"The index of {unwritten} cannot be written: its folder must be writable and have space.")
    records = sum(index.count for index in indexes.values())
    return Indexed(len(indexes), records, present, [path for path, index in indexes.items() if index.cut])


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("index", help="the indexes of tar shards, ahead of the first run that reads them")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a tar file, a glob, or a folder of tar files")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_index)


def run_index(arguments: argparse.Namespace) -> None:
    done = build_indexes(arguments.paths, progress=not arguments.quiet)
    cut = f"{len(done.cut)} cut short ({', '.join(map(str, done.cut))})" if done.cut else "none cut short"
    print(
        f"{done.shards} shards, {done.records:,} records: {done.shards - done.present} indexes made, "
        f"{done.present} were there already; {cut}."
    )
