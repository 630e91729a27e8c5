"""Tests of record access and order at 70 million records, on sparse index files; a small run of the shard benchmark."""

import gc
import os
import pickle
import runpy
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from mmf_flava.data.order import Order
from mmf_flava.data.record import Record
from mmf_flava.data.records import open_records
from mmf_flava.data.shard_index import encode_index, index_path
from mmf_flava.data.shards import SPARE_SHARDS

SHARDS, EACH = 7000, 10_000
SIZE = SHARDS * EACH
CHOSEN = [0, 1, EACH - 1, EACH, 2 * EACH - 1, 2 * EACH, 31_415_926, SIZE // 2, SIZE - EACH - 1, SIZE - EACH, SIZE - 1]
ROOT = Path(__file__).parents[2]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "shards.py"))
sparse_key = BENCHMARK["sparse_key"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """7,000 shards of 10,000 records; only the records in CHOSEN have content: their number, as text."""
    folder = tmp_path_factory.mktemp("sparse")
    paths = BENCHMARK["write_sparse_corpus"](folder, SHARDS, EACH)
    for shard in {number // EACH for number in CHOSEN}:
        write_records(paths[shard], {number % EACH: str(number) for number in CHOSEN if number // EACH == shard})
    return folder


def write_records(shard, texts):
    """Write texts to a shard, and an index with one record for each text; the other records remain empty."""
    entries = {row: (512 + 20 * (row + 1), len(text), zlib.crc32(text.encode())) for row, text in texts.items()}
    with open(shard, "r+b") as tar:
        for row, text in texts.items():
            os.pwrite(tar.fileno(), text.encode(), entries[row][0])
    records = {texts.get(n, sparse_key(n)): {"json": entries[n]} if n in texts else {} for n in range(EACH)}
    index, stat = index_path(shard), os.stat(shard)
    index.unlink()  # a hard link
    index.write_bytes(encode_index(records, False, stat.st_size, stat.st_mtime_ns))


def test_records_are_found_at_their_computed_offsets(corpus):
    records = open_records(corpus)
    assert len(records) == SIZE
    for number in CHOSEN:
        assert records.read(number) == Record(str(number), {"json": str(number).encode()})
    for number in (2, EACH + 1, SIZE - 2):
        assert records.read(number) == Record(sparse_key(number % EACH), {}), "adjacent records must be empty"
    for number in (-1, SIZE):
        with pytest.raises(IndexError):
            records.read(number)


def test_memory_grows_with_shards_and_not_with_records(corpus):
    open_records(corpus)  # imports modules and fills caches
    gc.collect()
    tracemalloc.start()
    try:
        records = open_records(corpus)
        memory, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert memory < 2000 * SHARDS
    assert len(pickle.dumps(records)) < 500 * SHARDS, "the reader must be cheap to send to spawned workers"
    records.keep_open(0)
    for number in range(0, SIZE, SIZE // 50):
        records.read(number)
    assert len(records._open_shards) <= SPARE_SHARDS, "indexes must be closed above the limit"
    assert records.read(0).key == "0"


def test_order_covers_all_records():
    order = Order(SIZE, seed=5)
    positions = np.unique(np.random.default_rng(0).integers(SIZE, size=20_000)).tolist()
    records = [order.index(n) for n in positions]
    assert len(set(records)) == len(records) and min(records) >= 0 and max(records) < SIZE
    assert abs(np.mean(records) / SIZE - 0.5) < 0.02, "records must be spread over the entire corpus"
    assert order.index(SIZE) != order.index(0), "the next epoch must have a different order"


def test_shard_benchmark_runs():
    sizes = {"records": 100, "shards": 3, "sparse-shards": 50, "reads": 20, "openings": 1}
    options = [f"--{name}={value}" for name, value in sizes.items()]
    command = [sys.executable, "benchmarks/shards.py", *options]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "| 100 records, 3 shards: opening" in done.stdout
    assert "| 500,000 records, 50 shards, no fields: random reads" in done.stdout
