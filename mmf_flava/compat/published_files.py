"""Files of MMF's datasets: the names of a split by what lies in the folder, and what a run has to download."""

import functools
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, open_dict

from mmf_flava.compat.published_annotations import find_answers, is_questions, write_answers

logger = logging.getLogger(__name__)

# dataset -> split -> names of its annotations. If the configured one is missing, the first existing one is used.
NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "hateful_memes": {
        "train": ("train.jsonl",),
        "val": ("dev_unseen.jsonl", "dev_seen.jsonl", "dev.jsonl"),
        "test": ("test_unseen.jsonl", "test_seen.jsonl", "test.jsonl"),
    },
    "visual_entailment": {
        "train": ("snli_ve_train.jsonl",),
        "val": ("snli_ve_dev.jsonl",),
        "test": ("snli_ve_test.jsonl",),
    },
    "vqa2": {
        "train": ("imdb_train2014.npy", "v2_OpenEnded_mscoco_train2014_questions.json"),
        "val": ("imdb_val2014.npy", "v2_OpenEnded_mscoco_val2014_questions.json"),
        "test": (
            "imdb_test2015.npy",
            "v2_OpenEnded_mscoco_test2015_questions.json",
            "v2_OpenEnded_mscoco_test-dev2015_questions.json",
        ),
    },
}
PARTS = ("images", "features", "annotations")  # folders of a dataset


def find_annotations(name: str, config: Any) -> Any:
    """Return the config of a dataset with the annotations that lie in its folder.

    A split without annotations gets none, unless all splits have none, so that MMF downloads them. For questions of
    VQAv2 without MMF's vocabulary of answers, it is made of the answers.

    Args:
        name: name of the dataset.
        config: its section of ``dataset_config``; it is not changed.
    """
    found: dict[str, list[str]] = {}
    for split, names in NAMES.get(name, {}).items():
        given = _as_list((config.get("annotations") or {}).get(split))
        if len(given) != 1 or Path(given[0]).name not in names:
            continue
        folder = Path(given[0]).parent
        candidates = [given[0], *(str(folder / candidate) for candidate in names)]
        exists = next((path for path in candidates if _locate(config, path).is_file()), None)
        found[split] = [exists] if exists else []
        if exists not in (None, given[0]):
            _warn_once(
                f"dataset_config.{name}: the split {split} is {_locate(config, exists)}, because {Path(given[0]).name} "
                "does not exist."
            )
    if not any(found.values()):
        return config
    config = deepcopy(config)
    OmegaConf.set_readonly(config, False)
    with open_dict(config):
        for split, paths in found.items():
            config.annotations[split] = paths
        _set_answers(config)
    return config


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def _set_answers(config: Any) -> None:
    from mmf_flava.files.download import default_cache_dir

    processor: Any = (config.get("processors") or {}).get("answer_processor") or {}
    given = (processor.get("params") or {}).get("vocab_file")
    files = [_locate(config, path) for split in ("train", "val") for path in _as_list(config.annotations.get(split))]
    annotations = [found for path in files if is_questions(path) and (found := find_answers(path))]
    if not annotations or not isinstance(given, str) or _locate(config, given).is_file():
        return
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in annotations]
    digest = hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
    path = default_cache_dir() / "vqa2" / f"answers_{digest}.txt"
    if not path.is_file():
        write_answers(annotations, path)
    processor.params.vocab_file = str(path.absolute())


def missing_files(config: Any) -> list[Path]:
    """Return the files and folders that a dataset reads and that do not exist or are an unfinished download."""
    parts = [part for part in PARTS if part == "annotations" or config.get(f"use_{part}")]
    annotated = [split for split, files in (config.get("annotations") or {}).items() if _as_list(files)]
    paths = [path for part in parts for split in annotated for path in _as_list((config.get(part) or {}).get(split))]
    paths += [text for text in _texts(config.get("processors") or {}) if "/" in text]
    return [path for path in dict.fromkeys(_locate(config, path) for path in paths) if not _is_complete(path)]


def is_missing_in(folder: Path, missing: Sequence[Path]) -> bool:
    """Return whether one of the missing files belongs to a folder of downloads, such as ``annotations``.

    The folder of a dataset itself has the files that are not in ``images``, ``features`` or ``annotations``.
    """
    root = Path(os.path.abspath(folder))
    inside = [path.relative_to(root).parts for path in missing if path.is_relative_to(root)]
    return any(root.name in PARTS or not parts or parts[0] not in PARTS for parts in inside)


def _is_complete(path: Path) -> bool:
    if not path.is_dir():
        return path.exists()
    names = {child.name for child in path.iterdir()} - {".built.json"}
    return bool(names) and not any(name.endswith((".tar.gz", ".zip", ".part")) for name in names)


def _locate(config: Any, path: str) -> Path:
    return Path(os.path.abspath(os.path.join(str(config.get("data_dir") or ""), path)))


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(item) for item in value]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping) or OmegaConf.is_dict(value):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, Sequence) or OmegaConf.is_list(value):
        for item in value:
            yield from _texts(item)
