"""Images of evaluation sets, which are left out of pretraining: val and test of Karpathy's splits.

The split files are ``dataset_coco.json`` and ``dataset_flickr30k.json`` of ``caption_datasets.zip``,
{"dataset", "images": [{"filename", "cocoid" (COCO), "split", ...}]}.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from mmf_flava.data.prepare.annotations import coco_id, flickr_id
from mmf_flava.data.prepare.rows import file_boundary
from mmf_flava.data.prepare.source_files import read_json
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import parse_json

HELD_OUT = "held out (val or test)"
HELD_OUT_SPLITS = ("val", "test")
KEEP_ALL = "none"  # the word for --exclude
SPLIT_FILES = {"coco": "dataset_coco.json", "flickr30k": "dataset_flickr30k.json"}
EVALUATION_IDS = {"coco": "coco", "flickr30k": "flickr"}  # beginnings of the ids of their images
TITLES = {"coco": "COCO", "flickr30k": "Flickr30K"}
ARCHIVE = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"


@dataclass(frozen=True)
class EvaluationImages:
    """The images to leave out.

    Attributes:
        ids: their ids, as in ``Annotation``.
        sets: the evaluation sets whose split file was read.
    """

    ids: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()


def read_evaluation_images(paths: Iterable[Path]) -> EvaluationImages:
    """Read split files, or zip archives of them.

    Raises:
        UserError: a file is missing or is not a split file, or it has no images of val and test.
    """
    ids: set[str] = set()
    sets: set[str] = set()
    for path in paths:
        for data in _read(path):
            found = _held_out(data)
            if not found:
                raise _not_a_split_file(path, "it has no images of val or test")
            ids |= found
            sets.add(
                "coco" if any(name.startswith("coco:") for name in found) else str(data.get("dataset", "flickr30k"))
            )
    return EvaluationImages(frozenset(ids), frozenset(sets))


def is_split_file(path: Path) -> bool:
    """Return whether a path has the name of one of Karpathy's split files."""
    return path.name.lower() in SPLIT_FILES.values()


def require_split_files(part: str, needed: Iterable[str], images: EvaluationImages) -> None:
    """Check that the split files of the evaluation sets whose images a part contains were read.

    Raises:
        UserError: a split file is missing.
    """
    missing = [name for name in SPLIT_FILES if name in needed and name not in images.sets]
    if missing:
        titles, files = " and ".join(TITLES[name] for name in missing), " ".join(SPLIT_FILES[name] for name in missing)
        raise UserError(
            f"--exclude: {part} contains images of {titles}, and their val and test images must not get into "
            f"pretraining. Add --exclude {files} (from {ARCHIVE}), or --exclude {KEEP_ALL} to keep all images."
        )


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise _not_a_split_file(path, "no such file")
    with file_boundary(partial(_not_a_split_file, path)):
        if path.suffix.lower() == ".zip":
            with ZipFile(path) as archive:
                names = [name for name in archive.namelist() if Path(name).name in SPLIT_FILES.values()]
                contents = [parse_json(archive.read(name)) for name in names]
        else:
            contents = [read_json(path)]
    if not contents or not all(isinstance(data, dict) and isinstance(data.get("images"), list) for data in contents):
        raise _not_a_split_file(path, 'expected {"images": [{"filename", "split"}]}')
    return contents


def _held_out(data: Mapping[str, Any]) -> set[str]:
    return {
        name
        for image in data["images"]
        if isinstance(image, dict) and image.get("split") in HELD_OUT_SPLITS
        for name in split_ids(image)
    }


def split_ids(image: Mapping[str, Any]) -> list[str]:
    """Return the id of an image of a split file; empty if it has none."""
    if isinstance(image.get("cocoid"), int):
        return [coco_id(image["cocoid"])]
    stem = str(image.get("filename", "")).partition(".")[0]
    if stem.startswith("COCO_"):
        return [coco_id(stem.rpartition("_")[2])] if stem.rpartition("_")[2].isdecimal() else []
    number = stem.partition("_")[0]  # Flickr8K's names end in a hash
    return [flickr_id(number)] if number.isdecimal() else []


def _not_a_split_file(path: Path, problem: str) -> UserError:
    return UserError(
        f"{path}: not a split file of Karpathy ({problem}). Set --exclude to {' or '.join(SPLIT_FILES.values())} "
        f"of {ARCHIVE}."
    )
