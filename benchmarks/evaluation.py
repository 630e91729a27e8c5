"""Zero-shot classification of 50,000 images: memory, and time lost by an interruption.

``python benchmarks/evaluation.py [--images N]`` runs ``mmf_run`` on ``zero_shot/demo_digits.yaml`` with an untrained
model of the demo's size on random images in shards of 10,000, and prints Markdown. Peaks are the maximum resident set
size of the evaluating process.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.data.prepare.demo import prepare_demo, read_manifest
from mmf_flava.data.shard_writer import ShardWriter

BIN = Path(sys.executable).parent
RECIPE = "projects/flava/configs/zero_shot/demo_digits.yaml"
SHARD = 10_000
MAX_BYTES_PER_IMAGE = 2352  # a quarter of its pixels in float32; allows for allocator noise


def write_images(folder: Path, count: int) -> None:
    """Write ``count`` noise images of 28 x 28 pixels with labels 0 to 9."""
    rng = np.random.default_rng(0)
    images = []
    for number in range(64):
        file = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8)).save(file)
        images.append(file.read_bytes())
        file.unlink()
    for start in range(0, count, SHARD):
        with ShardWriter(folder / f"{start // SHARD:05d}.tar") as shard:
            for record in range(start, min(start + SHARD, count)):
                shard.write(f"{record:09d}", {"png": images[record % 64], "cls": str(record % 10).encode()})


def run_command(root: Path, images: Path, cache: Path | None) -> list[str]:
    return [
        str(BIN / "mmf_run"),
        f"config={RECIPE}",
        "checkpoint.resume_file=null",
        "training.seed=1",
        "training.num_workers=1",
        f"dataset_config.image_classification.splits.test=['{images}']",
        "dataset_config.image_classification.splits.val=[]",
        f"dataset_config.image_classification.data_dir={root / 'demo'}",
        "dataset_config.image_classification.processors.text_processor.params.tokenizer=tokenizer",
        f"evaluation.features_dir={cache or 'null'}",
        f"env.save_dir={root / 'run'}",
    ]


def run(*arguments: object, kill_after: float | None = None) -> tuple[float, int]:
    """Run the command. Return (seconds, peak memory in bytes)."""
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        run_command(*arguments), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )  # type: ignore[arg-type]
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if kill_after is None and status:
        raise SystemExit(errors.decode()[-3000:])
    return time.perf_counter() - start, usage.ru_maxrss * 1024


@command
def main(words: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=integer(10), default=50_000)
    count = parser.parse_args(words).images
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if read_manifest(root / "demo") is None:
            prepare_demo(root / "demo")
        few, many = root / "few", root / "many"
        for path, images in ((few, count // 10), (many, count)):
            path.mkdir()
            write_images(path, images)
        few_seconds, few_peak = run(root, few, None)
        seconds, peak = run(root, many, None)
        run(root, many, root / "cache", kill_after=few_seconds + (seconds - few_seconds) / 2)
        chunks = sum(1 for _ in (root / "cache").rglob("*.safetensors"))
        resumed, resumed_peak = run(root, many, root / "cache")
        cached, cached_peak = run(root, many, root / "cache")
    bytes_per_image = (peak - few_peak) / (count - count // 10)
    print("| run | seconds | peak memory |\n|---|---|---|")
    rows = [
        (f"{count // 10:,} images", few_seconds, few_peak),
        (f"{count:,} images", seconds, peak),
        (f"{count:,} images, resumed after a kill with {chunks} chunks of embeddings on disk", resumed, resumed_peak),
        (f"{count:,} images, all embeddings on disk", cached, cached_peak),
    ]
    for name, elapsed, memory in rows:
        print(f"| {name} | {elapsed:.0f} | {memory / 1e6:.0f} MB |")
    print(f"\n{bytes_per_image:.0f} bytes of memory per additional image (limit: {MAX_BYTES_PER_IMAGE}).")
    return int(bytes_per_image > MAX_BYTES_PER_IMAGE)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
