"""KITTI as a classification task, as in VTAB and CLIP: the distance of the nearest vehicle in the image.

The published test images have no labels. VTAB and CLIP use the split of TensorFlow Datasets, which divides the training
images by video into 6,347 + 423 + 711 images. This module samples the split in the same way.
"""

from pathlib import Path

import numpy as np

from mmf_flava.data.image_sets.labelled import LabelledFiles
from mmf_flava.data.text_lines import read_lines

VEHICLES = ("Car", "Van", "Truck")
DISTANCE_LIMITS = (8.0, 20.0, 999.0)  # metres in front of the camera for classes 0, 1, 2; class 3 is no vehicle
SEED, PERCENT = 123, 10  # percentage of the videos in each of test and val


def open_kitti(root: Path, split: str) -> LabelledFiles:
    """Open the split ``train``, ``val`` or ``test`` of KITTI in ``root/Kitti/raw``.

    Raises:
        OSError: a file is missing.
    """
    raw = root / "Kitti" / "raw"
    image_numbers = find_image_numbers(raw / "mapping", split)
    labels = [read_distance_class(raw / "training" / "label_2" / f"{number:06d}.txt") for number in image_numbers]
    return LabelledFiles(raw, (f"training/image_2/{number:06d}.png" for number in image_numbers), labels)


def read_distance_class(labels: Path) -> int:
    """Return the class (0 to 3) of an image from its label file: the distance range of the nearest vehicle."""
    rows = [line.split() for line in read_lines(labels)]
    depths = [float(row[13]) for row in rows if row and row[0] in VEHICLES]
    return next((label for label, limit in enumerate(DISTANCE_LIMITS) if min(depths, default=1000.0) <= limit), 3)


def find_image_numbers(mapping: Path, split: str) -> list[int]:
    """Return the numbers of the training images whose videos, according to the devkit, belong to ``split``."""
    lines = read_lines(mapping / "train_mapping.txt")
    positions = [int(position) - 1 for position in (mapping / "train_rand.txt").read_text().split(",")]
    videos = [lines[position].split(" ")[1] for position in positions]
    names = sorted(set(videos))
    size = max(1, PERCENT * len(names) // 100)
    # numpy's legacy generator is stable across versions
    generator = np.random.RandomState(SEED)
    test = set(generator.choice(names, size, replace=False).tolist())
    val = set(generator.choice([name for name in names if name not in test], size, replace=False).tolist())
    chosen = {"test": test, "val": val, "train": set(names) - test - val}[split]
    return [number for number, video in enumerate(videos) if video in chosen]
