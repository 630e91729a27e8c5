"""Arithmetic over 70 million records, on indexes that are files of holes; the benchmark of shards, at toy size."""

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
from mmf_flava.data.shard_index import index_path, read_index

SHARDS, EACH = 7000, 10_000
SIZE = SHARDS * EACH
CHOSEN = [0, 1, EACH - 1, EACH, 2 * EACH - 1, 2 * EACH, 31_415_926, SIZE // 2, SIZE - EACH - 1, SIZE - EACH, SIZE - 1]
ROOT = Path(__file__).parents[2]
write_hollow_corpus = runpy.run_path(str(ROOT / "benchmarks" / "shards.py"))["write_hollow_corpus"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """7,000 shards of 10,000 records; only the chosen ones have content: their number, as text."""
    folder = tmp_path_factory.mktemp("hollow")
    paths = write_hollow_corpus(folder, SHARDS, EACH)
    for number in CHOSEN:
        fill(paths[number // EACH], number % EACH, str(number).encode())
    return folder


def fill(shard, row, text):
    index, place = read_index(shard), 512 + 20 * (row + 1)
    assert index is not None
    content = np.zeros((), index.dtype)
    content["key"], content["json"] = text, (place, len(text), zlib.crc32(text))
    with open(shard, "r+b") as tar, open(index_path(shard), "r+b") as file:
        os.pwrite(tar.fileno(), text, place)
        os.pwrite(file.fileno(), content.tobytes(), index.start + row * index.dtype.itemsize)
    later = os.stat(shard).st_mtime_ns + 10**9
    os.utime(index_path(shard), ns=(later, later))


def test_every_record_is_found_by_arithmetic(corpus):
    records = open_records(corpus)
    assert len(records) == SIZE
    for number in CHOSEN:
        assert records.read(number) == Record(str(number), {"json": str(number).encode()})
    for number in (2, EACH + 1, SIZE - 2):
        assert records.read(number) == Record("", {}), "a neighbour was found"
    for number in (-1, SIZE):
        with pytest.raises(IndexError):
            records.read(number)


def test_opening_costs_memory_a_shard_and_none_a_record(corpus, monkeypatch):
    tracemalloc.start()
    try:
        records = open_records(corpus)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2000 * SHARDS
    assert len(pickle.dumps(records)) < 500 * SHARDS, "what a spawned worker is sent"
    monkeypatch.setattr("mmf_flava.data.shards.MAX_MAPPED_BYTES", 3 * EACH * 50)
    for number in range(0, SIZE, SIZE // 50):
        records.read(number)
    assert len(records._rows) <= 3, "indexes that were read are let go"
    assert records.read(0).key == "0"


def test_an_order_over_all_of_them():
    order = Order(SIZE, seed=5)
    positions = np.unique(np.random.default_rng(0).integers(SIZE, size=20_000)).tolist()
    found = [order.index(n) for n in positions]
    assert len(set(found)) == len(found) and min(found) >= 0 and max(found) < SIZE
    assert abs(np.mean(found) / SIZE - 0.5) < 0.02, "spread over all of the corpus"
    first_block = [order.index(n) for n in range(order.block_size)]
    assert len({index // order.block_size for index in first_block}) == 1, "near-sequential reads"
    last = [order.index(n) for n in range(SIZE - 3 * order.block_size, SIZE)]
    assert len(set(last)) == 3 * order.block_size
    assert order.index(SIZE) != order.index(0), "the next epoch has another order"


def test_the_benchmark_runs():
    toy = {"records": 100, "shards": 3, "hollow-shards": 50, "reads": 20, "openings": 1}
    options = [f"--{name}={value}" for name, value in toy.items()]
    command = [sys.executable, "benchmarks/shards.py", *options]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "| 100 records, 3 shards: opening" in done.stdout
    assert "| 500,000 records, 50 shards, rows of zeros: a random record" in done.stdout
