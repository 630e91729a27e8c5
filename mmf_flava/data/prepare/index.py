"""``python -m mmf_flava.data.prepare index PATHS...``: write the indexes of tar shards before the first run."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmf_flava.data.indexing import open_indexes, read_indexes
from mmf_flava.data.shards import find_shards
from mmf_flava.errors import UserError


@dataclass(frozen=True)
class IndexSummary:
    """Result of ``prepare_indexes``. ``existing`` is the number of indexes that were valid before the call."""

    shards: int
    records: int
    existing: int
    truncated: list[Path]


def prepare_indexes(paths: Sequence[str | Path], progress: bool = True) -> IndexSummary:
    """Write missing and stale indexes.

    Args:
        paths: tar files, globs, or folders of tar files.

    Raises:
        UserError: a path has no shards, a shard is not a tar file, or an index cannot be written.
    """
    shards: dict[Path, None] = {}  # ordered and without duplicates
    for path in paths:
        found = find_shards(path)
        if not found:
            raise UserError(f"{path}: no *.tar files found.")
        shards |= dict.fromkeys(found)
    existing = sum(index is not None for index in read_indexes(list(shards)))
    indexes = dict(zip(shards, open_indexes(list(shards), progress), strict=True))
    unwritten = next((path for path, index in indexes.items() if index.content is not None), None)
    if unwritten is not None:
        raise UserError(f"The index of {unwritten} cannot be written. Make its folder writable, or free disk space.")
    records = sum(index.count for index in indexes.values())
    return IndexSummary(len(indexes), records, existing, [path for path, index in indexes.items() if index.truncated])


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("index", help="write the indexes of tar shards before the first run")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a tar file, a glob, or a folder of tar files")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_index)


def run_index(arguments: argparse.Namespace) -> None:
    summary = prepare_indexes(arguments.paths, progress=not arguments.quiet)
    names = f" ({', '.join(map(str, summary.truncated))})" if summary.truncated else ""
    print(
        f"{summary.shards} shards, {summary.records:,} records: {summary.shards - summary.existing} indexes written, "
        f"{summary.existing} existed already; {len(summary.truncated)} shards truncated{names}."
    )
