"""Samples of image-text pairs a second, ours beside webdataset with Pillow: ``python benchmarks/loader.py``.

Both read the same tar shards of 500 x 375 JPEGs and make the same batch of them: the encoder's view and the codebook's
(bicubic 224, Lanczos 112, of one random crop), the mask of patches, the caption's clean and masked tokens. The peer is
what one writes with the libraries: ``webdataset`` (shuffle 1000, ``decode("pilrgb")``), torchvision's crop and resize,
``DataLoader``; masks, tokens and collation are our functions on both sides. One process, one thread; processor time is
counted, so that other work on the machine matters less. We and the peer take turns; medians and ratios of medians.
"""

import argparse
import io
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
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

from mmf_flava.data import pictures
from mmf_flava.data.collate import collate
from mmf_flava.data.masking import block_mask
from mmf_flava.data.pmd import PMDBuilder
from mmf_flava.data.processors import CLIP_MEAN, CLIP_STD
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.data.shards import ShardWriter
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, wordpiece
from mmf_flava.data.turns import Turns

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
    """Crops of scikit-learn's two photos, 500 x 375, quality 90 (about 50 kB), with captions of 12 words."""
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)
    with tqdm(total=records, desc="making shards", leave=False) as bar:
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
    wordpiece([*SPECIAL_TOKENS, *sorted(set(WORDS))]).save(str(folder / "tokenizer" / "tokenizer.json"))


def open_pmd(folder: Path) -> Any:
    """``pmd`` on the shards, through its registered builder, as ``flava_base`` has it."""
    image = {"image_size": 224, "patch_size": 16}
    own = {"data_dir": str(folder), "splits": {"train": ["."]}}
    own["processors"] = {"text_processor": {"params": {"tokenizer": "tokenizer"}}}
    config = OmegaConf.merge(
        {"env": {"data_dir": str(folder)}, "model_config": {"flava": {"image_encoder": image}}},
        OmegaConf.load(DATASETS / "pmd.yaml"),
        {"dataset_config": {"pmd": {**own, "mismatch_probability": 0.0}}},
    )
    return PMDBuilder().load_dataset(config.dataset_config.pmd, "train")


def ours(dataset: Any) -> Iterator[Any]:
    return (batch for _, batch in MultitaskLoader({"pmd": dataset}, Turns({"pmd": dataset}), BATCH))


def peer(dataset: Any, folder: Path) -> Iterator[Any]:
    import webdataset

    rng, text = np.random.default_rng(0), dataset.text_processor

    def sample(record: dict[str, Any]) -> dict[str, Any]:
        picture = record["jpg"]
        crop = F.crop(picture, *RandomResizedCrop.get_params(picture, (0.9, 1.0), (3 / 4, 4 / 3)))
        image = F.to_tensor(F.resize(crop, [224, 224], F.InterpolationMode.BICUBIC))
        return {
            "image": F.normalize(image, CLIP_MEAN, CLIP_STD),
            "image_for_codebook": F.to_tensor(F.resize(crop, [112, 112], F.InterpolationMode.LANCZOS)),
            "image_patch_mask": torch.from_numpy(block_mask(rng, (14, 14), 75, 16)),
            **text({"text": record["json"]["caption"], "rng": rng}),
            "sample_id": record["__key__"],
        }

    shards = sorted(map(str, folder.glob("*.tar")))
    stream = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0).repeat().shuffle(1000)
    stream = stream.decode("pilrgb").map(sample)
    return iter(DataLoader(stream, BATCH, collate_fn=lambda samples: collate(samples, "pmd", "train")))


def rate(batches: Iterator[Any], seconds: float) -> float:
    """Samples a second of processor time."""
    done, started = 0, time.process_time()
    while (taken := time.process_time() - started) < seconds:
        done += len(next(batches)["sample_id"])
    return done / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4000, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="of processor time a turn (%(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="(%(default)s)")
    options = parser.parse_args()
    if find_spec("webdataset") is None:
        parser.error("the peer is not installed: pip install webdataset")
    torch.set_num_threads(1)
    setup_imports()
    simplejpeg = pictures.simplejpeg
    with tempfile.TemporaryDirectory() as folder:
        make_shards(Path(folder), options.records)
        dataset = open_pmd(Path(folder))
        streams = {"mmf_flava": ours(dataset), "webdataset": peer(dataset, Path(folder))}
        if simplejpeg is not None:
            streams["mmf_flava, Pillow alone"] = ours(dataset)
        rates: dict[str, list[float]] = {name: [] for name in streams}
        for stream in streams.values():
            next(stream)
        for _ in range(options.turns):
            for name, stream in streams.items():
                pictures.simplejpeg = None if "alone" in name else simplejpeg
                rates[name].append(rate(stream, options.seconds))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "webdataset", "pillow", "torchvision"))
    packages += "" if simplejpeg is None else f", simplejpeg {version('simplejpeg')}"
    print(f"{platform.machine()}, {os.cpu_count()} cores, one used; Python {platform.python_version()}, {packages}.\n")
    print("| loader | samples/s/core | times webdataset (target 1.5) |\n|---|---|---|")
    base = statistics.median(rates["webdataset"])
    for name, found in rates.items():
        middle = statistics.median(found)
        print(f"| {name} | {middle:,.0f} ({min(found):,.0f} to {max(found):,.0f}) | {middle / base:.2f} |")


if __name__ == "__main__":
    main()
