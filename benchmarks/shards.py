"""Opening and reading many shards: ``python benchmarks/shards.py [--records N] [--shards N] [--folder DIR]``.

Prints Markdown. The corpus is synthetic and deterministic: JPEGs of 16 x 16 noise and captions in JSON, in a temporary
folder. Measurements run in new processes, with all files in the page cache.
"""

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.data.indexing import open_indexes
from mmf_flava.data.order import Order
from mmf_flava.data.records import keep_lanes_open, open_records, record_units
from mmf_flava.data.shard_index import encode_index, index_path
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.shards import find_shards

MB = 1e6
SPARSE_BYTES = 1 << 20  # size of a sparse shard


def write_corpus(folder: Path, records: int, shards: int) -> None:
    """Write ``records`` pairs to ``shards`` tar files without indexes."""
    borders = np.linspace(0, records, shards + 1).astype(int).tolist()
    # multiprocessing.Pool ends its workers by a signal at the end of the block, which rarely deadlocks
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(_write_shard, folder, borders), range(shards)))


def _write_shard(folder: Path, borders: list[int], number: int) -> None:
    rng = np.random.default_rng(number)
    images = [_jpeg(rng) for _ in range(64)]
    path = folder / f"{number:05d}.tar"
    with ShardWriter(path) as shard:
        for record in range(borders[number], borders[number + 1]):
            caption = json.dumps({"caption": f"noise number {record}"}).encode()
            shard.write(f"{record:09d}", {"jpg": images[record % len(images)], "json": caption})
    index_path(path).unlink()


def _jpeg(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def sparse_key(number: int) -> str:
    return f"{number:050d}"


def write_sparse_corpus(folder: Path, shards: int, records: int) -> list[Path]:
    """Write ``shards`` sparse shards and their indexes. Each has ``records`` records, which have keys but no fields.

    All indexes are hard links to one file. Its rows have the usual size of rows with an image and a caption.
    """
    content = encode_index({sparse_key(number): {} for number in range(records)}, False, SPARSE_BYTES, 0)
    paths = [folder / f"{number:05d}.tar" for number in range(shards)]
    for path in paths:
        with open(path, "wb") as tar:
            tar.truncate(SPARSE_BYTES)
        if path == paths[0]:
            index_path(path).write_bytes(content)
        else:
            os.link(index_path(paths[0]), index_path(path))
    later = os.stat(paths[-1]).st_mtime_ns + 10**9
    os.utime(index_path(paths[0]), ns=(later, later))
    return paths


# ---------------------------------------------------------------------- in a new process


def measure_reading(folder: Path, reads: int) -> dict[str, float]:
    """Return seconds to open, microseconds per read and bytes of resident memory."""
    before = resident_memory()
    start = time.perf_counter()
    records = open_records(folder)
    opening = time.perf_counter() - start
    after_opening = resident_memory()
    numbers = np.random.default_rng(0).integers(len(records), size=reads).tolist()
    order = Order(len(records), seed=0, units=record_units(records))
    random = read_times(records.read, numbers)
    keep_lanes_open(records, order.lanes, 1, "pmd")
    # the first read of a lane opens a shard and shuffles its records, which later happens once per shard
    first = read_times(lambda n: records.read(order.index(n)), range(order.lanes))
    shuffled = read_times(lambda n: records.read(order.index(n)), range(order.lanes, order.lanes + reads))
    return {
        "records": len(records),
        "open": opening,
        "random_median": float(np.median(random)),
        "random_p99": float(np.quantile(random, 0.99)),
        "first_median": float(np.median(first)),
        "first_p99": float(np.quantile(first, 0.99)),
        "order_median": float(np.median(shuffled)),
        "order_p99": float(np.quantile(shuffled, 0.99)),
        "resident_opened": after_opening,
        "resident": resident_memory(),
        "without_imports": resident_memory() - before,
    }


def measure_indexing(folder: Path) -> dict[str, float]:
    """Write the indexes. Return the seconds and the number of records."""
    start = time.perf_counter()
    indexes = open_indexes(find_shards(folder), progress=False)
    return {"seconds": time.perf_counter() - start, "records": sum(index.count for index in indexes)}


def read_times(read: Callable[[int], Any], numbers: Sequence[int]) -> np.ndarray:
    """Return the microseconds of each read."""
    times = []
    for number in numbers:
        start = time.perf_counter_ns()
        read(number)
        times.append(time.perf_counter_ns() - start)
    return np.array(times) / 1000


def resident_memory() -> int:
    """Return the resident memory of this process in bytes, including pages of mapped files."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_measurement(name: str, folder: Path, reads: int = 1) -> dict[str, float]:
    """Run ``measure_<name>`` in a new process."""
    command = [sys.executable, __file__, "--measure", name, "--folder", str(folder), "--reads", str(reads)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


# ---------------------------------------------------------------------- the table


def rows(name: str, folder: Path, memory: str, reads: int, openings: int) -> list[tuple[str, str, str]]:
    runs = [run_measurement("reading", folder, reads) for _ in range(openings)]
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}

    def times(key: str) -> str:
        return f"{median[f'{key}_median']:.0f} µs, {median[f'{key}_p99']:.0f} µs"

    return [
        (f"{name}: opening, median of {openings} processes", "2 s", f"{median['open']:.3f} s"),
        (f"{name}: random reads, median and p99 of {reads:,}", "1 ms (median)", times("random")),
        (f"{name}: first read of each of 256 lanes, median and p99", "1 ms (median)", times("first")),
        (f"{name}: reads in the order of 256 lanes, median and p99", "1 ms (median)", times("order")),
        (f"{name}: resident memory after opening", memory, f"{median['resident_opened'] / MB:.0f} MB"),
        (f"{name}: resident memory after all reads", memory, f"{median['resident'] / MB:.0f} MB"),
        (f"{name}: resident memory after all reads, without imports", "", f"{median['without_imports'] / MB:.0f} MB"),
    ]


@command
def main(words: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description="Opening and reading many shards.")
    parser.add_argument("--records", type=integer(1), default=1_000_000, help="records of the corpus (%(default)s)")
    parser.add_argument("--shards", type=integer(1), default=100, help="shards of the corpus (%(default)s)")
    parser.add_argument(
        "--sparse-shards", type=integer(1), default=7000, help="shards of 10,000 records without fields (%(default)s)"
    )
    parser.add_argument(
        "--reads", type=integer(1), default=20_000, help="reads in random and in shuffled order (%(default)s)"
    )
    parser.add_argument("--openings", type=integer(1), default=5, help="processes that open and read (%(default)s)")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder (the system's default)")
    parser.add_argument("--measure", choices=("reading", "indexing"), help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.measure:
        reading = options.measure == "reading"
        measured = measure_reading(options.folder, options.reads) if reading else measure_indexing(options.folder)
        print(json.dumps(measured))
        return
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}; "
        f"Python {platform.python_version()}, numpy {np.__version__}."
    )
    print(f"`python benchmarks/shards.py --records {options.records} --shards {options.shards}`\n")
    print("| benchmark | target, below | measured |\n|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        corpus, sparse = Path(folder, "corpus"), Path(folder, "sparse")
        corpus.mkdir()
        write_corpus(corpus, options.records, options.shards)
        indexing = run_measurement("indexing", corpus)
        name = f"{indexing['records']:,} records, {options.shards} shards"
        table = [(f"{name}: writing the indexes", "", f"{indexing['seconds']:.1f} s")]
        table += rows(name, corpus, "300 MB", options.reads, options.openings)
        sparse.mkdir()
        write_sparse_corpus(sparse, options.sparse_shards, 10_000)
        name = f"{10_000 * options.sparse_shards:,} records, {options.sparse_shards} shards, no fields"
        table += rows(name, sparse, "1 GB", options.reads, options.openings)
    for row in table:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    sys.exit(main())
