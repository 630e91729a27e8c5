"""Dataset ``karpathy``: Flickr30K and COCO for retrieval, with Karpathy's splits (paper section 4, appendix B.2).

The format of ``dataset_flickr30k.json`` and ``dataset_coco.json`` is {"images": [{"filename", "filepath" (COCO),
"split", "imgid", "sentences": [{"raw", "imgid", "sentid"}]}]}. The test splits have 1,000 (Flickr30K)
and 5,000 (COCO) images.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmf.common.registry import registry

from mmf_flava.config.datasets import KarpathyConfig
from mmf_flava.config.paths import resolve_path
from mmf_flava.data.annotations import clean_text
from mmf_flava.data.order import spread_units
from mmf_flava.data.processor_calls import process_image
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.stream import StreamDataset
from mmf_flava.data.stream_builder import StreamBuilder, run_trains
from mmf_flava.errors import UserError, join_first
from mmf_flava.files.damaged_file import damaged_file
from mmf_flava.files.json_data import parse_json
from mmf_flava.files.regular_file import read_regular_file

SPLIT_FILES = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
IMAGE_SOURCES = (
    "Download COCO from http://images.cocodataset.org/zips/val2014.zip; request Flickr30K at "
    "https://shannon.cs.illinois.edu/DenotationGraph"
)


class KarpathyRecords:
    """The images of one split and their captions, in the order of the file.

    Args:
        captions_per_image: maximum number of captions per image; None: all.

    Attributes:
        captions: list of captions per image.

    Raises:
        UserError: the file is missing or invalid, it has invalid or duplicate entries or captions of other images, or
            image files are missing.
    """

    sequential = False

    def __init__(self, path: Path, images: Path, split: str, captions_per_image: int | None):
        self.path, self.images = path, images
        with damaged_file(path, "Karpathy split file", f"Download the file again from {SPLIT_FILES}."):
            self._load(split, captions_per_image)

    def _load(self, split: str, captions_per_image: int | None) -> None:
        entries = _read_split(self.path, split)
        self._check(entries)
        self.keys = self._find_images(entries, split)
        captions = [[clean_text(sentence["raw"]) for sentence in entry["sentences"]] for entry in entries]
        self.captions = [texts[:captions_per_image] for texts in captions]
        self.images_sha256 = hashlib.sha256(json.dumps(self.captions).encode()).hexdigest()

    def _check(self, entries: list[dict[str, Any]]) -> None:
        self._fail_if_any(
            "are invalid (filename and sentences with raw text are required)",
            [
                f"entry {n} ({entry.get('filename', 'no filename')})"
                for n, entry in enumerate(entries)
                if not _is_valid(entry)
            ],
        )
        sentences = [(entry, sentence) for entry in entries for sentence in entry["sentences"]]
        self._fail_if_any(
            "have sentences of other images",
            [
                f"{entry['filename']} (imgid {entry.get('imgid')}) has a sentence of imgid {sentence['imgid']}"
                for entry, sentence in sentences
                if sentence.get("imgid", entry.get("imgid")) != entry.get("imgid")
            ],
        )
        for key, get_value in (("imgid", lambda entry: entry.get("imgid")), ("filename", _image_path)):
            self._fail_if_any(f"have a duplicate {key}", _find_duplicates(entries, get_value))
        self._fail_if_any(
            "have a duplicate sentid",
            _find_duplicates([s for _, s in sentences], lambda sentence: sentence.get("sentid")),
        )

    def _fail_if_any(self, problem: str, entries: list[str]) -> None:
        if entries:
            raise UserError(
                f"{self.path}: {len(entries)} entries {problem}: {join_first(entries)}. Use the published file."
            )

    def _find_images(self, entries: list[dict[str, Any]], split: str) -> list[str]:
        remedy = "Set dataset_config.karpathy.image_dir to the image folder."
        if not self.images.is_dir():
            raise UserError(f"{self.path}: the image folder {self.images} does not exist. {remedy}")
        places = [_possible_paths(entry) for entry in entries]
        found = [next((path for path in paths if (self.images / path).is_file()), None) for paths in places]
        if missing := [paths[0] for path, paths in zip(found, places, strict=True) if path is None]:
            raise UserError(
                f"{self.images}: {len(missing)} of the {len(entries)} images of split '{split}' were not found: "
                f"{join_first(missing)}. {IMAGE_SOURCES}. {remedy}"
            )
        return [path for path in found if path is not None]

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Return record ``index``, which only has an image. Its field is called ``jpg`` if the extension is unknown.

        Raises:
            BadRecord: the file cannot be read.
        """
        key = self.keys[index]
        extension = key.rpartition(".")[2].lower()
        extension = extension if extension in IMAGE_EXTENSIONS else IMAGE_EXTENSIONS[0]
        try:
            return Record(key, {extension: read_regular_file(self.images / key)})
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{self.images / key} cannot be read: {error}", key) from error


class KarpathyDataset(StreamDataset):
    """Retrieval gallery of one split. Its samples have the fields image, captions, sample_id (the image's path).

    Samples are not masked. A gallery with an image that cannot be decoded is refused, see ``Gallery``.
    """

    HAS_LOSSES = False  # pretraining losses need masks

    def __init__(self, config: KarpathyConfig, dataset_type: str, path: Path):
        images = resolve_path(config.image_dir or "", config.data_dir)
        self.records = KarpathyRecords(path, images, dataset_type, config.captions_per_image)
        super().__init__("karpathy", config, dataset_type, [spread_units(len(self.records))])

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records.read(index)
        fields = process_image(self.image_processor, record, rng, training=False, codebook_view=False)
        return {**fields, "captions": self.records.captions[index], "sample_id": record.key}

    def fingerprint(self) -> str:
        """Return a hash of the images and captions. It is used to detect outdated caches of embeddings."""
        return records_sha256(self.records)


@registry.register_builder("karpathy")
class KarpathyBuilder(StreamBuilder):
    """Builder of the dataset ``karpathy``. The config sets the path of Karpathy's file for each split."""

    NAME = "karpathy"
    CONFIG = KarpathyConfig

    def load_split(self, config: KarpathyConfig, dataset_type: str) -> KarpathyDataset | None:
        """Load the gallery of one split. Return None if no file is configured for it.

        Raises:
            UserError: the split is train, or its files are missing or invalid.
        """
        if dataset_type == "train":
            if not run_trains():
                return None
            raise UserError(
                "dataset karpathy: training is not supported. Set run_type to test or val, or build training data with "
                "`python -m mmf_flava.data.prepare pmd --part coco`."
            )
        paths = self.list_paths(config, dataset_type)
        return KarpathyDataset(config, dataset_type, Path(paths[0])) if paths else None


def _read_split(path: Path, split: str) -> list[dict[str, Any]]:
    """Read the entries of one split from Karpathy's split file."""
    try:
        data = parse_json(read_regular_file(path))
    except OSError as error:
        raise UserError(
            f"{path}: Karpathy's split file cannot be read ({error.strerror}). Download dataset_flickr30k.json and "
            f"dataset_coco.json from {SPLIT_FILES} and set dataset_config.karpathy.splits."
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: invalid JSON ({error}). Download the file again from {SPLIT_FILES}.") from None
    entries = data.get("images") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "split" in entry for entry in entries):
        raise UserError(
            f'{path}: expected a Karpathy split file, {{"images": [{{"filename", "split", "sentences"}}]}}. Download '
            f"it from {SPLIT_FILES}."
        )
    selected = [entry for entry in entries if entry["split"] == split]
    if not selected:
        splits = ", ".join(sorted({str(entry["split"]) for entry in entries}))
        raise UserError(f"{path} has no images of split '{split}'. Its splits are: {splits or 'none'}.")
    return selected


def _is_valid(entry: dict[str, Any]) -> bool:
    sentences = entry.get("sentences")
    return (
        bool(entry.get("filename"))
        and isinstance(entry["filename"], str)
        and isinstance(sentences, list)
        and bool(sentences)
        and all(isinstance(s, dict) and isinstance(s.get("raw"), str) and clean_text(s["raw"]) for s in sentences)
    )


def _image_path(entry: dict[str, Any]) -> str:
    return "/".join(filter(None, (entry.get("filepath"), entry["filename"])))


def _possible_paths(entry: dict[str, Any]) -> list[str]:
    """Return where an image may lie: COCO's folders of 2014, one folder for all images, or COCO's folders of 2017."""
    paths = [_image_path(entry), entry["filename"]]
    if isinstance(number := entry.get("cocoid"), int):
        paths += [f"{folder}{number:012}.jpg" for folder in ("train2017/", "val2017/", "")]
    return paths


def _find_duplicates(entries: Iterable[dict[str, Any]], get_value: Callable[[dict[str, Any]], Hashable]) -> list[str]:
    counts = Counter(get_value(entry) for entry in entries)
    return [str(value) for value, count in counts.items() if count > 1 and value is not None]
