"""Throughput of image-text pairs, compared with webdataset and Pillow: ``python benchmarks/loader.py``.

Both loaders read the same tar shards of 500 x 375 JPEGs and return the same batches: encoder and codebook view (bicubic
224 and Lanczos 112 of one random crop), patch mask, clean and masked tokens of the caption. The reference is a standard
pipeline of ``webdataset`` (shuffle 1000, ``decode("pilrgb")``), torchvision's crop and resize, and ``DataLoader``; it
uses mmf_flava's masking, tokenizer and collation. One process and one thread. CPU time is measured, to reduce the
effect of other processes. The loaders are measured alternately; results are medians and ratios of medians.
"""

import argparse
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F
from tqdm import tqdm

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.config.processors import CLIP_MEAN, CLIP_STD
from mmf_flava.data import image_decoding
from mmf_flava.data.collate import collate
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.masking import block_mask
from mmf_flava.data.pmd import PMDBuilder
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, build_wordpiece

BATCH = 64
WORDS = [
    "a",
    "the",
    "photo",
    "of",
    "old",
    "temple",
    "red",
    "flower",
    "under",
    "blue",
    "sky",
    "with",
    "people",
    "garden",
]
DATASETS = Path(__file__).parents[1] / "projects/flava/configs/datasets"


def make_shards(folder: Path, records: int, per_shard: int = 1000) -> None:
    """Write crops of scikit-learn's two photos, 500 x 375, quality 90 (about 50 kB), with captions of 12 words."""
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)
    with tqdm(total=records, desc="writing shards", leave=False) as bar:
        for start in range(0, records, per_shard):
            with ShardWriter(folder / f"{start // per_shard:05d}.tar") as shard:
                for number in range(start, min(start + per_shard, records)):
                    left, top = rng.integers(0, 140), rng.integers(0, 52)
                    buffer = io.BytesIO()
                    photos[number % 2].crop((left, top, left + 500, top + 375)).save(buffer, "JPEG", quality=90)
                    text = json.dumps({"caption": " ".join(rng.choice(WORDS, 12))})
                    shard.write(f"{number:08d}", {"jpg": buffer.getvalue(), "json": text.encode()})
                    bar.update()
    (folder / "tokenizer").mkdir()
    build_wordpiece([*SPECIAL_TOKENS, *sorted(set(WORDS))]).save(str(folder / "tokenizer" / "tokenizer.json"))


def open_pmd(folder: Path, shards: str = ".") -> Any:
    """Open the shards, in a folder or at a URL, as dataset ``pmd`` with the settings of ``flava_base``."""
    image = {"image_size": 224, "patch_size": 16}
    section = {"data_dir": str(folder), "splits": {"train": [shards]}}
    section["processors"] = {"text_processor": {"params": {"tokenizer": "tokenizer"}}}
    config = OmegaConf.merge(
        {"env": {"data_dir": str(folder)}, "model_config": {"flava": {"image_encoder": image}}},
        OmegaConf.load(DATASETS / "pmd.yaml"),
        {"dataset_config": {"pmd": {**section, "mismatch_probability": 0.0}}},
    )
    return PMDBuilder().load_dataset(config.dataset_config.pmd, "train")


def mmf_flava_batches(dataset: Any) -> Iterator[Any]:
    return (batch for _, batch in MultitaskLoader({"pmd": dataset}, DatasetSchedule({"pmd": dataset}), BATCH))


def build_reference(dataset: Any) -> Callable[[str, bytes, bytes], dict[str, Any]]:
    """Return a function that builds the sample of a record (key, JPEG, JSON) with Pillow and torchvision."""
    rng, text = np.random.default_rng(0), dataset.text_processor

    def sample(key: str, image: bytes, annotation: bytes) -> dict[str, Any]:
        original = Image.open(io.BytesIO(image)).convert("RGB")
        crop = F.crop(original, *RandomResizedCrop.get_params(original, (0.9, 1.0), (3 / 4, 4 / 3)))
        resized = F.to_tensor(F.resize(crop, [224, 224], F.InterpolationMode.BICUBIC))
        return {
            "image": F.normalize(resized, CLIP_MEAN, CLIP_STD),
            "image_for_codebook": F.to_tensor(F.resize(crop, [112, 112], F.InterpolationMode.LANCZOS)),
            "image_patch_mask": torch.from_numpy(block_mask(rng, (14, 14), 75, 16)),
            **text({"text": json.loads(annotation)["caption"], "rng": rng}),
            "sample_id": key,
        }

    return sample


def webdataset_batches(dataset: Any, shards: list[str], workers: int = 0) -> Iterator[Any]:
    """Return an iterator over batches; it is endless, unless there are workers."""
    import webdataset

    sample = build_reference(dataset)
    stream = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0)
    stream = (stream if workers else stream.repeat()).shuffle(1000)
    stream = stream.map(lambda record: sample(record["__key__"], record["jpg"], record["json"]))
    collate_fn = partial(collate, dataset_name="pmd", dataset_type="train")
    return iter(DataLoader(stream, BATCH, num_workers=workers, collate_fn=collate_fn))


def rate(batches: Iterator[Any], seconds: float) -> float:
    """Return samples per second of CPU time."""
    done, start = 0, time.process_time()
    while (elapsed := time.process_time() - start) < seconds:
        done += len(next(batches)["sample_id"])
    return done / elapsed


@command
def main(words: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=integer(1), default=4000, help="number of pairs (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="CPU time per repeat (%(default)s)")
    parser.add_argument("--repeats", type=integer(1), default=5, help="measurements per loader (%(default)s)")
    options = parser.parse_args(words)
    if find_spec("webdataset") is None:
        parser.error("webdataset is not installed: pip install webdataset")
    torch.set_num_threads(1)
    setup_imports()
    simplejpeg = image_decoding.simplejpeg
    with tempfile.TemporaryDirectory() as folder:
        make_shards(Path(folder), options.records)
        dataset = open_pmd(Path(folder))
        streams = {
            "mmf_flava": mmf_flava_batches(dataset),
            "webdataset": webdataset_batches(dataset, sorted(map(str, Path(folder).glob("*.tar")))),
        }
        if simplejpeg is not None:
            streams["mmf_flava, without simplejpeg"] = mmf_flava_batches(dataset)
        rates: dict[str, list[float]] = {name: [] for name in streams}
        for stream in streams.values():
            next(stream)
        for _ in range(options.repeats):
            for name, stream in streams.items():
                image_decoding.simplejpeg = None if "without" in name else simplejpeg
                rates[name].append(rate(stream, options.seconds))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "webdataset", "pillow", "torchvision"))
    packages += "" if simplejpeg is None else f", simplejpeg {version('simplejpeg')}"
    print(f"{platform.machine()}, {os.cpu_count()} cores, one used; Python {platform.python_version()}, {packages}.\n")
    print("| loader | samples/s/core | speedup over webdataset (target 1.5) |\n|---|---|---|")
    reference = statistics.median(rates["webdataset"])
    for name, measured in rates.items():
        median = statistics.median(measured)
        print(f"| {name} | {median:,.0f} ({min(measured):,.0f} to {max(measured):,.0f}) | {median / reference:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
