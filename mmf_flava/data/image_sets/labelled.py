"""Labelled images as records: files with labels, or a dataset of torchvision's. Parts are the image and ``cls``."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from PIL import Image

from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record
from mmf_flava.data.records import ImageFolder


def _record(key: str, data: bytes, label: int | None, only: Sequence[str] | None) -> Record:
    extension = key.rpartition(".")[2].lower()
    # Pillow goes by the content: an extension that we do not know is as good as any
    parts = {extension if extension in IMAGE_EXTENSIONS else IMAGE_EXTENSIONS[0]: data}
    if label is not None:
        parts["cls"] = str(label).encode()
    return Record(key, {name: part for name, part in parts.items() if only is None or name in only})


class LabelledFiles:
    """Files below ``root`` with their labels.

    Args:
        keys: paths below ``root``.
        labels: one a key.
        classes: names in the labels' order, where there are any.
    """

    sequential = False

    def __init__(self, root: Path, keys: Iterable[str], labels: Iterable[int], classes: Sequence[str] | None = None):
        self.root, self.keys, self.labels = root, list(keys), list(labels)
        self.classes = None if classes is None else list(classes)
        assert len(self.keys) == len(self.labels)

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Record ``index``; with ``only``, just the parts of these extensions. Raises BadRecord."""
        key = self.keys[index]
        try:
            data = self._content(self.root / key)
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{self.root / key} cannot be read: {error}", key) from error
        return _record(key, data, self.labels[index], only)

    def _content(self, path: Path) -> bytes:
        return path.read_bytes()


class TorchvisionRecords:
    """A dataset of torchvision's whose samples are (image, label).

    An image that torchvision decodes, or has as pixels, becomes an uncompressed BMP, which costs little beside resizing
    it; datasets that take a ``loader`` are given ``Path``, so that their files are decoded by ``pictures`` instead.

    Args:
        dataset: without transforms.
        root: the folder below which its files lie; keys are the paths below it, or ``name`` and the index.
        relabel: the label of torchvision's label.
    """

    sequential = False

    def __init__(self, dataset: Any, root: Path, name: str, relabel: Callable[[int], int] | None = None):
        self.dataset, self.root, self.name, self.relabel = dataset, root, name, relabel
        names = getattr(dataset, "classes", None)
        # ImageNet's are tuples of synonyms
        self.classes = None if names is None else [name if isinstance(name, str) else name[0] for name in names]

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Record ``index``; with ``only``, just the parts of these extensions. Raises BadRecord."""
        key = f"{self.name}/{index}"
        try:
            image, label = self.dataset[index]
            if isinstance(image, Path):
                key, data = str(image.relative_to(self.root)), image.read_bytes()
            else:
                data = bmp(image)
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{key} cannot be read: {error}", key) from error
        if label is not None and self.relabel is not None:
            label = self.relabel(label)
        return _record(key, data, label, only)


def bmp(image: Image.Image) -> bytes:
    """An image as an uncompressed BMP."""
    file = io.BytesIO()
    image.save(file, "BMP")
    return file.getvalue()


def drawn_split(root: Path, split: str, train: int, test: int | None) -> LabelledFiles:
    """A part of class folders that were published without splits, drawn by a fixed seed.

    Of each class ``train`` images are for training, and of the others ``test``, or all of them, for testing.

    Raises:
        FileNotFoundError: there are no images.
    """
    folder = ImageFolder(root)
    if not len(folder):
        raise FileNotFoundError(f"there are no class folders of images in {root}")
    members: list[list[str]] = [[] for _ in folder.classes]
    numbers = {name: number for number, name in enumerate(folder.classes)}
    for key in folder.keys:
        members[numbers[Path(key).parts[0]]].append(key)
    keys, labels = [], []
    for number, (name, found) in enumerate(zip(folder.classes, members, strict=True)):
        order = np.random.default_rng(crc32(name.encode())).permutation(len(found)).tolist()
        end = None if test is None else train + test
        chosen = order[:train] if split == "train" else order[train:end]
        keys += [found[place] for place in sorted(chosen)]
        labels += [number] * len(chosen)
    return LabelledFiles(root, keys, labels, folder.classes)
