"""Preparing image-text pairs by several processes: ``python benchmarks/prepare.py [--rows N] [--rounds N] [--ray]``.

Prints Markdown. The corpus is synthetic and deterministic: images of 10 kB in img2dataset's shards of 10,000 records,
and captions in a file like that of Conceptual Captions. Like those of img2dataset, the shards have no index: each run
scans them, except "indexes exist". All files are in the page cache. The runs alternate, because other programs change
the times, and each is compared with the local:1 of its round; processor time includes that of local workers, but not of
Ray's. The folders of the runs are compared byte by byte.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.data.shard_writer import ShardWriter

SHARD = 10_000
IMAGE_BYTES = 10_000
WORDS = ("a", "dog", "on", "the", "beach", "with", "red", "ball", "old", "house", "near", "river", "two", "people")


def write_corpus(folder: Path, rows: int) -> None:
    """Write images and captions. Every tenth caption has no image."""
    rng = random.Random(0)
    noise = [b"\xff\xd8\xff" + rng.randbytes(IMAGE_BYTES - 3) for _ in range(64)]
    with open(folder / "train.tsv", "w") as captions:
        for first in range(0, rows, SHARD):
            with ShardWriter(folder / "images" / f"{first // SHARD:05d}.tar") as shard:
                for row in range(first, min(rows, first + SHARD)):
                    url = f"http://host{row % 97}.example/images/{row}.jpg"
                    caption = " ".join(rng.choices(WORDS, k=10))
                    captions.write(f"{caption}\t{url}\n")
                    metadata = {"caption": caption, "url": url, "key": f"{row:09d}", "status": "success"}
                    fields = {"jpg": noise[row % 64], "txt": caption.encode(), "json": json.dumps(metadata).encode()}
                    if row % 10 != 9:
                        shard.write(f"{row:09d}", fields)


def start(corpus: Path, out: Path, executor: str, *options: str) -> subprocess.Popen:
    """Start the command in a process group of its own."""
    words = ["pmd", "--part", "conceptual_captions", "--src", corpus / "train.tsv", "--images", corpus / "images"]
    words += ["--out", out, "--executor", executor, "--quiet", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "mmf_flava.data.prepare", *map(str, words)], stdout=subprocess.DEVNULL
    )


def one(corpus: Path, out: Path, executor: str) -> None:
    wait(start(corpus, out, executor))


def two_processes(corpus: Path, out: Path, executor: str) -> None:
    for process in [start(corpus, out, executor) for _ in range(2)]:
        wait(process)


def killed_worker(corpus: Path, out: Path, executor: str) -> None:
    """Kill one worker when half of the tasks have a result."""
    process, tasks = start(corpus, out, executor), len(list((corpus / "images").glob("*.tar")))
    while process.poll() is None and len(list((out / ".work").glob("[0-9]*.json"))) < tasks // 2:
        time.sleep(0.05)
    workers = [child for child in descendants(process.pid) if is_worker(child)]
    os.kill(workers[0], signal.SIGKILL)
    wait(process)


def descendants(parent: int) -> list[int]:
    """Return the processes below ``parent``."""
    children = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        children += [int(child) for child in (task / "children").read_text().split()]
    return [*children, *(below for child in children for below in descendants(child))]


def is_worker(process: int) -> bool:
    """Return whether a process runs tasks, as a process of local:N or of Ray."""
    words = Path(f"/proc/{process}/cmdline").read_bytes()
    return b"spawn_main" in words or words.startswith(b"ray::_call")


def wait(process: subprocess.Popen) -> None:
    if process.wait() != 0:
        raise RuntimeError(f"a preparation ended with exit code {process.returncode}")


def folder_hash(folder: Path) -> str:
    """Return a hash of the shards and the manifest. Indexes have times."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix != ".index"):
        with open(path, "rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


RUNS: dict[str, tuple[Callable[[Path, Path, str], None], str]] = {
    "local:1": (one, "local:1"),
    "local:1, indexes exist": (one, "local:1"),
    "local:2": (one, "local:2"),
    "two processes, local:1 each": (two_processes, "local:1"),
    "local:2, a worker killed half-way": (killed_worker, "local:2"),
}
RAY = {"ray": (one, "ray"), "ray, a worker killed half-way": (killed_worker, "ray")}


def processor_time() -> float:
    """Return the processor time of ended child processes, and of theirs, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@command
def main(words: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description="Preparing image-text pairs by several processes.")
    parser.add_argument("--rows", type=integer(1), default=200_000, help="rows of the corpus (%(default)s)")
    parser.add_argument("--rounds", type=integer(1), default=3, help="runs of each kind (%(default)s)")
    parser.add_argument("--ray", action="store_true", help="measure Ray too")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder (the system's default)")
    parser.add_argument("--only", nargs="+", choices=(*RUNS, *RAY), help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    runs = {name: run for name, run in ({**RUNS, **RAY} if options.ray else RUNS).items()}
    runs = {name: run for name, run in runs.items() if not options.only or name in options.only}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    used: dict[str, list[float]] = {name: [] for name in runs}
    hashes = set()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        corpus, out = Path(temporary, "corpus"), Path(temporary, "out")
        corpus.mkdir()
        write_corpus(corpus, options.rows)
        for _ in range(options.rounds):
            for name, (run, executor) in runs.items():
                for index in (corpus / "images").glob("*.index") if "indexes" not in name else ():
                    index.unlink()
                before, begun = processor_time(), time.perf_counter()
                run(corpus, out, executor)
                seconds[name].append(time.perf_counter() - begun)
                used[name].append(processor_time() - before)
                hashes.add(folder_hash(out))
                shutil.rmtree(out)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}; "
        f"Python {platform.python_version()}. {options.rows:,} rows, median of {options.rounds}.\n"
    )
    print("| run | seconds | of local:1 | processor seconds | rows per processor second |\n|---|---|---|---|---|")
    for name in runs:
        ratios = [time / other for time, other in zip(seconds[name], seconds[next(iter(runs))], strict=True)]
        processor = statistics.median(used[name])
        print(
            f"| {name} | {statistics.median(seconds[name]):.1f} | {statistics.median(ratios):.2f} | {processor:.1f} | "
            f"{options.rows / processor:,.0f} |"
        )
    print(f"\nThe output folders of all runs are {'equal' if len(hashes) == 1 else 'DIFFERENT'}.")


if __name__ == "__main__":
    sys.exit(main())
