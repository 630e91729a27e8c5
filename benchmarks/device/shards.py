"""Part ``shards``: image-text pairs for the parts ``trainer``, ``embedding`` and ``loader``, 500 x 375 JPEGs."""

import tempfile
import time
from pathlib import Path

from loader import make_shards

from device.context import Context

RECORDS, PER_SHARD = 4000, 500
TINY_RECORDS, TINY_PER_SHARD = 96, 32


def run(context: Context) -> None:
    """Write the shards, on a GPU while other parts run."""
    start = time.perf_counter()
    folder = find_or_write_shards(context)
    size = sum(path.stat().st_size for path in folder.glob("*.tar"))
    seconds = time.perf_counter() - start
    context.report("pairs", records=count_records(context), size_mb=size / 1e6, seconds=seconds)


def count_records(context: Context) -> int:
    """Return the number of pairs."""
    return context.pick(RECORDS, TINY_RECORDS)


def find_or_write_shards(context: Context) -> Path:
    """Return the folder of the shards; write them if they are missing, e.g. because only one part is run."""
    folder = context.work / "shards"
    if not folder.is_dir():
        temporary = Path(tempfile.mkdtemp(dir=context.work))
        make_shards(temporary, count_records(context), context.pick(PER_SHARD, TINY_PER_SHARD))
        temporary.rename(folder)
    return folder
