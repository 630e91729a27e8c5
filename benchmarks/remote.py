"""Waiting for remote shards, compared with webdataset and MosaicML Streaming: ``python benchmarks/remote.py``.

A server on the loopback interface, in its own process, waits 20 ms before each response and sends 2 MB/s a connection.
It has tar shards of 500 x 375 JPEGs, and the same records in MosaicML Streaming's shards of the same size. A training
step is a pause of one second. Each loader has two workers, batches of 64 and an empty cache, and reads one pass.
webdataset reads with curl through a shuffle buffer of 1000, MosaicML Streaming reads S3 with its default
``predownload``, because it does not read http, and mmf_flava reads 64 lanes, as with ``training.lanes`` of 256 and this
batch size. Bytes are compared with those of the records.

Then two processes of mmf_flava with two workers each read one pass into one cache, without pauses, and the requests are
counted that one core can send, to a server without latency.
"""

import argparse
import http.server
import multiprocessing
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import torch
from loader import BATCH, build_reference, make_shards, open_pmd, webdataset_batches
from mmf.utils.env import setup_imports
from torch.utils.data import DataLoader

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.data.collate import collate
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.records import open_records
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.files.cache import FileCache

LATENCY, RATE, CHUNK = 0.02, 2e6, 1 << 14  # seconds, bytes per second and connection, bytes
SHARDS, WORKERS = 16, 2


class Server:
    """A server of the files in ``folder``, in a process of its own. It counts requests and sent bytes."""

    def __init__(self, folder: Path, latency: float = LATENCY, rate: float = RATE) -> None:
        context = multiprocessing.get_context("fork")
        self.requests: Synchronized[int] = context.Value("q", 0)
        self.sent: Synchronized[int] = context.Value("q", 0)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, self, folder, latency, rate))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._process = context.Process(target=self._server.serve_forever, daemon=True)
        self._process.start()

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

    def __init__(self, counts: Server, folder: Path, latency: float, rate: float, *args: Any) -> None:
        self.counts, self.folder, self.latency, self.rate = counts, folder, latency, rate
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        with self.counts.requests.get_lock():
            self.counts.requests.value += 1
        time.sleep(self.latency)
        path = self.folder / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(part[1]), min(int(part[2] or size) + 1, size)) if part else (0, size)
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        if path.name == "index.json":  # the workers of MosaicML Streaming would share the connection that read it
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        began = time.monotonic()
        with open(path, "rb") as file:
            file.seek(start)
            for position in range(start, end, CHUNK):
                self.wfile.write(file.read(min(CHUNK, end - position)))
                time.sleep(max(0.0, began + (position + CHUNK - start) / self.rate - time.monotonic()))
        with self.counts.sent.get_lock():
            self.counts.sent.value += end - start

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def empty_cache() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MMF_CACHE_DIR"] = folder
        yield Path(folder)


def remote_pmd(folder: Path, server: Server) -> Any:
    return open_pmd(folder, f"{server.url}/{{00000..{SHARDS - 1:05d}}}.tar")


def mmf_flava_batches(dataset: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
    """Return an endless iterator over the batches of one of several processes."""
    schedule = DatasetSchedule({"pmd": dataset})
    loader = MultitaskLoader({"pmd": dataset}, schedule, BATCH, WORKERS, rank=rank, world_size=world_size)
    return (batch for _, batch in loader)


def write_mds(folder: Path, target: Path) -> None:
    """Write the records of tar shards as shards of MosaicML Streaming of the same size."""
    from streaming import MDSWriter

    columns = {"key": "str", "jpg": "bytes", "json": "bytes"}
    size = max(path.stat().st_size for path in folder.glob("*.tar"))
    records = open_records(folder)
    with MDSWriter(out=str(target), columns=columns, size_limit=size) as writer:
        for number in range(len(records)):
            record = records.read(number)
            writer.write({"key": record.key, **record.fields})


def streaming_batches(dataset: Any, bucket: str, server: Server, cache: Path) -> Iterator[Any]:
    from streaming import StreamingDataset

    names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION")
    os.environ |= {f"AWS_{name}": "none" for name in names} | {"S3_ENDPOINT_URL": server.url}
    sample = build_reference(dataset)

    class Pairs(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            record = super().__getitem__(at)
            return sample(record["key"], record["jpg"], record["json"])

    stream = Pairs(remote=f"s3://{bucket}", local=str(cache), shuffle=True, batch_size=BATCH)
    collate_fn = partial(collate, dataset_name="pmd", dataset_type="train")
    return iter(DataLoader(stream, BATCH, num_workers=WORKERS, collate_fn=collate_fn))


def measure(batches: Iterator[Any], steps: int, pause: float) -> tuple[float, float, int]:
    """Return the seconds until the first batch, the share of the time spent waiting after it, and the samples."""
    start = time.perf_counter()
    samples = len(next(batches)["sample_id"])
    first = began = time.perf_counter()
    waited = 0.0
    for _ in range(steps - 1):
        time.sleep(pause)
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        samples += len(batch["sample_id"])
    return first - start, waited / (time.perf_counter() - began), samples


def compare(folder: Path, steps: int, pause: float, record_bytes: float) -> None:
    """Print the table of all loaders."""
    print("| loader | waiting after the first batch | first batch | requests | bytes / bytes of the records |")
    print("|---|---|---|---|---|")
    for name in ("mmf_flava", "webdataset", "streaming"):
        server = Server(folder)
        with empty_cache() as cache:
            dataset = remote_pmd(folder, server)
            if name == "mmf_flava":
                batches = mmf_flava_batches(dataset)
            elif name == "webdataset":
                urls = [f"{server.url}/{number:05d}.tar" for number in range(SHARDS)]
                batches = webdataset_batches(dataset, urls, WORKERS)
            else:
                batches = streaming_batches(dataset, "mds", server, cache / "mds")
            first, share, samples = measure(batches, steps, pause)
            ratio = server.sent.value / (samples * record_bytes)
            print(f"| {name} | {share:.1%} | {first:.1f} s | {server.requests.value:,} | {ratio:.3f} |", flush=True)
            del batches
        server.close()


def read_with_ranks(folder: Path, steps: int, record_bytes: float) -> None:
    """Print the bytes of one pass of two processes that share a cache."""
    server = Server(folder)
    with empty_cache():
        ranks = [mmf_flava_batches(remote_pmd(folder, server), rank, 2) for rank in range(2)]
        start = time.perf_counter()
        samples = sum(len(next(batches)["sample_id"]) for _ in range(steps) for batches in ranks)
        seconds = time.perf_counter() - start
        ratio = server.sent.value / (samples * record_bytes)
        print(
            f"\n2 processes x {WORKERS} workers, one cache, no pauses: {samples:,} samples in {seconds:.1f} s, ", end=""
        )
        print(f"{server.requests.value:,} requests, bytes / bytes of the records {ratio:.3f}", flush=True)
    server.close()


def count_requests(folder: Path) -> None:
    """Print how many records one core can download."""
    server = Server(folder, latency=0, rate=float("inf"))
    with empty_cache() as cache:
        records = open_records(f"{server.url}/{{00000..{SHARDS - 1:05d}}}.tar", FileCache(cache))
        started, cpu = time.perf_counter(), time.process_time()
        for number in range(len(records)):
            records.read(number)
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
        print(
            f"\nOne thread, server without latency: {len(records) / cpu:,.0f} requests per second of processor ", end=""
        )
        print(f"time, {len(records) / seconds:,.0f} requests/s")
    server.close()


@command
def main(words: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=integer(2), default=41, help="batches of a pass (%(default)s)")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds of a training step (%(default)s)")
    options = parser.parse_args(words)
    if missing := [name for name in ("webdataset", "streaming", "boto3") if find_spec(name) is None]:
        parser.error(f"{', '.join(missing)}: not installed. pip install webdataset mosaicml-streaming")
    torch.set_num_threads(1)
    setup_imports()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_shards(folder, options.steps * BATCH, -(-options.steps * BATCH // SHARDS))
        write_mds(folder, folder / "mds")
        records = open_records(folder)
        sizes = [len(field) for number in range(len(records)) for field in records.read(number).fields.values()]
        record_bytes = sum(sizes) / len(records)
        packages = [f"{name} {version(name)}" for name in ("torch", "webdataset", "mosaicml-streaming", "boto3")]
        print(
            f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, {', '.join(packages)}."
        )
        print(f"{len(records):,} records of {record_bytes:,.0f} bytes, {SHARDS} shards.\n")
        compare(folder, options.steps, options.pause, record_bytes)
        read_with_ranks(folder, options.steps, record_bytes)
        count_requests(folder)


if __name__ == "__main__":
    sys.exit(main())
