"""Opening and reading many shards: ``python benchmarks/shards.py [--records N] [--shards N] [--folder DIR]``.

Prints Markdown. The corpus is made up: JPEGs of 16 x 16 noise and captions in JSON, the same at every run, in a
temporary folder. What is measured runs in fresh processes; the files were written just before and are cached in memory.
"""

import argparse
import io
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmf_flava.data.indexing import open_indexes
from mmf_flava.data.order import Order
from mmf_flava.data.records import open_records
from mmf_flava.data.shard_index import index_path
from mmf_flava.data.shards import ShardWriter, shard_paths

MB = 1e6


def write_corpus(folder: Path, records: int, shards: int) -> None:
    """``records`` pairs in ``shards`` tar files without indexes."""
    borders = np.linspace(0, records, shards + 1).astype(int).tolist()
    with multiprocessing.Pool() as pool:
        pool.map(partial(_write_shard, folder, borders), range(shards))


def _write_shard(folder: Path, borders: list[int], number: int) -> None:
    rng = np.random.default_rng(number)
    pictures = [_jpeg(rng) for _ in range(64)]
    path = folder / f"{number:05d}.tar"
    with ShardWriter(path) as shard:
        for record in range(borders[number], borders[number + 1]):
            caption = json.dumps({"caption": f"noise number {record}"}).encode()
            shard.write(f"{record:09d}", {"jpg": pictures[record % len(pictures)], "json": caption})
    index_path(path).unlink()


def _jpeg(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def write_hollow_corpus(folder: Path, shards: int, records: int) -> list[Path]:
    """Indexes of ``shards`` shards of ``records`` records each as files of holes: right sizes, rows of zeros."""
    with ShardWriter(folder / "model.tar") as shard:
        shard.write("0" * 9, {"jpg": b"", "json": b""})
    model = index_path(folder / "model.tar")
    with open(model, "rb") as file:
        line = file.readline()
    header = json.loads(line) | {"count": records, "tar_bytes": 1 << 20}
    row = model.stat().st_size - len(line)
    (folder / "model.tar").unlink()
    model.unlink()
    paths = [folder / f"{number:05d}.tar" for number in range(shards)]
    for path in paths:
        with open(path, "wb") as tar, open(index_path(path), "wb") as index:
            tar.truncate(header["tar_bytes"])
            header["tar_mtime_ns"] = os.fstat(tar.fileno()).st_mtime_ns
            index.write(json.dumps(header).encode().ljust(len(line) - 1) + b"\n")
            index.truncate(len(line) + records * row)
    return paths


# ---------------------------------------------------------------------- in a fresh process


def measure(folder: Path, reads: int) -> dict[str, float]:
    """Seconds to open, microseconds of single reads, bytes of resident memory."""
    before = resident()
    started = time.perf_counter()
    records = open_records(folder)
    opened = time.perf_counter() - started
    after_opening = resident()
    anywhere = np.random.default_rng(0).integers(len(records), size=reads).tolist()
    order = Order(len(records), seed=0)
    scattered = read_times(records.read, anywhere)
    shuffled = read_times(lambda n: records.read(order.index(n)), range(reads))
    return {
        "records": len(records),
        "open": opened,
        "random_median": float(np.median(scattered)),
        "random_p99": float(np.quantile(scattered, 0.99)),
        "order_median": float(np.median(shuffled)),
        "order_p99": float(np.quantile(shuffled, 0.99)),
        "resident_opened": after_opening,
        "resident": resident(),
        "beyond_import": resident() - before,
    }


def measure_indexing(folder: Path) -> dict[str, float]:
    started = time.perf_counter()
    indexes = open_indexes(shard_paths(folder), progress=False)
    return {"seconds": time.perf_counter() - started, "records": sum(index.count for index in indexes)}


def read_times(read: Callable[[int], Any], numbers: Sequence[int]) -> np.ndarray:
    """Microseconds of each read."""
    times = []
    for number in numbers:
        started = time.perf_counter_ns()
        read(number)
        times.append(time.perf_counter_ns() - started)
    return np.array(times) / 1000


def resident() -> int:
    """Bytes of this process in memory, pages of mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fresh(what: str, folder: Path, reads: int = 0) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", what, "--folder", str(folder), "--reads", str(reads)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


# ---------------------------------------------------------------------- the table


def rows(name: str, folder: Path, memory: str, reads: int, openings: int) -> list[tuple[str, str, str]]:
    runs = [fresh("reading", folder, reads) for _ in range(openings)]
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}

    def times(key: str) -> str:
        return f"{median[f'{key}_median']:.0f} µs, {median[f'{key}_p99']:.0f} µs"

    return [
        (f"{name}: opening, median of {openings} processes", "2 s", f"{median['open']:.3f} s"),
        (f"{name}: a random record, median and p99 of {reads:,}", "1 ms (median)", times("random")),
        (f"{name}: the next record of the block-shuffled order, median and p99", "1 ms (median)", times("order")),
        (f"{name}: resident memory when open", memory, f"{median['resident_opened'] / MB:.0f} MB"),
        (f"{name}: resident memory after all reads", memory, f"{median['resident'] / MB:.0f} MB"),
        (f"{name}: of it beyond imports", "", f"{median['beyond_import'] / MB:.0f} MB"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Opening and reading many shards.")
    parser.add_argument("--records", type=int, default=1_000_000, help="(%(default)s)")
    parser.add_argument("--shards", type=int, default=100, help="(%(default)s)")
    parser.add_argument("--hollow-shards", type=int, default=7000, help="of 10,000 records of zeros (%(default)s)")
    parser.add_argument("--reads", type=int, default=20_000, help="random ones, and as many in order (%(default)s)")
    parser.add_argument("--openings", type=int, default=5, help="processes that open and read (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where temporary files go (default: the system's place for them)")
    parser.add_argument("--measure", choices=("reading", "indexing"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        reading = options.measure == "reading"
        print(json.dumps(measure(options.folder, options.reads) if reading else measure_indexing(options.folder)))
        return
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}; "
        f"Python {platform.python_version()}, numpy {np.__version__}."
    )
    print(f"`python benchmarks/shards.py --records {options.records} --shards {options.shards}`\n")
    print("| what | target, below | measured |\n|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        corpus, hollow = Path(folder, "corpus"), Path(folder, "hollow")
        corpus.mkdir()
        write_corpus(corpus, options.records, options.shards)
        made = fresh("indexing", corpus)
        name = f"{made['records']:,} records, {options.shards} shards"
        table = [(f"{name}: making the indexes", "", f"{made['seconds']:.1f} s")]
        table += rows(name, corpus, "300 MB", options.reads, options.openings)
        hollow.mkdir()
        write_hollow_corpus(hollow, options.hollow_shards, 10_000)
        name = f"{10_000 * options.hollow_shards:,} records, {options.hollow_shards} shards, rows of zeros"
        table += rows(name, hollow, "1 GB", options.reads, options.openings)
    for row in table:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
