"""KITTI as CLIP used it, VTAB's task: how far is the nearest vehicle in the picture?

The published test images have no labels. TensorFlow Datasets splits the training images by video, 6,347 + 423 + 711
pictures, and VTAB and CLIP took that split; it is drawn here in the same way.
"""

from pathlib import Path

import numpy as np

from mmf_flava.data.image_sets.labelled import LabelledFiles

VEHICLES = ("Car", "Van", "Truck")
NEARER_THAN = (8.0, 20.0, 999.0)  # metres in front of the camera: classes 0, 1, 2; the rest is class 3, no vehicle
SEED, SHARE = 123, 10  # per cent of the videos for each of test and val


def open_kitti(root: Path, split: str) -> LabelledFiles:
    """The pictures of ``train``, ``val`` or ``test`` below ``root/Kitti/raw``; OSError where a file is not there."""
    raw = root / "Kitti" / "raw"
    numbers = picture_numbers(raw / "mapping", split)
    labels = [distance_class(raw / "training" / "label_2" / f"{number:06d}.txt") for number in numbers]
    return LabelledFiles(raw, (f"training/image_2/{number:06d}.png" for number in numbers), labels)


def distance_class(labels: Path) -> int:
    """0 to 3 by the distance of the nearest vehicle of a label file."""
    rows = [line.split() for line in labels.read_text().splitlines()]
    depths = [float(row[13]) for row in rows if row and row[0] in VEHICLES]
    return next((number for number, limit in enumerate(NEARER_THAN) if min(depths, default=1000.0) < limit), 3)


def picture_numbers(mapping: Path, split: str) -> list[int]:
    """The training pictures of a split, by the videos that the devkit says they come from."""
    lines = (mapping / "train_mapping.txt").read_text().splitlines()
    places = [int(place) - 1 for place in (mapping / "train_rand.txt").read_text().split(",")]
    videos = [lines[place].split(" ")[1] for place in places]
    names = sorted(set(videos))
    size = max(1, SHARE * len(names) // 100)
    # numpy's old generator, whose draws never change
    generator = np.random.RandomState(SEED)
    test = set(generator.choice(names, size, replace=False).tolist())
    val = set(generator.choice([name for name in names if name not in test], size, replace=False).tolist())
    chosen = {"test": test, "val": val, "train": set(names) - test - val}[split]
    return [number for number, video in enumerate(videos) if video in chosen]
