"""Speed of DINO's crops, compared with torchvision's transforms of PIL images: ``python benchmarks/crops.py``.

Both sides make the same crops of the same 500 x 375 JPEGs, with the parameters published for ViT-B/16: two global crops
of 224 pixels and ten local crops of 96, flip, jitter, grey, blur, solarisation and normalisation. The reference is a
pipeline of ``torchvision.transforms`` and Pillow, as DINO was published with. One process and one thread. CPU time is
measured; both sides alternate, and results are medians.
"""

import argparse
import io
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import count
from typing import Any

import numpy as np
import torch
from mmf.utils.env import setup_imports
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision import transforms

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.config.processors import IMAGENET
from mmf_flava.data import image_decoding
from mmf_flava.data.order import sample_generator
from mmf_flava.data.processor_calls import process_image
from mmf_flava.data.processors import FlavaMulticropProcessor
from mmf_flava.data.record import Record


def make_jpegs(number: int) -> list[bytes]:
    """Return crops of scikit-learn's two photos, 500 x 375, quality 90 (about 50 kB)."""
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng, files = np.random.default_rng(0), []
    for index in range(number):
        left, top = rng.integers(0, 140), rng.integers(0, 52)
        buffer = io.BytesIO()
        photos[index % 2].crop((left, top, left + 500, top + 375)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def blur(probability: float) -> transforms.RandomApply:
    def apply(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(1).uniform_(0.1, 2.0))))

    return transforms.RandomApply([transforms.Lambda(apply)], probability)


def reference_crops() -> list[transforms.Compose]:
    """Return the transform of each of the twelve crops."""
    colours = [
        transforms.RandomHorizontalFlip(0.5),
        transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
        transforms.RandomGrayscale(0.2),
    ]
    last = [transforms.ToTensor(), transforms.Normalize(*IMAGENET)]

    def crop(side: int, scale: tuple[float, float], *others: Any) -> transforms.Compose:
        resized = transforms.RandomResizedCrop(side, scale, interpolation=transforms.InterpolationMode.BICUBIC)
        return transforms.Compose([resized, *colours, *others, *last])

    first = crop(224, (0.25, 1.0), blur(1.0))
    second = crop(224, (0.25, 1.0), blur(0.1), transforms.RandomSolarize(128, 0.2))
    return [first, second, *[crop(96, (0.05, 0.25), blur(0.5))] * 10]


def rate(make: Callable[[int], Any], numbers: Any, seconds: float) -> float:
    """Return images per second of CPU time."""
    done, start = 0, time.process_time()
    while (elapsed := time.process_time() - start) < seconds:
        make(next(numbers))
        done += 1
    return done / elapsed


@command
def main(words: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="CPU time per repeat (%(default)s)")
    parser.add_argument("--repeats", type=integer(1), default=5, help="measurements per side (%(default)s)")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    setup_imports()
    files, processor, crops = make_jpegs(200), FlavaMulticropProcessor({}), reference_crops()

    def ours(number: int) -> dict[str, Tensor]:
        record = Record("x", {"jpg": files[number % len(files)]})
        return process_image(processor, record, sample_generator(0, number), training=True)

    def reference(number: int) -> tuple[Tensor, Tensor]:
        image = Image.open(io.BytesIO(files[number % len(files)])).convert("RGB")
        views = [crop(image) for crop in crops]
        return torch.stack(views[:2]), torch.stack(views[2:])

    simplejpeg = image_decoding.simplejpeg
    sides = {"mmf_flava": ours, "torchvision and Pillow": reference}
    if simplejpeg is not None:
        sides["mmf_flava, without simplejpeg"] = ours
    numbers, rates = {name: count() for name in sides}, {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, make in sides.items():
            image_decoding.simplejpeg = None if "without" in name else simplejpeg
            rates[name].append(rate(make, numbers[name], options.seconds))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "pillow", "torchvision"))
    packages += "" if simplejpeg is None else f", simplejpeg {version('simplejpeg')}"
    print(f"{platform.machine()}, {os.cpu_count()} cores, one used; Python {platform.python_version()}, {packages}.\n")
    print("| crops | images/s/core | speedup over torchvision and Pillow |\n|---|---|---|")
    median = statistics.median(rates["torchvision and Pillow"])
    for name, measured in rates.items():
        own = statistics.median(measured)
        print(f"| {name} | {own:.1f} ({min(measured):.1f} to {max(measured):.1f}) | {own / median:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
