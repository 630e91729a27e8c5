"""Records of labelled images, from files or torchvision datasets. A record has the image and ``cls``, the label."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from PIL import Image

from mmf_flava.data.image_folder import ImageFolder, class_folder
from mmf_flava.data.names import display_name
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record
from mmf_flava.files.regular_file import read_regular_file


def _record(key: str, data: bytes, label: int | None, only: Sequence[str] | None) -> Record:
    extension = key.rpartition(".")[2].lower()
    # Pillow detects the format from the content, so any known extension works.
    fields = {extension if extension in IMAGE_EXTENSIONS else IMAGE_EXTENSIONS[0]: data}
    if label is not None:
        fields["cls"] = str(label).encode()
    return Record(key, {name: value for name, value in fields.items() if only is None or name in only})


class LabelledFiles:
    """Image files with labels.

    Args:
        root: folder of the files.
        keys: paths relative to ``root``.
        labels: one label per key.
        classes: class names in label order, if known.
    """

    sequential = False

    def __init__(self, root: Path, keys: Iterable[str], labels: Iterable[int], classes: Sequence[str] | None = None):
        self.root, self.keys, self.labels = root, list(keys), list(labels)
        self.classes = None if classes is None else list(classes)
        assert len(self.keys) == len(self.labels)

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Return record ``index``. If ``only`` is given, read only the fields with these extensions.

        Raises:
            BadRecord: the image cannot be read.
        """
        path, key = self.root / self.keys[index], display_name(self.keys[index])
        try:
            data = self._content(path)
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{path} cannot be read: {error}", key) from error
        return _record(key, data, self.labels[index], only)

    def _content(self, path: Path) -> bytes:
        return read_regular_file(path)


class TorchvisionRecords:
    """A torchvision dataset whose samples are (image, label).

    Datasets with a ``loader`` argument must be created with ``loader=Path``, so that a record contains the original
    image file. Other datasets return decoded images, which are encoded as uncompressed BMP. This is fast compared with
    resizing.

    Args:
        dataset: the torchvision dataset, without transforms.
        root: folder of the dataset's files. The key of a record is the file's path relative to ``root`` or, for decoded
            images, ``name`` and the index.
        name: name of the split.
        relabel: function that maps torchvision's label to the label of the record; None: unchanged.
    """

    sequential = False

    def __init__(self, dataset: Any, root: Path, name: str, relabel: Callable[[int], int] | None = None):
        self.dataset, self.root, self.name, self.relabel = dataset, root, name, relabel
        names = getattr(dataset, "classes", None)
        # ImageNet's class names are tuples of synonyms
        self.classes = None if names is None else [name if isinstance(name, str) else name[0] for name in names]

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Return record ``index``. If ``only`` is given, read only the fields with these extensions.

        Raises:
            BadRecord: the image cannot be read.
        """
        key = f"{self.name}/{index}"
        try:
            image, label = self.dataset[index]
            if isinstance(image, Path):
                key, data = str(image.relative_to(self.root)), image.read_bytes()
            else:
                data = encode_bmp(image)
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
            reason = Reason.VANISHED if isinstance(error, FileNotFoundError) else Reason.DAMAGED_IMAGE
            raise BadRecord(reason, f"{key} cannot be read: {error}", key) from error
        if label is not None and self.relabel is not None:
            label = self.relabel(label)
        return _record(key, data, label, only)


def encode_bmp(image: Image.Image) -> bytes:
    """Encode an image as uncompressed BMP."""
    file = io.BytesIO()
    image.save(file, "BMP")
    return file.getvalue()


def sample_split(root: Path, split: str, train: int, test: int | None) -> LabelledFiles:
    """Sample one split, with a fixed seed, of class folders that were published without splits.

    Args:
        train: training images per class.
        test: test images per class, sampled from the remaining images; None: all remaining images.

    Raises:
        FileNotFoundError: ``root`` has no images.
    """
    folder = ImageFolder(root)
    if not len(folder):
        raise FileNotFoundError(f"{root} has no class folders with images")
    keys_by_class: list[list[str]] = [[] for _ in folder.classes]
    class_labels = {name: label for label, name in enumerate(folder.classes)}
    for key in folder.keys:
        keys_by_class[class_labels[class_folder(key) or ""]].append(key)
    keys, labels = [], []
    for label, (name, class_keys) in enumerate(zip(folder.classes, keys_by_class, strict=True)):
        order = np.random.default_rng(crc32(name.encode())).permutation(len(class_keys)).tolist()
        end = None if test is None else train + test
        chosen = order[:train] if split == "train" else order[train:end]
        keys += [class_keys[position] for position in sorted(chosen)]
        labels += [label] * len(chosen)
    return LabelledFiles(root, keys, labels, folder.classes)
