"""``karpathy``: Flickr30K and COCO as retrieval is measured on them, in Karpathy's split files (§4, B.2).

``dataset_flickr30k.json`` and ``dataset_coco.json`` are {"images": [{"filename", "filepath" (COCO), "split", "imgid",
"sentences": [{"raw", "imgid", "sentid"}]}]}; of test they have 1,000 and 5,000 images.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmf.common.registry import registry
from mmf.common.sample import Sample

from mmf_flava.config.schema import positive
from mmf_flava.data import pictures
from mmf_flava.data.order import sample_generator
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.stream import StreamBuilder, StreamDataset
from mmf_flava.errors import UserError, some

SPLIT_FILES = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
IMAGES = (
    "COCO's are in http://images.cocodataset.org/zips/val2014.zip, Flickr30K's are given on request at "
    "https://shannon.cs.illinois.edu/DenotationGraph"
)


class KarpathyRecords:
    """The images of one split, in the file's order, each with its captions.

    Attributes:
        captions: of each image, at most ``captions_per_image`` (None: all).

    Raises:
        UserError: no such file, one of another format, entries that cannot be used, are there twice or name an unknown
            image, or image files that are missing; the first of them are named.
    """

    sequential = False

    def __init__(self, path: Path, images: Path, split: str, captions_per_image: int | None):
        self.path, self.images = path, images
        entries = _read(path, split)
        self._check(entries)
        self.keys = [_place(entry) for entry in entries]
        self._check_files(split)
        texts = [[sentence["raw"].strip() for sentence in entry["sentences"]] for entry in entries]
        self.captions = [own[:captions_per_image] for own in texts]
        self.images_sha256 = hashlib.sha256(json.dumps(self.captions).encode()).hexdigest()

    def _check(self, entries: list[dict[str, Any]]) -> None:
        numbered = list(enumerate(entries))
        self._refuse(
            "cannot be used: each needs a filename and sentences with a raw text",
            [f"entry {n} ({entry.get('filename', 'no filename')})" for n, entry in numbered if not _usable(entry)],
        )
        sentences = [(entry, sentence) for entry in entries for sentence in entry["sentences"]]
        self._refuse(
            "have sentences of an unknown image",
            [
                f"{entry['filename']} (imgid {entry.get('imgid')}) has one of {sentence['imgid']}"
                for entry, sentence in sentences
                if sentence.get("imgid", entry.get("imgid")) != entry.get("imgid")
            ],
        )
        for what, name in (("imgid", lambda entry: entry.get("imgid")), ("filename", _place)):
            self._refuse(f"are there twice by their {what}", _twice(entries, name))
        self._refuse(
            "are there twice by their sentid",
            _twice([s for _, s in sentences], lambda sentence: sentence.get("sentid")),
        )

    def _refuse(self, what: str, found: list[str]) -> None:
        if found:
            raise UserError(f"{self.path}: {len(found)} entries {what}: {some(found)}; take the published file.")

    def _check_files(self, split: str) -> None:
        where = "dataset_config.karpathy.image_dir names the folder."
        if not self.images.is_dir():
            raise UserError(f"The images of {self.path} are looked for in {self.images}, which does not exist; {where}")
        if missing := [key for key in self.keys if not (self.images / key).is_file()]:
            raise UserError(
                f"{len(missing)} of the {len(self.keys)} images of split '{split}' are not in {self.images}: "
                f"{some(missing)}; {IMAGES}. {where}"
            )

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """The image of record ``index``; its extension is jpg where it is another. Raises BadRecord if it is gone."""
        key = self.keys[index]
        extension = key.rpartition(".")[2].lower()
        extension = extension if extension in IMAGE_EXTENSIONS else IMAGE_EXTENSIONS[0]
        try:
            return Record(key, {extension: (self.images / key).read_bytes()})
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{self.images / key} cannot be read: {error}", key) from error


class KarpathyDataset(StreamDataset):
    """A gallery: fields image, captions, sample_id (the image's path). Nothing is masked, and nothing is replaced: a
    picture that cannot be decoded is a UserError, as the figures would be those of another gallery."""

    NEEDS = ("image_processor", "text_processor")
    HAS_LOSSES = False  # the losses of pretraining need masks

    def __init__(self, config: Any, dataset_type: str, path: Path):
        images = Path(config.data_dir).expanduser() / Path(config.get("image_dir") or "").expanduser()
        most = config.get("captions_per_image")
        if most is not None:
            positive(most, "dataset_config.karpathy.captions_per_image")
        self.records = KarpathyRecords(path, images, dataset_type, most)
        super().__init__("karpathy", config, dataset_type, len(self.records), len(self.records))

    def __getitem__(self, n: int) -> Sample:
        index = self.order.index(n)
        try:
            return Sample(self._sample(index, sample_generator(self.seed, index)))
        except BadRecord as error:
            raise UserError(
                f"{self.records.path}: {error}; a gallery must be whole, fetch this image again."
            ) from error

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records.read(index)
        picture = pictures.decode(record, self.image_processor.decode_size)
        views = self.image_processor({"image": picture, "rng": rng, "train": False, "codebook_view": False})
        return {"image": views["image"], "captions": self.records.captions[index], "sample_id": record.key}

    def fingerprint(self) -> str:
        """Another one for other images or captions."""
        return records_sha256(self.records)


@registry.register_builder("karpathy")
class KarpathyBuilder(StreamBuilder):
    """Builds ``karpathy``; further keys: ``image_dir``, ``captions_per_image``. ``splits`` names one file each for val
    and test, whose split of that name is read."""

    NAME = "karpathy"

    def load(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> KarpathyDataset | None:
        """The gallery of one split; None where the YAML names no file for it.

        Raises:
            UserError: training was asked for, several files were named, or as ``KarpathyRecords``.
        """
        if dataset_type == "train":
            raise UserError(
                "Dataset karpathy is for evaluation: set run_type to test or val, or make training data of the file "
                "with `python -m mmf_flava.data.prepare pmd --part coco`."
            )
        paths = self.paths(config, dataset_type)
        if len(paths) > 1:
            raise UserError(f"dataset_config.karpathy.splits.{dataset_type} names {len(paths)} files; name one.")
        return KarpathyDataset(config, dataset_type, Path(paths[0])) if paths else None


def _read(path: Path, split: str) -> list[dict[str, Any]]:
    """The entries of a split."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"Karpathy's split file {path} cannot be read ({error.strerror}): dataset_flickr30k.json and "
            f"dataset_coco.json are in {SPLIT_FILES}; dataset_config.karpathy.splits names the file."
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); fetch it again from {SPLIT_FILES}.") from None
    entries = data.get("images") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "split" in entry for entry in entries):
        raise UserError(
            f'{path} is no split file of Karpathy\'s, {{"images": [{{"filename", "split", "sentences"}}]}}; they are '
            f"in {SPLIT_FILES}."
        )
    own = [entry for entry in entries if entry["split"] == split]
    if not own:
        there = ", ".join(sorted({str(entry["split"]) for entry in entries}))
        raise UserError(f"{path} has no images of split '{split}', it has {there or 'none'}.")
    return own


def _usable(entry: dict[str, Any]) -> bool:
    sentences = entry.get("sentences")
    return (
        bool(entry.get("filename"))
        and isinstance(entry["filename"], str)
        and isinstance(sentences, list)
        and bool(sentences)
        and all(isinstance(s, dict) and isinstance(s.get("raw"), str) and s["raw"].strip() for s in sentences)
    )


def _place(entry: dict[str, Any]) -> str:
    return "/".join(filter(None, (entry.get("filepath"), entry["filename"])))


def _twice(entries: Iterable[dict[str, Any]], name: Callable[[dict[str, Any]], Hashable]) -> list[str]:
    counts = Counter(name(entry) for entry in entries)
    return [str(found) for found, count in counts.items() if count > 1 and found is not None]
